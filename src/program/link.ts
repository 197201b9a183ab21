// Joins an emitted program with a kernel library, and with the arena that it runs in.

import { randomBytes } from "node:crypto"
import { rmSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { assert } from "../errors.ts"
import { cacheDir } from "../native/assets.ts"
import { compile, referenceSources } from "../native/compile.ts"
import type { Precision, Signature } from "../native/contract.ts"
import { checkArguments, type NativeFunctions } from "../native/functions.ts"
import { contract, type Kernels } from "../native/library.ts"
import { allocate, type NativeMemory } from "../native/memory.ts"
import { emit } from "./emit.ts"
import { type MemoryPlan, offsetOf, planMemory } from "./plan.ts"
import { BYTES, elements, type Phase, type Tensor } from "./tensor.ts"

export interface ProgramSource {
  title: string
  /** Of weights and activations. */
  precision: Precision
  phases: Phase[]
  /** Tensors that live through the whole run, used by a phase or not, in their order of placement. */
  always: Tensor[]
}

const VIEWS = { f32: Float32Array, bf16: Uint16Array, f64: Float64Array, i32: Int32Array } as const
type Views = { f32: Float32Array; bf16: Uint16Array; f64: Float64Array; i32: Int32Array }

export class Program {
  private readonly offsets: Map<Tensor, number>
  private readonly signatures: Map<string, Signature>

  private constructor(
    readonly plan: MemoryPlan,
    private readonly memory: NativeMemory,
    private readonly functions: NativeFunctions,
    signatures: Signature[],
  ) {
    this.offsets = new Map(plan.placements.map(({ tensor, offset }) => [tensor, offset]))
    this.signatures = new Map(signatures.map((signature) => [signature.name, signature]))
  }

  /** Plans, emits, compiles, links, and reserves the arena. Where memory is short, the error
   * names `savers`. */
  static async link(source: ProgramSource, kernels: Kernels, savers?: string[]): Promise<Program> {
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
      return new Program(plan, allocate(plan.peak, savers), functions, emitted.signatures)
    } finally {
      rmSync(file)
    }
  }

  /** Runs a phase: one native call. `args` are what the phase learns at run time, in order. */
  run(phase: string, ...args: number[]): void {
    const signature = this.signatures.get(phase)
    assert(signature, `the program has no phase ${phase}`)
    const all = checkArguments(signature, [this.memory.address, ...args])
    const status = this.functions[phase]!(...all)
    assert(status === 0, `phase ${phase} returned ${status}`)
  }

  /** A tensor's elements, in place. */
  view<D extends keyof Views>(tensor: Tensor & { dtype: D }): Views[D]
  view(tensor: Tensor): Views[keyof Views] {
    const type = VIEWS[tensor.dtype] as typeof Float32Array
    return this.memory.view(type, this.offset(tensor), elements(tensor))
  }

  /** A tensor's bytes, `length` of them from byte `start`: for files, which may be larger than one
   * view can be. */
  bytes(tensor: Tensor, start = 0, length = elements(tensor) * BYTES[tensor.dtype]): Uint8Array {
    return this.memory.view(Uint8Array, this.offset(tensor) + start, length)
  }

  /** A tensor's address, for direct calls of kernels. */
  address(tensor: Tensor): number {
    return this.memory.address + this.offset(tensor)
  }

  free(): void {
    this.memory.free()
  }

  private offset(tensor: Tensor): number {
    return offsetOf(tensor, this.offsets)
  }
}

/** The plan and the C file, without running anything. */
export async function emitProgram({ title, precision, phases, always }: ProgramSource) {
  const plan = planMemory(phases, always)
  return { plan, emitted: emit(title, phases, plan, await contract(), precision) }
}
