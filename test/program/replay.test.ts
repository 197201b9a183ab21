// What a GPU is told of a phase that comes again and again.

import { expect, test } from "bun:test"
import type { Gpu, Recorded } from "../../src/native/gpu.ts"
import { Replays } from "../../src/program/replay.ts"

/** Replays on a GPU that writes down what it is asked for, and that may have failed. */
function replays(log: string[], hasFailed = false): Replays {
  const gpu: Partial<Gpu> = {
    wait() {
      log.push("wait")
      if (hasFailed) throw new Error("failed")
    },
    keepPlans: () => void log.push("keep plans"),
    record(queue) {
      log.push("record")
      queue()
      return BigInt(log.length) as Recorded
    },
    replay: (graph) => void log.push(`replay ${graph}`),
    forget: (graph) => void log.push(`forget ${graph}`),
  }
  return new Replays(gpu as Gpu)
}

test("a phase is queued, then recorded, then replayed, and each with other numbers for itself", () => {
  const log: string[] = []
  const all = replays(log)
  const run = (key: string) => all.run(key, () => log.push(`queue ${key}`))
  for (const key of ["a 0", "a 1", "a 0", "a 0"]) run(key)
  const first = (key: string) => [`queue ${key}`, "wait", "keep plans"]
  const recorded = ["record", "queue a 0", "replay 8"]
  expect(log).toEqual([...first("a 0"), ...first("a 1"), ...recorded, "replay 8"])
  log.length = 0
  all.free()
  expect(log).toEqual(["forget 8"]) // of the other nothing was recorded
})

test("what a GPU has chosen is not kept when it has failed", () => {
  const log: string[] = []
  expect(() => replays(log, true).run("a", () => log.push("queue"))).toThrow("failed")
  expect(log).toEqual(["queue", "wait"])
})
