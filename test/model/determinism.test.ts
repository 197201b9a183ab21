// A whole run gives the same bits on any number of threads.

import { expect, test } from "bun:test"
import { readdirSync } from "node:fs"
import { bytesOf } from "../../src/formats/header.ts"
import type { Config } from "../../src/model/config.ts"
import { initialize } from "../../src/model/initialize.ts"
import { bestCpuLibrary, Kernels } from "../../src/native/library.ts"
import { Random } from "../ops/random.ts"
import { Run } from "./run.ts"

const CONFIG: Config = { L: 2, NH: 3, C: 48, V: 131, Vp: 256, maxT: 37 }
const [B, T, STEPS, ACCUMULATION] = [3, 33, 3, 2]

const batches = Array.from({ length: ACCUMULATION }, (_, i) => {
  const random = new Random(`batch ${i}`)
  return { tokens: random.integers(B * T, CONFIG.V), targets: random.integers(B * T, CONFIG.V) }
})

const threadsOfProcess = () => readdirSync("/proc/self/task").length

/** Losses, norms and hashes of all that a run leaves behind, sampler's logits included. */
async function train(kernels: Kernels, threads: number) {
  expect(kernels.call("llm_threads", threads)).toBe(threads)
  const run = await Run.link(kernels, CONFIG, { B, T, accumulation: ACCUMULATION })
  const { parameters, m, v, gradients, token, logits, loss } = run.source
  initialize(run.program, run.source, CONFIG, kernels, 42)
  const steps = Array.from({ length: STEPS }, (_, i) => run.step(batches, i + 1, 1e-2))
  run.program.run("evaluate")
  const evaluated = run.f32(loss)[0]!
  run.program.view(token)[0] = 7
  run.program.run("decode")

  const hashes: Record<string, bigint | number> = { logits: Bun.hash(bytesOf(run.f32(logits))) }
  for (const tensors of [parameters, m, v, gradients]) {
    for (const tensor of Object.values(tensors)) {
      hashes[tensor.name] = Bun.hash(bytesOf(run.f32(tensor)))
    }
  }
  run.program.free()
  return { steps, evaluated, hashes }
}

const best = await bestCpuLibrary()
const title = "1, 2, 3 and 5 threads leave the same bits everywhere"
test.skipIf(!best)(best ? title : `${title} (skipped: no CPU library)`, async () => {
  const kernels = await Kernels.open(best!)
  const alone = await train(kernels, 1)
  expect(alone.steps.at(-1)!.losses[0]!).toBeLessThan(alone.steps[0]!.losses[0]!)
  const before = threadsOfProcess()
  for (const threads of [2, 3, 5]) expect(await train(kernels, threads)).toEqual(alone)
  // The program's kernels are those whose threads were set: they have started the four helpers.
  expect(threadsOfProcess()).toBeGreaterThanOrEqual(before + 4)
})
