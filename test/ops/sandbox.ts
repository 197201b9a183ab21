// Runs one kernel on guarded memory: outputs and scratch hold NaN before the call, every array
// stands between bytes that nobody may touch, and inputs must come out as they went in.

import { contract, type Kernels } from "../../src/native/library.ts"
import { allocate } from "../../src/native/memory.ts"
import type { Arguments } from "./case.ts"

export type Numbers = Float32Array | Float64Array | Int32Array
export interface Outcome {
  outputs: Record<string, Float32Array | Float64Array>
  /** What the call changed and should not have: one line each. */
  damage: string[]
}

const signatures = await contract()

const ALIGN = 128 // bytes, as the contract promises
const GUARD = 256 // bytes, at least, before and after each array
// As f32 a NaN: what a kernel reads past an end shows in its result, not only what it writes.
const CANARY = 0x7fe5a5e5
const SANDBOX_BYTES = 64 * 2 ** 20

const memory = allocate(SANDBOX_BYTES)
const words = memory.view(Uint32Array, 0, SANDBOX_BYTES / 4)

interface Placed {
  name: string
  offset: number // bytes
  view: Numbers
  kind: "input" | "output" | "scratch"
  before?: Uint32Array
}

export function runKernel(kernels: Kernels, kernel: string, args: Arguments): Outcome {
  const signature = signatures.get(kernel)
  if (!signature) throw new Error(`${kernel} is not in llm.h`)
  const unknown = Object.keys(args).filter((n) => !signature.parameters.some((p) => p.name === n))
  if (unknown.length > 0) throw new Error(`${kernel} has no ${unknown}`)

  const placed = new Map<string, Placed>()
  let end = GUARD
  for (const { name } of signature.parameters) {
    const arg = args[name]
    if (arg === undefined) throw new Error(`${kernel}: the case gives no ${name}`)
    const created = typeof arg === "number" ? undefined : place(name, arg, end)
    if (!created) continue
    placed.set(name, created)
    end = Math.ceil((created.offset + created.view.byteLength + GUARD) / ALIGN) * ALIGN
  }
  if (end > SANDBOX_BYTES) throw new Error(`${kernel}: ${end} bytes do not fit the sandbox`)

  words.fill(CANARY, 0, end / 4)
  for (const array of placed.values()) fill(array, args[array.name]!)

  const values = signature.parameters.map(({ name }) => {
    const arg = args[name]!
    if (typeof arg === "number") return arg
    const target = "kind" in arg && arg.kind === "alias" ? arg.of : name
    return memory.address + placed.get(target)!.offset
  })
  kernels.call(kernel, ...values)
  return inspect([...placed.values()], end)
}

function place(name: string, arg: Exclude<Arguments[string], number>, end: number) {
  const offset = Math.ceil(end / ALIGN) * ALIGN
  const { buffer, byteOffset } = words
  const at = byteOffset + offset
  if (arg instanceof Float32Array) {
    return { name, offset, kind: "input", view: new Float32Array(buffer, at, arg.length) } as Placed
  }
  if (arg instanceof Int32Array) {
    return { name, offset, kind: "input", view: new Int32Array(buffer, at, arg.length) } as Placed
  }
  if (arg.kind === "alias") return undefined
  const isDouble = arg.kind === "output" && arg.type === "f64"
  const view = new (isDouble ? Float64Array : Float32Array)(buffer, at, arg.length)
  return { name, offset, kind: arg.kind, view } as Placed
}

function fill(array: Placed, arg: Arguments[string]) {
  if (arg instanceof Float32Array || arg instanceof Int32Array) {
    array.view.set(arg)
    array.before = bits(array.view).slice()
  } else if (typeof arg === "object" && arg.kind === "output" && arg.initial) {
    array.view.set(arg.initial)
  } else {
    array.view.fill(Number.NaN)
  }
}

export function bits({ buffer, byteOffset, byteLength }: Numbers): Uint32Array {
  return new Uint32Array(buffer, byteOffset, byteLength / 4)
}

function inspect(placed: Placed[], end: number): Outcome {
  const outputs: Outcome["outputs"] = {}
  const damage: string[] = []
  let gap = 0
  for (const { name, offset, view, kind, before } of placed) {
    checkGuard(gap, offset, `before ${name}`, damage)
    gap = offset + view.byteLength
    if (kind === "output") outputs[name] = view.slice() as Float32Array | Float64Array
    if (before && !equalBits(before, bits(view))) damage.push(`input ${name} was changed`)
  }
  checkGuard(gap, end, `after ${placed.at(-1)!.name}`, damage)
  return { outputs, damage }
}

function checkGuard(from: number, to: number, where: string, damage: string[]) {
  for (let word = from / 4; word < to / 4; word++) {
    if (words[word] === CANARY) continue
    damage.push(`wrote ${where}, ${word * 4 - from} bytes past the last end`)
    return
  }
}

export function equalBits(a: Uint32Array, b: Uint32Array): boolean {
  return (
    Buffer.compare(
      new Uint8Array(a.buffer, a.byteOffset, a.byteLength),
      new Uint8Array(b.buffer, b.byteOffset, b.byteLength),
    ) === 0
  )
}
