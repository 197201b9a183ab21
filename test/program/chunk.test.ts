// The classifier a few rows at a time: the same losses and gradients in less memory.

import { describe, expect, test } from "bun:test"
import type { Config } from "../../src/model/config.ts"
import { initialize } from "../../src/model/initialize.ts"
import { trainingProgram } from "../../src/model/program.ts"
import { CHUNK_ALIGN } from "../../src/program/chunk.ts"
import { planMemory } from "../../src/program/plan.ts"
import { ADAMW, openLibraries, Run, worst } from "../model/run.ts"
import { Random } from "../ops/random.ts"

const CONFIG: Config = { L: 1, NH: 2, C: 16, V: 131, Vp: 256, maxT: 250 }
const [B, T] = [4, 250] // 1000 rows: two whole chunks of 384, and a rest
const random = new Random("chunks")
const batches = [0, 1].map(() => {
  return { tokens: random.integers(B * T, CONFIG.V), targets: random.integers(B * T, CONFIG.V) }
})

for (const { title, kernels } of await openLibraries()) {
  describe(title, () => {
    for (const accumulation of [1, 2]) {
      test.skipIf(!kernels)(
        `${accumulation} micro-steps of 384 rows are those of all`,
        async () => {
          const results = []
          for (const classifierRows of [undefined, CHUNK_ALIGN]) {
            const options = { B, T, accumulation, classifierRows }
            const run = await Run.link(kernels!, CONFIG, options)
            initialize(run.program, run.source, CONFIG, kernels!, 42)
            const losses = batches.slice(0, accumulation).map((batch, i) => run.pass(batch, i))
            run.program.run("evaluate")
            losses.push(run.f32(run.source.loss)[0]!)
            results.push({ losses, gradients: run.gradients() })
            run.program.free()
          }
          const [all, few] = results
          // A gradient of wte is a sum of three parts, rounded once more for each.
          for (const [i, loss] of few!.losses.entries())
            expect(loss).toBeCloseTo(all!.losses[i]!, 5)
          for (const [name, gradient] of Object.entries(few!.gradients)) {
            expect([name, worst(gradient, all!.gradients[name]!) < 1e-6]).toEqual([name, true])
          }
        },
      )
    }
  })
}

test("less memory is needed, by the logits of the other rows", () => {
  const config: Config = { L: 12, NH: 12, C: 768, V: 50257, Vp: 50304, maxT: 1024 }
  const peak = (classifierRows?: number) => {
    const options = { B: 4, T: 1024, accumulation: 1, adamw: ADAMW, classifierRows }
    const { phases, always } = trainingProgram(config, options)
    return planMemory(phases, always).peak
  }
  const saved = peak() - peak(CHUNK_ALIGN)
  expect(saved).toBeGreaterThan(0.9 * (4 * 1024 - CHUNK_ALIGN) * config.Vp * 4)
})
