// `bun run bench step` and `llm info --bench`: the whole training step. The step as it is trained
// gives the time; the same calls, made one by one at the planned addresses, tell where it goes.

import { type Config, trainingFlops } from "../model/config.ts"
import { initialize } from "../model/initialize.ts"
import { type TrainingProgram, trainingProgram } from "../model/program.ts"
import type { Precision } from "../native/contract.ts"
import type { Kernels } from "../native/library.ts"
import { Program } from "../program/link.ts"
import { elements } from "../program/tensor.ts"
import { callByCall, type Share, sharesOf, type Timed } from "./calls.ts"
import { bestLimits, describeLimits, measureLimits, residentMemory } from "./machine.ts"
import { digits, duration, giga, median, percent, table } from "./table.ts"

export interface StepShape {
  config: Config
  B: number
  T: number
  precision?: Precision
  /** Of bf16: with the blocks' products in eight bits. */
  fp8?: boolean | undefined
}

export interface StepOptions extends StepShape {
  /** Steps timed. */
  steps: number
  /** Passes call by call. */
  passes: number
}

export const ADAMW = { beta1: 0.9, beta2: 0.95, eps: 1e-8, weightDecay: 0 }
/** Phases in their order, with what each learns when it is called. */
function learnedBy({ slots }: TrainingProgram, calibrate = 0) {
  const eight = slots ? { calibrate } : undefined
  const phases: Record<string, Record<string, number>> = {
    ...(eight && { quantize_weights: eight }),
    ...{ forward: { ...eight }, backward: { accumulate: 0, ...eight } },
    ...{ gradient_norm: {}, update: {} },
    ...(eight && { next_scales: {} }),
  }
  return Object.entries(phases)
}
const CONTROLS = { lr: 1e-4, step: 1, clip: 1 }
const SEED = 42

/** A report on `steps` steps of training on random tokens. */
export async function benchStep(
  kernels: Kernels,
  { config, B, T, precision = "fp32", fp8, steps, passes }: StepOptions,
  before = measureLimits(kernels, precision), // and not beside the arena: memory holds one of the two
): Promise<string> {
  const { source, program } = await readyStep(kernels, { config, B, T, precision, fp8 })
  const times = Array.from({ length: steps }, () => runStep(program, source))
  const memory = residentMemory()
  const calls = await callByCall(program, phasesOf(source), kernels, precision, passes)
  const limits = [before, measureLimits(kernels, precision)]
  const { peak, bandwidth } = bestLimits(limits)

  const totals = times.map((phases) => phases.reduce((sum, ms) => sum + ms, 0))
  const ms = median(totals)
  const mfu = (trainingFlops(config, T) * B * T * 1000) / ms / peak
  const range = `${duration(Math.min(...totals))} to ${duration(Math.max(...totals))}`
  const head =
    `${source.title}\n${describeLimits(kernels, limits)}\n\n` +
    `step      ${duration(ms)} (median of ${steps}, ${range})\n` +
    `tokens/s  ${digits((B * T * 1000) / ms)}\n` +
    `MFU       ${percent(mfu)} (6·N + 6·L·C·T operations a token)\n` +
    `memory    ${giga(memory.now)} GB resident, ${giga(memory.peak)} GB at most; ` +
    `arena ${giga(program.plan.peak)} GB\n`
  program.free()
  const names = learnedBy(source).map(([name]) => name)
  const shares = sharesOf(calls, peak, bandwidth)
  return [head, phaseTable(names, times, ms), shareTable(shares, peak, bandwidth)].join("\n")
}

/** A linked step on random tokens that has run once, and so touched every page. */
export async function readyStep(kernels: Kernels, { config, B, T, precision, fp8 }: StepShape) {
  const source = trainingProgram(config, {
    ...{ B, T, accumulation: 1, adamw: ADAMW, precision, fp8 },
    platform: kernels.platform,
  })
  const program = await Program.link(source, kernels)
  initialize(program, source, config, kernels, SEED)
  for (const tensor of [source.tokens, source.targets]) {
    const ids = { length: elements(tensor) }
    program.write(
      tensor,
      Int32Array.from(ids, () => Math.random() * config.V),
    )
  }
  program.write(source.controls, Float64Array.from(Object.values(CONTROLS)))
  runStep(program, source, 1)
  return { source, program }
}

/** Milliseconds of each phase of one step; `calibrate` 1 in the first one. */
export function runStep(program: Program, source: TrainingProgram, calibrate = 0): number[] {
  return learnedBy(source, calibrate).map(([name, runtime]) => {
    const start = performance.now()
    program.run(name, ...Object.values(runtime))
    program.wait()
    return performance.now() - start
  })
}

/** The phases of a step in their order. */
export function phasesOf(source: TrainingProgram): Timed[] {
  return learnedBy(source).map(([name, runtime]) => {
    return { phase: source.phases.find((phase) => phase.name === name)!, runtime }
  })
}

function phaseTable(names: string[], times: number[][], stepMs: number): string {
  const rows = names.map((name, i) => {
    const ms = median(times.map((phases) => phases[i]!))
    return [name, duration(ms), percent(ms / stepMs)]
  })
  return table(["phase", "time:", "share:"], rows)
}

/** What each kind takes, and how much of it is lost: not explained by its limit. */
function shareTable(shares: Share[], peak: number, bandwidth: number): string {
  const total = (value: (share: Share) => number) =>
    shares.reduce((sum, share) => sum + value(share), 0)
  const allMs = total(({ ms }) => ms)
  const rows = shares.map(({ class: name, calls, ms, flops, bytes, floorMs }) => {
    const unit = flops > 0 ? "GFLOP/s" : "GB/s"
    const work = flops > 0 ? `${giga(flops)} GFLOP` : `${giga(bytes)} GB`
    const perSecond = ((flops || bytes) / ms) * 1000
    return [
      ...[name, `${calls}`, duration(ms), percent(ms / allMs), work, `${giga(perSecond)} ${unit}`],
      ...[percent(perSecond / (flops > 0 ? peak : bandwidth)), lost(ms - floorMs)],
      percent((ms - floorMs) / allMs),
    ]
  })
  const lostMs = allMs - total(({ floorMs }) => floorMs)
  rows.push([
    ...["all", `${total(({ calls }) => calls)}`, duration(allMs), percent(1), "", "", ""],
    ...[lost(lostMs), percent(lostMs / allMs)],
  ])
  const headings = ["calls one by one", "calls:", "time:", "share:", "work:", "rate:"]
  return table([...headings, "% of limit:", "lost:", "lost, of all:"], rows)
}

// Less than nothing is lost where operands come out of the caches faster than out of memory.
const lost = (ms: number) => (ms < 0 ? `−${duration(-ms)}` : duration(ms))
