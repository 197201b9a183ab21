// What a training step must cost on a device of given limits, before anything runs there: for every
// kernel and shape the operations, the least traffic, and the longer of the two times they take; and
// beside it, where the device is at hand, what they do take.

import { callByCall } from "../src/bench/calls.ts"
import { ADAMW, phasesOf, readyStep } from "../src/bench/step.ts"
import { digits, duration, giga, percent, table } from "../src/bench/table.ts"
import { namedArguments, type Work, workOf } from "../src/bench/work.ts"
import { type Config, trainingFlops } from "../src/model/config.ts"
import { type TrainingProgram, trainingProgram } from "../src/model/program.ts"
import { isFp8, kernelOf, type Precision } from "../src/native/contract.ts"
import { contract, type Kernels } from "../src/native/library.ts"
import { type Arg, type Call, isTensor } from "../src/program/tensor.ts"

export interface Limits {
  /** Floating-point operations a second of products in the precision asked for; of those in eight bits
   * twice as many. */
  flops: number
  /** Bytes a second, read and written together. */
  bandwidth: number
}

export interface BudgetShape {
  config: Config
  B: number
  T: number
  precision: Precision
  fp8?: boolean
}

interface Line extends Work {
  kernel: string
  sizes: string
  calls: number
  seconds: number
  measured: number
}
const SUMMED = ["calls", "flops", "bytes", "seconds", "measured"] as const

const SIZES = ["N", "C", "OC", "B", "T", "NH", "V", "n"]

/** A Markdown report on the floor of one step without accumulation; with kernels, on the times that
 * they take call by call, and of a GPU on who makes its products. */
export async function benchBudget(
  shape: BudgetShape,
  limits: Limits,
  kernels?: Kernels,
): Promise<string> {
  const { config, B, T, precision } = shape
  const { source, ms } = kernels ? await measure(shape, kernels) : { source: planned(shape) }
  const signatures = await contract()
  const lines = new Map<string, Line>()
  const calls = phasesOf(source).flatMap(({ phase }) => phase.calls)
  calls.forEach((call, i) => {
    const line = lineOf(call, kernelOf(signatures, call.kernel, precision), limits)
    line.measured = (ms?.[i] ?? 0) / 1000
    const key = `${line.kernel} ${line.sizes}`
    const sum = lines.get(key)
    if (!sum) lines.set(key, line)
    else for (const part of SUMMED) sum[part] += line[part]
  })
  const sorted = [...lines.values()].sort((a, b) => b.seconds - a.seconds)
  const total = sorted.reduce((sum, { seconds }) => sum + seconds, 0)
  const rows = sorted.map(({ kernel, sizes, calls, flops, bytes, seconds, measured }) => [
    ...[kernel, sizes, `${calls}`, flops > 0 ? giga(flops) : "", giga(bytes)],
    ...[flops / peakOf(kernel, limits) > bytes / limits.bandwidth ? "arithmetic" : "memory"],
    ...[duration(1000 * seconds), percent(seconds / total)],
    ...(ms ? [duration(1000 * measured), percent(seconds / measured)] : []),
  ])
  const headings = ["kernel", "sizes", "calls:", "GFLOP:", "GB:", "limit", "least time:", "share:"]
  if (ms) headings.push("measured:", "of the limit:")
  const tokens = B * T
  const mfu = (trainingFlops(config, T) * tokens) / total / limits.flops
  const all = duration(ms?.reduce((sum, one) => sum + one, 0) ?? 0)
  const head =
    `${source.title}\n\nLimits: ${digits(limits.flops / 1e12)} TFLOP/s, ` +
    `${digits(limits.bandwidth / 1e12)} TB/s. No step takes less than ${duration(1000 * total)}: ` +
    `${digits(tokens / total)} tokens/s, an MFU of ${percent(mfu)}.\n` +
    `${ms ? `All calls, measured one by one, take ${all}.\n` : ""}\n`
  const products = kernels?.gpu ? `\n\`\`\`\n${kernels.gpu.products}\`\`\`\n` : ""
  return head + table(headings, rows) + products
}

function planned({ config, ...shape }: BudgetShape): TrainingProgram {
  return trainingProgram(config, { ...shape, accumulation: 1, adamw: ADAMW })
}

const PASSES = 5

/** The step of these kernels, and the milliseconds of each of its calls. */
async function measure(shape: BudgetShape, kernels: Kernels) {
  const { source, program } = await readyStep(kernels, shape)
  const calls = await callByCall(program, phasesOf(source), kernels, shape.precision, PASSES)
  program.free()
  return { source, ms: calls.map(({ ms }) => ms) }
}

const peakOf = (kernel: string, { flops }: Limits) => (isFp8({ name: kernel }) ? 2 : 1) * flops

function lineOf(call: Call, signature: ReturnType<typeof kernelOf>, limits: Limits): Line {
  const numberOf = (arg: Arg) => (typeof arg === "number" ? arg : isTensor(arg) ? 1 : 0)
  const args = namedArguments(signature, call, numberOf)
  const work = workOf(signature, args)
  const options = ["residual", "pre", "accumulate_inp"].filter((name) => args[name])
  const sizes = SIZES.filter((name) => args[name]).map((name) => `${name} ${args[name]}`)
  return {
    ...work,
    kernel: call.kernel,
    sizes: [...sizes, ...options].join(", "),
    calls: 1,
    measured: 0,
    seconds: Math.max(work.flops / peakOf(call.kernel, limits), work.bytes / limits.bandwidth),
  }
}
