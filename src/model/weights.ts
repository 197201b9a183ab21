// Parameters between the arena and llm.c's model files.

import { loadModel, type NamedTensor, writeModel } from "../formats/model.ts"
import type { Program } from "../program/link.ts"
import { elements } from "../program/tensor.ts"
import type { Config } from "./config.ts"
import { type Parameters, parameterTable } from "./gpt2.ts"

const PIECE = 2 ** 28 // numbers: a view may have 4 GiB, and a stack of layers may be larger

function views(program: Program, parameters: Parameters, config: Config): NamedTensor[] {
  return parameterTable(config).flatMap(({ name }) => {
    const tensor = parameters[name]!
    const count = elements(tensor)
    return Array.from({ length: Math.ceil(count / PIECE) }, (_, i) => {
      const bytes = program.bytes(tensor, 4 * PIECE * i, 4 * Math.min(PIECE, count - PIECE * i))
      return { name, data: new Float32Array(bytes.buffer, bytes.byteOffset, bytes.length / 4) }
    })
  })
}

/** Fills the parameters from a file, whose shape must be the config's. */
export function loadWeights(
  path: string,
  program: Program,
  parameters: Parameters,
  config: Config,
) {
  loadModel(path, views(program, parameters, config))
}

export function saveWeights(
  path: string,
  program: Program,
  parameters: Parameters,
  config: Config,
) {
  writeModel(path, config, views(program, parameters, config))
}
