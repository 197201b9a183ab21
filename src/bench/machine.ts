// What speeds are measured against, and where the process stands in memory.

import { readFileSync } from "node:fs"
import type { Precision } from "../native/contract.ts"
import type { Kernels } from "../native/library.ts"
import { measurePeak } from "../native/peak.ts"
import { giga } from "./table.ts"

// 240 MB an array: far past any cache. Not a power of two: arrays that lie one apart fall on the same
// sets of the caches and stream far slower (results.md).
const STREAM_ELEMENTS = 60_000_000
const STREAM_RUNS = 10

export interface Limits {
  precision: Precision
  /** Operations a second, of products in `precision`. */
  peak: number
  /** Bytes a second. */
  bandwidth: number
}

/** Of all threads together. Others slow the machine down and never speed it up, so limits are
 * measured before and after, and the best count. */
export function measureLimits(kernels: Kernels, precision: Precision = "fp32"): Limits {
  const peak = measurePeak(kernels, precision)
  return { precision, peak, bandwidth: measureBandwidth(kernels) }
}

export function bestLimits(measured: Limits[]): Limits {
  return {
    precision: measured[0]!.precision,
    peak: Math.max(...measured.map(({ peak }) => peak)),
    bandwidth: Math.max(...measured.map(({ bandwidth }) => bandwidth)),
  }
}

/** One line on what percentages are of. */
export function describeLimits(kernels: Kernels, measured: Limits[]): string {
  const { precision, peak, bandwidth } = bestLimits(measured)
  const each = (value: (limits: Limits) => number) => measured.map((m) => giga(value(m))).join(", ")
  return (
    `${kernels.name}, ${kernels.call("llm_threads", 0)} threads; ` +
    `${precision} peak ${giga(peak)} GFLOP/s (before and after: ${each((m) => m.peak)}); ` +
    `memory ${giga(bandwidth)} GB/s (${each((m) => m.bandwidth)})`
  )
}

/** a += b over arrays that no cache holds: two reads and a write an element. */
function measureBandwidth(kernels: Kernels): number {
  const bytes = STREAM_ELEMENTS * 4
  const memory = kernels.allocate(2 * bytes)
  const [a, b] = [memory.address, memory.address + bytes]
  // Pages that were never written would all be read as one page of zeros.
  const ones = new Float32Array(STREAM_ELEMENTS / 60).fill(1)
  for (let at = 0; at < 2 * bytes; at += ones.byteLength) memory.write(ones, at)
  let best = 0
  for (let run = 0; run < STREAM_RUNS; run++) {
    const start = performance.now()
    kernels.call("add_forward", a, a, b, STREAM_ELEMENTS)
    kernels.wait()
    best = Math.max(best, (3 * bytes * 1000) / (performance.now() - start))
  }
  memory.free()
  return best
}

/** Resident memory now and at most so far, in bytes. */
export function residentMemory(): { now: number; peak: number } {
  const status = readFileSync("/proc/self/status", "utf8")
  const bytes = (name: string) => {
    return Number(new RegExp(`^${name}:\\s+(\\d+) kB$`, "m").exec(status)![1]) * 1024
  }
  return { now: bytes("VmRSS"), peak: bytes("VmHWM") }
}
