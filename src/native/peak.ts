// The machine's measured peak, the measure of every speed: on a shared machine an absolute time
// says nothing.

import { UserError } from "../errors.ts"
import type { Precision } from "./contract.ts"
import type { Kernels } from "./library.ts"
import type { Memory } from "./memory.ts"

const BURST_MS = 15 // long against waking the threads
const BURSTS = 4

/** Floating-point operations a second of all threads together in products of that precision, the best
 * of a few bursts. */
export function measurePeak(kernels: Kernels, precision: Precision = "fp32"): number {
  const kernel = precision === "bf16" ? "llm_peak_bf16" : "llm_peak"
  let work = 1e4 // nothing to any machine, and within an emulated one's reach
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
  const isFast = kernels.gpu && best > WORTH_A_PRODUCT
  return isFast ? Math.max(best, measureProduct(kernels, precision)) : best
}

// Hopper's tensor cores reach what they can do in ways that only the products' library knows.
const WORTH_A_PRODUCT = 1e12 // operations a second
const SIZE = 8192
const PRODUCTS = 10

/** Operations a second of large products, the best of a few; 0 where memory has no room for one. */
function measureProduct(kernels: Kernels, precision: Precision): number {
  const [kernel, size] = precision === "bf16" ? ["matmul_forward_bf16", 2] : ["matmul_forward", 4]
  const bytes = SIZE * SIZE * (size as number)
  let memory: Memory
  try {
    memory = kernels.allocate(3 * bytes)
  } catch (error) {
    if (error instanceof UserError) return 0
    throw error
  }
  const [out, inp, weight] = [0, 1, 2].map((i) => memory.address + i * bytes)
  let best = 0
  for (let run = 0; run < PRODUCTS; run++) {
    const start = performance.now()
    kernels.call(kernel as string, out!, 0, inp!, weight!, 0, 0, 0, SIZE, SIZE, SIZE)
    kernels.wait()
    best = Math.max(best, (2 * SIZE ** 3 * 1000) / (performance.now() - start))
  }
  memory.free()
  return best
}
