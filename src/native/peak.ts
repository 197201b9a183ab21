// The machine's measured f32 peak, the measure of every speed: on a shared machine an absolute time
// says nothing.

import type { Kernels } from "./library.ts"

const ENOUGH_MS = 15 // of one burst: long against waking the threads

/** Floating-point operations a second of all threads together, the best of a few bursts. */
export function measurePeak(kernels: Kernels): number {
  let work = 1e6
  let best = 0
  for (let burst = 0; burst < 4; ) {
    const start = performance.now()
    const flops = kernels.call("llm_peak_f32", work)
    const ms = performance.now() - start
    if (ms < ENOUGH_MS) {
      work = Math.ceil(work * Math.min(8, (1.2 * ENOUGH_MS) / Math.max(ms, 0.1)))
      continue
    }
    best = Math.max(best, (flops / ms) * 1000)
    burst++
  }
  return best
}
