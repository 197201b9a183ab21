// `bun run bench shared`: what a step costs when another process wants one of the cores. Threads
// that wait by spinning, or that own a fixed part of the work, would make everybody wait for the
// slowest one.

import { readyStep, runStep, type StepShape } from "../src/bench/step.ts"
import { duration, median, table } from "../src/bench/table.ts"
import { preset, SMALL } from "../src/model/config.ts"
import { describeConfig } from "../src/model/program.ts"
import type { Kernels } from "../src/native/library.ts"

const SHAPES: StepShape[] = [
  { config: preset("gpt2:d12")!, B: 4, T: 64 },
  { config: SMALL, B: 4, T: 64 },
]
const MEASURE_MS = 3000
const AT_LEAST = 3 // steps

/** A table of steps with all cores free, and with one of them loaded. */
export async function benchShared(kernels: Kernels): Promise<string> {
  const rows: string[][] = []
  for (const shape of SHAPES) {
    const ready = await readyStep(kernels, shape)
    const alone = steps(ready)
    const busy = Bun.spawn([...PINNED, process.execPath, "-e", BUSY])
    await Bun.sleep(500) // until it has started
    const shared = steps(ready)
    busy.kill()
    await busy.exited
    const after = steps(ready)
    const best = Math.min(median(alone), median(after))
    rows.push([
      `${describeConfig(shape.config).split(":")[0]}, ${shape.B}×${shape.T}`,
      ...[median(alone), median(shared), median(after)].map(duration),
      `${(median(shared) / best).toFixed(2)} ×`,
    ])
    ready.program.free()
  }
  const headings = ["step", "alone:", "one core loaded:", "alone again:", "cost:"]
  return `${kernels.name}, ${kernels.call("llm_threads", 0)} threads\n\n${table(headings, rows)}`
}

// It ends by itself, should nobody be left to end it.
const BUSY = "const end = Date.now() + 60_000; while (Date.now() < end);"
// To the first core, so that the scheduler cannot spread its load.
const PINNED = Bun.which("taskset") ? ["taskset", "-c", "0"] : []

/** Milliseconds of as many steps as the time allows. */
function steps({ program, source }: Awaited<ReturnType<typeof readyStep>>): number[] {
  const times: number[] = []
  for (let left = MEASURE_MS; left > 0 || times.length < AT_LEAST; ) {
    const ms = runStep(program, source).reduce((sum, phase) => sum + phase, 0)
    times.push(ms)
    left -= ms
  }
  return times
}
