// llm plan: the arena of a training run.

import { percent } from "../bench/table.ts"
import { workOfCalls } from "../bench/work.ts"
import { thousands } from "../data/files.ts"
import { UserError } from "../errors.ts"
import type { Command } from "../main.ts"
import type { Config } from "../model/config.ts"
import { trainingProgram } from "../model/program.ts"
import { type Arithmetic, type Contract, type Platform, storedIn } from "../native/contract.ts"
import { type Device, findDevice, platformOf, USUAL } from "../native/device.ts"
import { contract } from "../native/library.ts"
import type { CommandSpec, Options } from "../options.ts"
import type { ProgramSource } from "../program/link.ts"
import { type MemoryPlan, planMemory } from "../program/plan.ts"
import { RECOMPUTE, type Recompute } from "../program/recompute.ts"
import { checkFp8Sizes, keepsMasters } from "../train/arithmetic.ts"
import { chooseModel, chooseRewrites, chooseShape } from "../train/settings.ts"
import {
  ARITHMETIC_OPTION,
  CONFIG_OPTION,
  DEVICE_OPTION,
  MASTERS_OPTION,
  MODEL_OPTIONS,
  REWRITE_OPTIONS,
  SHAPE_OPTIONS,
} from "./specs.ts"

const spec: CommandSpec = {
  name: "plan",
  summary: "Prints the arena of a training run: every tensor, its offset, size and life.",
  options: [
    ...MODEL_OPTIONS,
    ...SHAPE_OPTIONS,
    ARITHMETIC_OPTION,
    MASTERS_OPTION,
    ...REWRITE_OPTIONS,
    DEVICE_OPTION,
    CONFIG_OPTION,
  ],
  examples: ["llm plan --init gpt2:d12 --batch 4 --context 64"],
}

/** The program of a run with these options; AdamW's numbers do not change its memory. */
export function planned(
  options: Options,
  config: Config,
  platform: Platform,
  rewrites = chooseRewrites(options),
) {
  const usual = USUAL[platform]
  const shape = chooseShape(options, config, usual.context)
  const adamw = { beta1: 0.9, beta2: 0.95, eps: 1e-8, weightDecay: 0 }
  const arithmetic = (options.text("precision") ?? usual.precision) as Arithmetic
  const kind = { precision: storedIn(arithmetic), fp8: arithmetic === "fp8" }
  if (kind.fp8 && platform === "cuda") checkFp8Sizes(shape, config)
  const masters = keepsMasters(options, arithmetic)
  const bf16 = kind.precision === "bf16" ? { masters, stochastic: !masters, seed: 0 } : undefined
  return trainingProgram(config, { ...shape, ...kind, bf16, platform, adamw, ...rewrites })
}

/** Where the run would compute; a GPU that is asked for by name need not be there. */
export async function chosenPlatform(options: Options): Promise<Platform> {
  const device = options.text("device") as Device
  return device === "cuda" ? "cuda" : platformOf(await findDevice(device))
}

async function run(options: Options): Promise<number> {
  const platform = await chosenPlatform(options)
  const { config } = await chooseModel(options, USUAL[platform].context)
  const rewrites = chooseRewrites(options)
  const isSlow = options.text("device") === "reference"
  if (options.text("precision") === "fp8" && platform === "cpu" && !isSlow) {
    throw new UserError(
      "--precision fp8: a CPU cannot multiply in eight bits (try --device cuda, which need not be there)",
    )
  }
  const choices = RECOMPUTE.map((recompute) => {
    const source = planned(options, config, platform, { ...rewrites, recompute })
    return { recompute, source, plan: planMemory(source.phases, source.always) }
  })
  const { source, plan } = choices.find(({ recompute }) => recompute === rewrites.recompute)!
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
      ...recomputeTable(choices, await contract()),
      "",
    ].join("\n"),
  )
  return 0
}

interface Choice {
  recompute: Recompute
  source: ProgramSource
  plan: MemoryPlan
}

/** What each kind of recompute saves, and what it costs in a pass forward and back. */
function recomputeTable(choices: Choice[], signatures: Contract): string[] {
  const rows = choices.map(({ recompute, source: { phases, precision }, plan: { peak } }) => {
    const passes = phases.filter(({ name }) => name === "forward" || name === "backward")
    const calls = passes.flatMap((phase) => phase.calls)
    return { recompute, peak, ...workOfCalls(calls, signatures, precision) }
  })
  const none = rows[0]!
  const inBytes = (n: number) => `${thousands(n)} bytes`
  const cells = rows.map(({ recompute, peak, flops, bytes }) => [
    ...[recompute, inBytes(peak), inBytes(none.peak - peak)],
    ...[percent(flops / none.flops - 1), inBytes(bytes - none.bytes)],
  ])
  return [["recompute", "peak", "saved", "extra FLOPs", "extra traffic"], ...cells].map(
    ([name, ...row]) => `${name!.padEnd(9)}  ${row.map((cell) => cell.padStart(20)).join("  ")}`,
  )
}

const SHORT_LIVED = new Set(["activation", "scratch", "cache"])

export const command: Command = { spec, run }
