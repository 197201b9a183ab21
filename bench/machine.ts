// What speeds are measured against, and where the process stands in memory.

import { readFileSync } from "node:fs"
import type { Kernels } from "../src/native/library.ts"
import { allocate } from "../src/native/memory.ts"
import { giga } from "./table.ts"

const STREAM_ELEMENTS = 2 ** 26 // 256 MB an array: far past any cache
const STREAM_RUNS = 5

/** Bytes a second that memory moves for all threads together: a += b over arrays that no cache
 * holds, two reads and a write an element; the best of a few runs. */
export function measureBandwidth(kernels: Kernels): number {
  const bytes = STREAM_ELEMENTS * 4
  const memory = allocate(2 * bytes)
  const [a, b] = [memory.address, memory.address + bytes]
  const view = memory.view(Float32Array, 0, 2 * STREAM_ELEMENTS)
  view.fill(1) // pages that were never written would all be read as one page of zeros
  let best = 0
  for (let run = 0; run < STREAM_RUNS; run++) {
    const start = performance.now()
    kernels.call("add_forward", a, a, b, STREAM_ELEMENTS)
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

/** One line on what percentages are of. */
export function describeLimits(kernels: Kernels, peaks: number[], bandwidth: number): string {
  const [before, after] = peaks.map(giga)
  const peak = `fp32 peak ${giga(Math.max(...peaks))} GFLOP/s (before ${before}, after ${after})`
  const threads = kernels.call("llm_threads", 0)
  return `${kernels.name}, ${threads} threads; ${peak}; memory ${giga(bandwidth)} GB/s`
}
