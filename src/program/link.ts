// Joins an emitted program with a kernel library, and with the arena that it runs in.

import { randomBytes } from "node:crypto"
import { rmSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { assert } from "../errors.ts"
import { cacheDir } from "../native/assets.ts"
import { compile, referenceSources } from "../native/compile.ts"
import type { Precision, Signature } from "../native/contract.ts"
import { checkArguments, type NativeFunctions } from "../native/functions.ts"
import type { Gpu } from "../native/gpu.ts"
import { contract, type Kernels } from "../native/library.ts"
import { allocate, type Memory, NativeMemory, type Purpose } from "../native/memory.ts"
import { emit } from "./emit.ts"
import { type MemoryPlan, offsetOf, planMemory } from "./plan.ts"
import { Replays } from "./replay.ts"
import { BYTES, elements, type Phase, type Tensor, tensorBytes } from "./tensor.ts"

export interface ProgramSource {
  title: string
  /** Of weights and activations. */
  precision: Precision
  phases: Phase[]
  /** Tensors that live through the whole run, used by a phase or not, in their order of placement. */
  always: Tensor[]
}

const VIEWS = {
  ...{ f32: Float32Array, bf16: Uint16Array, f64: Float64Array, i32: Int32Array },
  ...{ e4m3: Uint8Array, e5m2: Uint8Array },
} as const
type Small = { bf16: Uint16Array; e4m3: Uint8Array; e5m2: Uint8Array }
export type Views = Small & { f32: Float32Array; f64: Float64Array; i32: Int32Array }
/** A tensor whose type of numbers is known gives arrays of that type. */
type Typed<D extends keyof Views> = Tensor & { dtype: D }

/** Where numbers are put. */
export interface Place<V> extends Disposable {
  data: V
  address: number
}

export class Program {
  private readonly offsets: Map<Tensor, number>
  private readonly signatures: Map<string, Signature>
  /** In place, of whole tensors. */
  private readonly views = new Map<Tensor, Views[keyof Views]>()
  private readonly replays?: Replays

  private constructor(
    readonly plan: MemoryPlan,
    private readonly memory: Memory,
    private readonly functions: NativeFunctions,
    signatures: Signature[],
    private readonly gpu?: Gpu,
  ) {
    this.offsets = new Map(plan.placements.map(({ tensor, offset }) => [tensor, offset]))
    this.signatures = new Map(signatures.map((signature) => [signature.name, signature]))
    if (gpu) this.replays = new Replays(gpu)
  }

  /** Plans, emits, compiles, links, and reserves the arena. */
  static async link(source: ProgramSource, kernels: Kernels, purpose?: Purpose): Promise<Program> {
    assert(
      kernels.precisions.includes(source.precision),
      `${kernels.name} has no kernels in ${source.precision}`,
    )
    const { plan, emitted } = await emitProgram(source)
    // Another machine with the same home may have a process of the same number.
    const file = join(await cacheDir(), `step-${randomBytes(6).toString("hex")}.c`)
    writeFileSync(file, emitted.source, { flag: "wx" })
    try {
      const sources = kernels.path ? [file] : [file, ...(await referenceSources())]
      const functions = await compile(sources, emitted.signatures, kernels.path)
      const memory = kernels.allocate(plan.peak, purpose)
      return new Program(plan, memory, functions, emitted.signatures, kernels.gpu)
    } finally {
      rmSync(file)
    }
  }

  /** Runs a phase: one native call. `args` are what the phase learns at run time, in order. On a GPU it
   * is queued, and what was queued before need not be done. */
  run(phase: string, ...args: number[]): void {
    const signature = this.signatures.get(phase)
    assert(signature, `the program has no phase ${phase}`)
    const all = checkArguments(signature, [this.memory.address, ...args], this.isHost)
    const call = () => {
      const status = this.functions[phase]!(...all)
      assert(status === 0, `phase ${phase} returned ${status}`)
    }
    // A phase's numbers come again: there are few of them.
    if (this.replays) this.replays.run(`${phase} ${args}`, call)
    else call()
    this.gpu?.check()
  }

  /** Whether tensors lie in this process's memory, where they can be seen in place. */
  get isHost(): boolean {
    return this.memory instanceof NativeMemory
  }

  /** A tensor's elements, in place: of a program in this process's memory. */
  view<D extends keyof Views>(tensor: Typed<D>): Views[D]
  view(tensor: Tensor): Views[keyof Views] {
    const known = this.views.get(tensor)
    if (known) return known
    const { memory } = this
    assert(memory instanceof NativeMemory, `${tensor.name} lies on a GPU`)
    const view = memory.view(typeOf(tensor), this.offset(tensor), elements(tensor))
    this.views.set(tensor, view)
    return view
  }

  /** `count` of a tensor's elements from number `start` on, as they are when everything before is done; not
   * to be written. */
  read<D extends keyof Views>(tensor: Typed<D>, start?: number, count?: number): Views[D]
  read(tensor: Tensor, start = 0, count = elements(tensor) - start): Views[keyof Views] {
    if (this.isHost) return this.view(tensor).subarray(start, start + count)
    const copy = new (typeOf(tensor))(count)
    this.memory.read(copy, this.offset(tensor) + start * BYTES[tensor.dtype])
    return copy
  }

  /** The same of a few numbers, 256 bytes, without waiting yet: for what comes after this call, they
   * are as they were. To be asked for before 16 others are. */
  readLater<D extends keyof Views>(tensor: Typed<D>): () => Views[D]
  readLater(tensor: Tensor): () => Views[keyof Views] {
    if (!this.gpu) {
      const copy = this.view(tensor).slice()
      return () => copy
    }
    const copy = new (typeOf(tensor))(elements(tensor))
    const wait = this.gpu.fetch(this.address(tensor), copy)
    return () => {
      wait()
      return copy
    }
  }

  /** Sets a tensor's elements from number `at` on. */
  write<D extends keyof Views>(tensor: Typed<D>, values: Views[D], at = 0): void {
    if (this.isHost) this.view(tensor).set(values, at)
    else this.memory.write(values, this.offset(tensor) + at * BYTES[tensor.dtype])
  }

  /** A place for `count` elements from number `start` on: the tensor itself where that lies in this
   * process's memory. What is written there, which must be all of it, is in the tensor when the place is
   * disposed of. */
  place<D extends keyof Views>(
    tensor: Typed<D>,
    start = 0,
    count = elements(tensor) - start,
  ): Place<Views[D]> {
    const { memory } = this
    const at = this.offset(tensor) + start * BYTES[tensor.dtype]
    const type = typeOf(tensor)
    if (memory instanceof NativeMemory) {
      const data = memory.view(type, at, count) as Views[D]
      return { data, address: memory.address + at, [Symbol.dispose]() {} }
    }
    const room = allocate(count * BYTES[tensor.dtype])
    const data = room.view(type, 0, count) as Views[D]
    const dispose = () => {
      memory.write(data, at)
      room.free()
    }
    return { data, address: room.address, [Symbol.dispose]: dispose }
  }

  /** Copies a tensor into other memory, from byte `at` of that on. */
  copyOut(tensor: Tensor, into: NativeMemory, at: number): void {
    const bytes = tensorBytes(tensor)
    for (let done = 0; done < bytes; done += VIEWED) {
      const part = into.view(Uint8Array, at + done, Math.min(VIEWED, bytes - done))
      this.memory.read(part, this.offset(tensor) + done)
    }
  }

  /** Copies `bytes` bytes within a tensor, from one place to another that it does not meet. */
  copyWithin(tensor: Tensor, to: number, from: number, bytes: number): void {
    const start = this.offset(tensor)
    this.memory.copy(start + to, start + from, bytes)
  }

  /** A tensor's bytes in place, `length` of them from byte `start`: for files, which may be larger than
   * one view can be. Of a program in this process's memory. */
  bytes(tensor: Tensor, start = 0, length = elements(tensor) * BYTES[tensor.dtype]): Uint8Array {
    assert(this.memory instanceof NativeMemory, `${tensor.name} lies on a GPU`)
    return this.memory.view(Uint8Array, this.offset(tensor) + start, length)
  }

  /** A tensor's address, for direct calls of kernels. */
  address(tensor: Tensor): number {
    return this.memory.address + this.offset(tensor)
  }

  /** Waits until everything that was queued is done. */
  wait(): void {
    this.gpu?.wait()
  }

  free(): void {
    this.replays?.free()
    this.memory.free()
  }

  private offset(tensor: Tensor): number {
    return offsetOf(tensor, this.offsets)
  }
}

const VIEWED = 2 ** 30 // bytes at once: a view may have no more than 4 GiB

// One of them stands for all in the types.
const typeOf = ({ dtype }: Tensor) => VIEWS[dtype] as typeof Float32Array

/** The plan and the C file, without running anything. */
export async function emitProgram({ title, precision, phases, always }: ProgramSource) {
  const plan = planMemory(phases, always)
  return { plan, emitted: emit(title, phases, plan, await contract(), precision) }
}
