// Parameters between the arena and files.

import { roundAll } from "../data/bf16.ts"
import { UserError } from "../errors.ts"
import { checkFinite } from "../formats/finite.ts"
import { loadModel, type NamedTensor } from "../formats/model.ts"
import type { Span } from "../native/borrow.ts"
import type { Kernels } from "../native/library.ts"
import type { Program } from "../program/link.ts"
import { elements, type Tensor, tensorBytes } from "../program/tensor.ts"
import type { WeightSource } from "../weights/source.ts"
import type { Config } from "./config.ts"
import { type F32Parameters, type Parameters, parameterTable } from "./gpt2.ts"
import type { TrainingProgram } from "./program.ts"

const PIECE = 2 ** 28 // numbers: a view may have 4 GiB, and a stack of layers may be larger
const UPLOADED = 2 ** 22 // numbers that are gathered for a GPU
const ROUNDED = 2 ** 18 // numbers that are rounded at once

/** Places for all numbers of a stack of parameters, or of their moments, in the model file's order. What
 * is in a place when the next is asked for is what the program has there. */
export function* places(
  program: Program,
  stack: Parameters,
  config: Config,
): Generator<NamedTensor, void> {
  const most = program.isHost ? PIECE : UPLOADED
  for (const { name } of parameterTable(config)) {
    const tensor = stack[name] as Tensor & { dtype: "f32" | "bf16" }
    const count = elements(tensor)
    for (let start = 0; start < count; start += most) {
      using place = program.place(tensor, start, Math.min(most, count - start))
      yield { name, data: place.data }
    }
  }
}

export type Weights = Pick<TrainingProgram, "parameters" | "masters" | "precision">

/** The weights in f32: the parameters, or their masters; undefined where they are bf16 alone. */
export function wideWeights({ parameters, masters, precision }: Weights) {
  return precision === "fp32" ? (parameters as F32Parameters) : masters
}

/** Makes parameters in bf16 the rounded `weights`; those in f32 are the weights themselves. */
export function roundWeights(
  program: Program,
  { parameters, precision }: Weights,
  weights: F32Parameters,
  kernels: Kernels,
): void {
  if (precision === "fp32") return
  for (const [name, tensor] of Object.entries(parameters)) {
    const addresses = [program.address(tensor), program.address(weights[name]!)]
    kernels.call("bf16_round", ...addresses, elements(tensor))
  }
}

/** Fills the parameters, and their masters, whose shapes are those of the source's config. */
export function loadWeights(
  source: WeightSource,
  program: Program,
  weights: Weights,
  kernels: Kernels,
): void {
  const wide = wideWeights(weights)
  const read: Record<string, number> = {}
  for (const { name, data } of places(program, wide ?? weights.parameters, source.config)) {
    const start = read[name] ?? 0
    if (data instanceof Float32Array) source.read(name, data, start)
    else loadRounded(source, name, data, start)
    read[name] = start + data.length
  }
  if (wide) roundWeights(program, weights, wide, kernels)
}

/** Reads numbers as bf16. Refuses those that are finite, but not in bf16. */
function loadRounded(source: WeightSource, name: string, into: Uint16Array, place: number): void {
  const wide = new Float32Array(Math.min(ROUNDED, into.length))
  const wrong = (what: string, wayOut: string) =>
    new UserError(`${source.path}: ${what} in bf16 (${wayOut})`)
  for (let done = 0; done < into.length; done += ROUNDED) {
    const part = into.subarray(done, done + ROUNDED)
    source.read(name, wide.subarray(0, part.length), place + done)
    roundAll(part, wide)
    checkFinite({ wrong }, name, part, place + done, "try --precision fp32")
  }
}

/** Fills the parameters, and their masters, from a run's own model file, bit for bit. */
export function restoreWeights(
  path: string,
  program: Program,
  weights: Weights,
  config: Config,
  kernels: Kernels,
): void {
  const wide = wideWeights(weights)
  loadModel(path, places(program, wide ?? weights.parameters, config))
  if (wide) roundWeights(program, weights, wide, kernels)
}

/** Where a stack of parameters, or of their moments, lies in this process's memory: in the model file's
 * order. */
export function spans(program: Program, stack: Parameters, config: Config): Span[] {
  return inOrder(stack, config).map((tensor) => {
    return { address: program.address(tensor), bytes: tensorBytes(tensor) }
  })
}

/** A stack's tensors in the model file's order. */
export const inOrder = (stack: Parameters, config: Config): Tensor[] =>
  parameterTable(config).map(({ name }) => stack[name]!)
