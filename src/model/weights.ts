// Parameters between the arena and llm.c's model files.

import { loadModel, type NamedTensor, writeModel } from "../formats/model.ts"
import type { Program } from "../program/link.ts"
import type { Config } from "./config.ts"
import { type Parameters, parameterTable } from "./gpt2.ts"

function views(program: Program, parameters: Parameters, config: Config): NamedTensor[] {
  return parameterTable(config).map(({ name }) => {
    return { name, data: program.view(parameters[name]!) }
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
