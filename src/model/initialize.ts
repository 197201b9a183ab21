// Weights of a new model: the numbers that PyTorch draws for the same seed, in llm.c's order.

import { assert } from "../errors.ts"
import type { Kernels } from "../native/library.ts"
import { allocate } from "../native/memory.ts"
import type { Program } from "../program/link.ts"
import { elements, layer } from "../program/tensor.ts"
import type { Config } from "./config.ts"
import { type F32Parameters, parameterTable } from "./gpt2.ts"
import { roundWeights, type Weights, wideWeights } from "./weights.ts"

const RNG_WORDS = 625 // LLM_RNG_WORDS of llm.h

/** Fills all parameters. Padding rows of wte stay zero and take no numbers from the generator. */
export function initialize(
  program: Program,
  source: Weights & { gradients?: F32Parameters },
  config: Config,
  kernels: Kernels,
  seed: number,
): void {
  const table = parameterTable(config)
  // Gradients are overwritten before they are read.
  const weights = wideWeights(source) ?? source.gradients
  assert(weights, "no room to draw weights in f32")
  for (const { name, init } of table) {
    if (init === "normal") continue
    using place = program.place(weights[name]!)
    place.data.fill(init === "ones" ? 1 : 0)
  }

  const { host } = kernels
  const state = allocate(RNG_WORDS * 4)
  host.call("rng_seed", state.address, seed)
  const draw = (name: string, l?: number) => {
    const whole = weights[name]!
    const tensor = l === undefined ? whole : (layer(whole, l) as typeof whole)
    const count = name === "wte" ? config.V * config.C : elements(tensor)
    const { std } = table.find((spec) => spec.name === name)!
    using place = program.place(tensor, 0, count)
    host.call("normal_fill", place.address, state.address, count, 0, std!)
  }
  // PyTorch visits the modules in the order of their declaration: the embeddings, then each block.
  draw("wte")
  draw("wpe")
  for (let l = 0; l < config.L; l++) {
    for (const name of ["qkvw", "attprojw", "fcw", "fcprojw"]) draw(name, l)
  }
  state.free()
  roundWeights(program, source, weights, kernels)
}
