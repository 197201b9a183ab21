// The validation loss: the same bits from the program that trains and from the one that only
// evaluates.

import { afterAll, describe, expect, test } from "bun:test"
import { Loader } from "../../src/data/loader.ts"
import { validationLoss } from "../../src/eval/loss.ts"
import { evaluationProgram, trainingProgram } from "../../src/model/program.ts"
import { Kernels } from "../../src/native/library.ts"
import { Stop } from "../../src/native/signals.ts"
import { Program } from "../../src/program/link.ts"
import { planMemory } from "../../src/program/plan.ts"
import { fixture, fixtureWeights } from "../fixtures/weights.ts"
import { ADAMW, openLibraries, poison, Run } from "../model/run.ts"
import { Random } from "../ops/random.ts"

const stop = new Stop()
afterAll(() => stop[Symbol.dispose]())

const { config } = fixture
const { V } = config
const TOKENS = Uint16Array.from(new Random("validation").integers(2000, V))
const [B, T] = [3, 16]

for (const { title, kernels } of await openLibraries()) {
  describe(title, () => {
    for (const batches of [1, 7]) {
      test.skipIf(!kernels)(
        `over ${batches} batches it is that of the training program`,
        async () => {
          const loader = Loader.over("tokens", TOKENS, { B, T, vocabulary: V })
          const run = await Run.link(kernels!, config, { B, T }, fixtureWeights())
          const expected = await validationLoss(run.program, run.source, loader, batches, stop)

          const tensors = evaluationProgram(config, { B, T })
          const program = await Program.link(tensors, kernels!)
          poison(program)
          for (const { name, data } of fixtureWeights()) {
            program.view(tensors.parameters[name] as typeof tensors.loss).set(data)
          }
          loader.next(new Int32Array(B * T), new Int32Array(B * T)) // it starts from the first anyway
          const loss = await validationLoss(program, tensors, loader, batches, stop)
          expect(loss).toBe(expected!)
          expect(loss).toBe(Math.fround(loss!))

          // The mean of the last batch's losses, which are those of its targets.
          const mean = program.view(tensors.losses).reduce((sum, each) => sum + each, 0) / (B * T)
          expect(program.view(tensors.loss)[0]!).toBeCloseTo(mean, 5)
          run.program.free()
          program.free()
        },
      )
    }
  })
}

test("a stopped validation has no loss", async () => {
  const kernels = await Kernels.open("reference")
  const run = await Run.link(kernels, config, { B, T }, fixtureWeights())
  const loader = Loader.over("tokens", TOKENS, { B, T, vocabulary: V })
  using own = new Stop()
  const seen: number[] = []
  const loss = await validationLoss(run.program, run.source, loader, 9, own, (done) => {
    seen.push(done)
    if (done === 3) process.kill(process.pid, "SIGTERM")
  })
  expect(loss).toBeUndefined()
  expect(seen).toEqual([0, 1, 2, 3])
  run.program.free()
})

test("an evaluation reserves weights and activations, and nothing that trains", () => {
  const shape = { B: 4, T: 64 }
  const of = { L: 12, NH: 12, C: 768, V: 50257, Vp: 50304, maxT: 1024 }
  const evaluation = evaluationProgram(of, shape)
  const { placements, peak } = planMemory(evaluation.phases, evaluation.always)
  expect(new Set(placements.map(({ tensor }) => tensor.role))).toEqual(
    new Set(["pinned", "parameter", "activation", "scratch"]),
  )
  const training = trainingProgram(of, { ...shape, accumulation: 1, adamw: ADAMW })
  const whole = planMemory(training.phases, training.always).peak
  expect(peak).toBeLessThan(whole / 3)
})
