// `bun run bench [NAME]`: every kernel by itself, against the machine's limits and the reference.

import { measure } from "mitata"
import { bestLimits, describeLimits, type Limits, measureLimits } from "../src/bench/machine.ts"
import { digits, duration, giga, percent, table } from "../src/bench/table.ts"
import { type Arguments, inOrder, workOf } from "../src/bench/work.ts"
import { UserError } from "../src/errors.ts"
import { isBf16, kernelOf, type Precision, type Signature } from "../src/native/contract.ts"
import { contract, Kernels } from "../src/native/library.ts"
import { Buffers, bytesNeeded } from "./buffers.ts"
import { CASES, type Case } from "./cases.ts"

export interface KernelOptions {
  /** Only kernels whose names contain it. */
  filter?: string
  /** A few milliseconds a kernel: shows that everything runs, not how fast. */
  quick: boolean
  precision?: Precision
}

interface Timing {
  medianMs: number
  bestMs: number
}
interface Result {
  name: string
  shape: string
  time: Timing
  /** Operations or bytes of a call, whichever bounds it. */
  work: number
  unit: "GFLOP/s" | "GB/s"
  reference: { shape: string; perSecond: number }
}

const LEAST_WORK = 10_000 // operations or bytes of a call whose rate is worth a number
const BATCH = 64 // calls timed at once, of kernels that take microseconds

/** A table of the kernels whose names contain `filter`. */
export async function benchKernels(
  kernels: Kernels,
  { filter = "", quick, precision = "fp32" }: KernelOptions,
): Promise<string> {
  const signatures = await contract()
  const signature = (c: Case) => kernelOf(signatures, c.kernel, precision)
  const cases = CASES.filter(({ kernel }) => kernel.includes(filter)).filter((c) => {
    return kernels.precisions.includes("bf16") || !isBf16(signature(c))
  })
  if (cases.length === 0) {
    const names = [...new Set(CASES.map(({ kernel }) => kernel))]
    throw new UserError(`no kernel's name contains ${filter} (there are ${names.join(", ")})`)
  }
  const bytes = Math.max(...cases.map((c) => bytesNeeded(signature(c), c.sizes)))
  const runner = new Runner(kernels, new Buffers(bytes, kernels), quick)
  const limits = [measureLimits(kernels, precision)]

  const results: Result[] = []
  for (const [i, c] of cases.entries()) {
    process.stderr.write(`${i + 1}/${cases.length} ${c.kernel} ${shapeText(c.sizes)}\n`)
    results.push(await runner.run(c, signature(c)))
  }
  limits.push(measureLimits(kernels, precision))
  return `${describeLimits(kernels, limits)}\n\n${resultTable(results, bestLimits(limits))}`
}

class Runner {
  private readonly references = new Map<string, number>()
  private referenceKernels?: Kernels

  constructor(
    private readonly kernels: Kernels,
    private readonly buffers: Buffers,
    private readonly quick: boolean,
  ) {}

  async run(c: Case, signature: Signature): Promise<Result> {
    const [time, args] = await this.time(this.kernels, c, signature, c.sizes)
    const { flops, bytes } = workOf(signature, args)
    const reference = {
      shape: shapeText(c.reference),
      perSecond: await this.reference(c, signature),
    }
    const name = c.fused ? `${signature.name} + ${c.fused}` : signature.name
    const unit = flops > 0 ? "GFLOP/s" : "GB/s"
    return { name, shape: shapeText(c.sizes), time, work: flops || bytes, unit, reference }
  }

  /** The reference's operations or bytes a second. */
  private async reference(c: Case, signature: Signature): Promise<number> {
    const key = `${signature.name} ${shapeText(c.reference)} ${c.fused}`
    const known = this.references.get(key)
    if (known) return known
    this.referenceKernels ??= await Kernels.open("reference")
    const [time, args] = await this.time(this.referenceKernels, c, signature, c.reference)
    const { flops, bytes } = workOf(signature, args)
    const perSecond = ((flops || bytes) / time.bestMs) * 1000
    this.references.set(key, perSecond)
    return perSecond
  }

  private async time(
    kernels: Kernels,
    { options, absent }: Case,
    signature: Signature,
    sizes: Arguments,
  ): Promise<[Timing, Arguments]> {
    const args = this.buffers.prepare(signature, { ...sizes, ...options }, absent)
    const values = inOrder(signature, args)
    const isReference = kernels.name === "reference"
    const seconds = this.quick ? 0.01 : isReference ? 0.05 : 0.4
    const stats = await measure(() => kernels.call(signature.name, ...values), {
      min_cpu_time: seconds * 1e9,
      min_samples: this.quick ? 2 : isReference ? 3 : 12,
      batch_samples: this.quick ? 4 : BATCH,
    })
    return [{ medianMs: stats.p50 / 1e6, bestMs: stats.min / 1e6 }, args]
  }
}

function shapeText(sizes: Arguments): string {
  return Object.entries(sizes)
    .map(([name, size]) => `${name} ${size}`)
    .join(", ")
}

function resultTable(results: Result[], { peak, bandwidth }: Limits): string {
  const headings = ["kernel", "shape", "median:", "rate:", "% of limit:", "best run:"]
  const rows = results.map(({ name, shape, time, work, unit, reference }) => {
    // A call of microseconds is bound by its start, and says nothing about memory.
    const limit = work < LEAST_WORK ? undefined : unit === "GFLOP/s" ? peak : bandwidth
    const [median, best] = [time.medianMs, time.bestMs].map((ms) => (work / ms) * 1000) as [
      number,
      number,
    ]
    return [
      ...[name, shape, duration(time.medianMs)],
      ...(limit
        ? [`${giga(median)} ${unit}`, percent(median / limit), percent(best / limit)]
        : ["", "", ""]),
      ...[reference.shape, limit ? `${giga(reference.perSecond)} ${unit}` : ""],
      `${digits(median / reference.perSecond)} ×`,
    ]
  })
  return table([...headings, "reference's sample", "reference:", "speed-up:"], rows)
}
