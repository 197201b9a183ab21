// A linked training program, and the moves that the tests of the whole model make with it.

import { UserError } from "../../src/errors.ts"
import { bytesOf } from "../../src/formats/header.ts"
import type { Config } from "../../src/model/config.ts"
import {
  type TrainingOptions,
  type TrainingProgram,
  trainingProgram,
} from "../../src/model/program.ts"
import { roundWeights, wideWeights } from "../../src/model/weights.ts"
import { Kernels, type LibraryName, libraries } from "../../src/native/library.ts"
import { Program } from "../../src/program/link.ts"
import type { Tensor } from "../../src/program/tensor.ts"

const THREADS = 2 // small models on many threads only wait for one another

export const ADAMW = { beta1: 0.9, beta2: 0.95, eps: 1e-8, weightDecay: 0.1 }

export interface Batch {
  tokens: Int32Array
  targets: Int32Array
}
export type Weights = { name: string; data: Float32Array }[]

export interface Opened {
  name: string
  title: string
  kernels?: Kernels
}

/** Every kernel library for the CPU, opened, or without kernels and with the reason in its title. */
export async function openLibraries(): Promise<(Opened & { name: LibraryName })[]> {
  const all = await libraries()
  return Promise.all(
    all.map(async ({ name, reason }) => {
      if (reason !== undefined) return { name, title: `${name} (skipped: ${reason})` }
      const kernels = await Kernels.open(name)
      kernels.call("llm_threads", THREADS)
      return { name, title: name, kernels }
    }),
  )
}

export class Run {
  private isNew = true

  private constructor(
    readonly program: Program,
    readonly source: TrainingProgram,
  ) {}

  /** Everything that no one has a right to read before it is written holds NaN at first. */
  static async link(
    kernels: Kernels,
    config: Config,
    options: Partial<TrainingOptions> & { B: number; T: number },
    weights: Weights = [],
  ): Promise<Run> {
    const { platform } = kernels
    const source = trainingProgram(config, { accumulation: 1, adamw: ADAMW, platform, ...options })
    const program = await Program.link(source, kernels)
    poison(program)
    const run = new Run(program, source)
    for (const { name, data } of weights) run.set(source.parameters[name]!, data)
    return run
  }

  /** Weights of any precision: masters, and the parameters rounded from them. */
  setWeights(kernels: Kernels, weights: Weights): void {
    const wide = wideWeights(this.source)!
    for (const { name, data } of weights) this.set(wide[name]!, data)
    roundWeights(this.program, this.source, wide, kernels)
  }

  /** As they are now, not to be written. */
  f32(tensor: Tensor): Float32Array {
    return this.program.read(tensor as Tensor & { dtype: "f32" })
  }

  private set(tensor: Tensor, values: Float32Array): void {
    this.program.write(tensor as Tensor & { dtype: "f32" }, values)
  }

  /** The loss of one batch, whose gradients are written, or added to those of the batch before. Products
   * in eight bits find their scales in the first step, and have new ones from the second on. */
  pass(batch: Batch, accumulate = 0): number {
    const { program, source } = this
    const calibrate = source.slots ? [this.isNew ? 1 : 0] : []
    if (source.slots && accumulate === 0) program.run("quantize_weights", ...calibrate)
    this.load(batch)
    program.run("forward", ...calibrate)
    program.run("backward", accumulate, ...calibrate)
    return this.f32(source.loss)[0]!
  }

  load({ tokens, targets }: Batch): void {
    this.program.write(this.source.tokens, tokens)
    this.program.write(this.source.targets, targets)
  }

  /** An optimizer step, as the trainer makes it. `step` counts from 1. */
  step(batches: Batch[], step: number, lr = 1e-3, clip = 1) {
    this.program.write(this.source.controls, Float64Array.of(lr, step, clip))
    const losses = batches.map((batch, i) => this.pass(batch, i === 0 ? 0 : 1))
    this.isNew = false
    this.program.run("gradient_norm")
    this.program.run("update")
    if (this.source.slots) this.program.run("next_scales")
    return { losses, norm: this.program.read(this.source.norm)[0]! }
  }

  /** Logits (B,T,Vp) of the last `forward`. A program with fusions overwrites them. */
  logits(): Float32Array {
    return this.f32(this.placed("logits"))
  }

  gradients(): Record<string, Float32Array> {
    const entries = Object.entries(this.source.gradients)
    return Object.fromEntries(entries.map(([name, tensor]) => [name, this.f32(tensor).slice()]))
  }

  private placed(name: string): Tensor {
    const first = this.program.plan.placements.find(({ tensor }) => tensor.name === name)
    if (!first) throw new Error(`no tensor ${name} in the plan`)
    return first.tensor
  }
}

const WRITTEN_FIRST = ["gradient", "activation", "scratch", "cache"]

export function poison(program: Program): void {
  for (const { tensor } of program.plan.placements) {
    if (!WRITTEN_FIRST.includes(tensor.role)) continue
    using place = program.place(tensor as Tensor & { dtype: "f32" })
    bytesOf(place.data).fill(0xff) // NaN in f32
  }
}

/** The largest difference, relative to the largest number of all that are expected. */
export function worst(got: Float32Array, expected: Float32Array): number {
  if (got.length !== expected.length)
    throw new Error(`${got.length} numbers, not ${expected.length}`)
  let difference = 0
  let largest = 0
  for (let i = 0; i < got.length; i++) {
    const d = Math.abs(got[i]! - expected[i]!)
    if (!(d <= difference)) difference = d // a NaN stays
    largest = Math.max(largest, Math.abs(expected[i]!))
  }
  return difference === 0 ? 0 : difference / largest
}

/** The one line that a user's mistake is answered with. */
export function refusal(call: () => unknown): string {
  try {
    call()
  } catch (error) {
    if (error instanceof UserError) return error.message
    throw error
  }
  throw new Error("not refused")
}
