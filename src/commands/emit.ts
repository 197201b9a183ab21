// llm emit: the program of a training run, as C.

import type { Command } from "../main.ts"
import type { CommandSpec, Options } from "../options.ts"
import { emitProgram } from "../program/link.ts"
import { chooseModel } from "../train/settings.ts"
import { planned } from "./plan.ts"
import {
  ARITHMETIC_OPTION,
  CONFIG_OPTION,
  MASTERS_OPTION,
  MODEL_OPTIONS,
  REWRITE_OPTIONS,
  SHAPE_OPTIONS,
} from "./specs.ts"

const spec: CommandSpec = {
  name: "emit",
  summary:
    "Prints the program of a training run as one C file. With c/llm.h and c/reference it is complete.",
  options: [
    ...MODEL_OPTIONS,
    ...SHAPE_OPTIONS,
    ARITHMETIC_OPTION,
    MASTERS_OPTION,
    ...REWRITE_OPTIONS,
    CONFIG_OPTION,
  ],
  examples: ["llm emit --init gpt2:d12 --batch 4 --context 64 > step.c"],
}

async function run(options: Options): Promise<number> {
  const { config } = await chooseModel(options)
  const { emitted } = await emitProgram(planned(options, config, "cpu"))
  process.stdout.write(emitted.source)
  return 0
}

export const command: Command = { spec, run }
