// The machine's measured peak, the measure of every speed: on a shared machine an absolute time
// says nothing.

import type { Precision } from "./contract.ts"
import type { Kernels } from "./library.ts"

const BURST_MS = 15 // long against waking the threads
const BURSTS = 4

/** Floating-point operations a second of all threads together in products of that precision, the best
 * of a few bursts. */
export function measurePeak(kernels: Kernels, precision: Precision = "fp32"): number {
  const kernel = precision === "bf16" ? "llm_peak_bf16" : "llm_peak"
  let work = 1e6
  let best = 0
  for (let full = 0; full < BURSTS; ) {
    const start = performance.now()
    const flops = kernels.call(kernel, work)
    kernels.wait()
    best = Math.max(best, (flops / (performance.now() - start)) * 1000)
    // By the best speed so far, not by this burst's time, which an interruption may have stretched.
    const ms = (flops / best) * 1000
    if (ms > 0.7 * BURST_MS) full++
    else work = Math.ceil(work * Math.min(8, BURST_MS / ms))
  }
  return best
}
