// llm plan: the arena of a training run.

import { thousands } from "../data/files.ts"
import type { Command } from "../main.ts"
import { trainingProgram } from "../model/program.ts"
import type { Precision } from "../native/contract.ts"
import type { CommandSpec, Options } from "../options.ts"
import { emitProgram } from "../program/link.ts"
import { chooseClassifierRows, chooseModel, chooseShape } from "../train/settings.ts"
import {
  CLASSIFIER_OPTION,
  CONFIG_OPTION,
  MODEL_OPTIONS,
  PRECISION_OPTION,
  SHAPE_OPTIONS,
} from "./specs.ts"

const spec: CommandSpec = {
  name: "plan",
  summary: "Prints the arena of a training run: every tensor, its offset, size and life.",
  options: [...MODEL_OPTIONS, ...SHAPE_OPTIONS, PRECISION_OPTION, CLASSIFIER_OPTION, CONFIG_OPTION],
  examples: ["llm plan --init gpt2:d12 --batch 4 --context 64"],
}

/** The program of a run with these options; AdamW's numbers do not change its memory. */
export function planned(options: Options) {
  const { config } = chooseModel(options)
  const shape = chooseShape(options, config)
  const adamw = { beta1: 0.9, beta2: 0.95, eps: 1e-8, weightDecay: 0 }
  const precision = options.text("precision") as Precision
  const classifierRows = chooseClassifierRows(options)
  return trainingProgram(config, { ...shape, precision, classifierRows, adamw })
}

async function run(options: Options): Promise<number> {
  const source = planned(options)
  const { plan } = await emitProgram(source)
  const calls = source.phases.flatMap(({ name, calls }) => calls.map(() => name))
  const rows = [...plan.placements].sort((a, b) => a.offset - b.offset || a.first - b.first)
  const lines = rows.map(({ tensor, bytes, offset, first, last }) => {
    const life = `${first}–${last}`
    const phases = calls[first] === calls[last] ? calls[first]! : `${calls[first]} … ${calls[last]}`
    const shape = `(${tensor.shape.join(",")}) ${tensor.dtype}`
    return [
      thousands(offset).padStart(16),
      thousands(bytes).padStart(14),
      tensor.name.padEnd(20),
      shape.padEnd(24),
      tensor.role.padEnd(10),
      life.padEnd(9),
      phases,
    ].join("  ")
  })
  const head = [
    "offset".padStart(16),
    "bytes".padStart(14),
    "tensor".padEnd(20),
    "shape".padEnd(24),
    "role".padEnd(10),
    "calls".padEnd(9),
    "phases",
  ].join("  ")
  const always = rows.filter(({ tensor }) => !SHORT_LIVED.has(tensor.role))
  const alwaysBytes = always.reduce((sum, { bytes }) => sum + bytes, 0)
  process.stdout.write(
    [
      source.title,
      head,
      ...lines,
      "",
      `tensors      ${thousands(rows.length)} in ${thousands(calls.length)} calls`,
      `always alive ${thousands(alwaysBytes)} bytes (parameters, gradients, moments, inputs, results)`,
      `lower bound  ${thousands(plan.lowerBound)} bytes (the most alive at one call)`,
      `peak         ${thousands(plan.peak)} bytes`,
      `ratio        ${(plan.peak / plan.lowerBound).toFixed(4)}`,
      "",
    ].join("\n"),
  )
  return 0
}
const SHORT_LIVED = new Set(["activation", "scratch", "cache"])

export const command: Command = { spec, run }
