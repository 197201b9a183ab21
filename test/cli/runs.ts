// Run folders side by side: what must be the same in two runs of the same numbers.

import { readdirSync, readFileSync } from "node:fs"
import { join } from "node:path"
import { verifyDone } from "../../src/formats/done.ts"
import { completeSteps, doneName, filesOf } from "../../src/train/checkpoint.ts"

export const TIMING = ["ms", "tokensPerSecond", "mfu"]

export type Metrics = Record<string, number>

export function metricsOf(folder: string): Metrics[] {
  const text = readFileSync(join(folder, "metrics.jsonl"), "utf8")
  return text
    .trimEnd()
    .split("\n")
    .map((line) => JSON.parse(line))
}

/** Without the fields that measure time. */
export function untimed(lines: Metrics[]): Metrics[] {
  return lines.map((line) =>
    Object.fromEntries(Object.entries(line).filter(([key]) => !TIMING.includes(key))),
  )
}

/** The logs of a run, and the sums of its last checkpoint: all that two equal runs have in common. */
export function record(folder: string) {
  const last = completeSteps(folder).at(-1)
  if (last === undefined) throw new Error(`${folder} has no checkpoint`)
  return {
    metrics: untimed(metricsOf(folder)),
    log: readFileSync(join(folder, "main.log"), "utf8"),
    sums: readFileSync(join(folder, doneName(last)), "utf8"),
  }
}

/** Throws for a checkpoint that claims to be whole and is not; returns the steps of all. */
export function verifyAll(folder: string): number[] {
  const steps = completeSteps(folder)
  for (const step of steps) verifyDone(folder, doneName(step), filesOf(step))
  return steps
}

/** Names of files that should not be there when a run has ended: temporary ones, and parts of
 * checkpoints without DONE. */
export function remains(folder: string): string[] {
  const whole = new Set(completeSteps(folder).flatMap(filesOf))
  return readdirSync(folder).filter(
    (name) => name.endsWith(".tmp") || (/^(model|state)_/.test(name) && !whole.has(name)),
  )
}
