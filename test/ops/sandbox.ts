// Runs one kernel on guarded memory: outputs and scratch hold NaN before the call, every array
// stands between bytes that nobody may touch, and inputs must come out as they went in. What a library
// with memory of its own works on is a copy of all that, guards and all, copied back afterwards.

import { fromBf16, roundToBf16 } from "../../src/data/bf16.ts"
import type { Element } from "../../src/native/contract.ts"
import { contract } from "../../src/native/library.ts"
import { allocate } from "../../src/native/memory.ts"
import { poison, unpoison } from "../poison.ts"
import type { Arguments } from "./case.ts"
import { type Format, FP8, fromFp8, isFp8, toFp8 } from "./fp8.ts"

export type Numbers = Float32Array | Float64Array | Int32Array | Uint16Array | Uint8Array
export interface Outcome {
  outputs: Record<string, Float32Array | Float64Array>
  /** What the call changed and should not have: one line each. */
  damage: string[]
}

/** Kernels; those that work on a device's memory say where it is. */
export interface Library {
  call(kernel: string, ...args: (number | bigint)[]): number
  onDevice?: (bytes: number) => DeviceMemory
}
export interface DeviceMemory {
  address: number
  upload(from: ArrayBufferView): void
  download(into: ArrayBufferView): void
  /** Until all calls are done; throws what went wrong. */
  wait(): void
}

const signatures = await contract()

const ALIGN = 128 // bytes, as the contract promises
const GUARD = 256 // bytes, at least, before and after each array
// As f32 a NaN: what a kernel reads past an end shows in its result, not only what it writes.
const CANARY = 0x7fe5a5e5
const BF16_NAN = 0x7fe5
const FP8_NAN = 0x7f
const SANDBOX_BYTES = 64 * 2 ** 20

const memory = allocate(SANDBOX_BYTES)
poison(memory.address, SANDBOX_BYTES) // but for what a call is given
const words = memory.view(Uint32Array, 0, SANDBOX_BYTES / 4)
const bytes = new Uint8Array(words.buffer, words.byteOffset, SANDBOX_BYTES)

interface Placed {
  name: string
  offset: number // bytes
  view: Numbers
  format?: Format | undefined // where those are of eight bits
  kind: "input" | "output" | "scratch"
  before?: Numbers
}

const devices = new WeakMap<Library, DeviceMemory | undefined>()
function deviceOf(library: Library): DeviceMemory | undefined {
  if (!devices.has(library)) {
    const device = library.onDevice?.(SANDBOX_BYTES)
    device?.wait() // until it is zeroed
    if (device) poison(device.address, SANDBOX_BYTES)
    devices.set(library, device)
  }
  return devices.get(library)
}

export function runKernel(library: Library, kernel: string, args: Arguments): Outcome {
  const signature = signatures.get(kernel)
  if (!signature) throw new Error(`${kernel} is not in llm.h`)
  const unknown = Object.keys(args).filter((n) => !signature.parameters.some((p) => p.name === n))
  if (unknown.length > 0) throw new Error(`${kernel} has no ${unknown}`)

  const placed = new Map<string, Placed>()
  let end = GUARD
  for (const { name, element } of signature.parameters) {
    const arg = args[name]
    if (arg === undefined) throw new Error(`${kernel}: the case gives no ${name}`)
    const created = typeof arg === "number" ? undefined : place(name, arg, end, element)
    if (!created) continue
    placed.set(name, created)
    end = Math.ceil((created.offset + created.view.byteLength + GUARD) / ALIGN) * ALIGN
  }
  if (end > SANDBOX_BYTES) throw new Error(`${kernel}: ${end} bytes do not fit the sandbox`)

  const device = deviceOf(library)
  const { address } = device ?? memory
  const inAll = (change: typeof poison) => {
    for (const of of [memory, device]) if (of) change(of.address, end)
  }
  inAll(unpoison)
  words.fill(CANARY, 0, end / 4)
  for (const array of placed.values()) fill(array, args[array.name]!)

  const values = signature.parameters.map(({ name }) => {
    const arg = args[name]!
    if (typeof arg === "number") return arg
    const target = "kind" in arg && arg.kind === "alias" ? arg.of : name
    return address + placed.get(target)!.offset
  })
  const used = words.subarray(0, end / 4)
  device?.upload(used)
  device?.wait()
  inAll(poison)
  for (const { offset, view } of placed.values()) unpoison(address + offset, view.byteLength)
  library.call(kernel, ...values)
  const failure = device && failureOf(() => device.wait())
  inAll(unpoison)
  device?.download(used)
  const { outputs, damage } = inspect([...placed.values()], end)
  inAll(poison)
  return { outputs, damage: failure ? [failure, ...damage] : damage }
}

function failureOf(wait: () => void): string | undefined {
  try {
    wait()
  } catch (error) {
    return (error as Error).message
  }
}

function place(
  name: string,
  arg: Exclude<Arguments[string], number>,
  end: number,
  element: Element | undefined,
) {
  const offset = Math.ceil(end / ALIGN) * ALIGN
  const { buffer, byteOffset } = words
  const at = byteOffset + offset
  const format = isFp8(element) ? FP8[element] : undefined
  const Floats = format ? Uint8Array : element === "bf16" ? Uint16Array : Float32Array
  if (arg instanceof Float32Array) {
    const view = new Floats(buffer, at, arg.length)
    return { name, offset, kind: "input", view, format } as Placed
  }
  if (arg instanceof Int32Array || arg instanceof Float64Array) {
    const Kind = arg.constructor as Float64ArrayConstructor
    return { name, offset, kind: "input", view: new Kind(buffer, at, arg.length) } as Placed
  }
  if (arg.kind === "alias") return undefined
  const isDouble = arg.kind === "output" && arg.type === "f64"
  const view = new (isDouble ? Float64Array : Floats)(buffer, at, arg.length)
  return { name, offset, kind: arg.kind, view, format } as Placed
}

function fill(array: Placed, arg: Arguments[string]) {
  if (ArrayBuffer.isView(arg)) {
    set(array, arg)
    array.before = array.view.slice()
  } else if (typeof arg === "object" && arg.kind === "output" && arg.initial) {
    set(array, arg.initial)
  } else {
    const { view, format } = array
    view.fill(format ? FP8_NAN : view instanceof Uint16Array ? BF16_NAN : Number.NaN)
  }
}

/** Numbers into memory, rounded to nearest where that holds fewer bits. */
function set({ view, format }: Placed, numbers: ArrayLike<number>) {
  const stored = format
    ? (x: number) => toFp8(x, format)
    : view instanceof Uint16Array
      ? roundToBf16
      : (x: number) => x
  for (let i = 0; i < numbers.length; i++) view[i] = stored(numbers[i]!)
}

function get({ view, format }: Placed): Float32Array | Float64Array {
  if (format) return Float32Array.from(view, (code) => fromFp8(code, format))
  if (view instanceof Uint16Array) return Float32Array.from(view, fromBf16)
  return view.slice() as Float32Array | Float64Array
}

export function bits({ buffer, byteOffset, byteLength }: Numbers): Uint32Array {
  return new Uint32Array(buffer, byteOffset, byteLength / 4)
}

function inspect(placed: Placed[], end: number): Outcome {
  const outputs: Outcome["outputs"] = {}
  const damage: string[] = []
  let gap = 0
  for (const array of placed) {
    const { name, offset, view, kind, before } = array
    checkGuard(gap, offset, `before ${name}`, damage)
    gap = offset + view.byteLength
    if (kind === "output") outputs[name] = get(array)
    if (before && !equalBits(before, view)) damage.push(`input ${name} was changed`)
  }
  checkGuard(gap, end, `after ${placed.at(-1)!.name}`, damage)
  return { outputs, damage }
}

function checkGuard(from: number, to: number, where: string, damage: string[]) {
  // An array of fewer bits than f32 may end in the middle of a word.
  for (let at = from; at < to; at++) {
    if (bytes[at] === ((CANARY >>> (8 * (at % 4))) & 0xff)) continue
    damage.push(`wrote ${where}, ${at - from} bytes past the last end`)
    return
  }
}

export function equalBits(a: Numbers | Uint32Array, b: Numbers | Uint32Array): boolean {
  return (
    Buffer.compare(
      new Uint8Array(a.buffer, a.byteOffset, a.byteLength),
      new Uint8Array(b.buffer, b.byteOffset, b.byteLength),
    ) === 0
  )
}
