// What a run with products in eight bits knows of its tensors: at the end of a step, of one that is broken
// off, and of one whose numbers go bad.

import { describe, expect, test } from "bun:test"
import { Loader } from "../../src/data/loader.ts"
import type { Config } from "../../src/model/config.ts"
import { initialize } from "../../src/model/initialize.ts"
import { type TrainingProgram, trainingProgram } from "../../src/model/program.ts"
import { roundWeights, wideWeights } from "../../src/model/weights.ts"
import { contract, type Kernels } from "../../src/native/library.ts"
import { Stop } from "../../src/native/signals.ts"
import { findBad } from "../../src/program/check.ts"
import { Program } from "../../src/program/link.ts"
import { Display } from "../../src/train/display.ts"
import { Trainer, type TrainOptions } from "../../src/train/trainer.ts"
import { reference as kernels } from "../libraries.ts"
import { Random } from "../ops/random.ts"

const CONFIG: Config = { maxT: 8, V: 97, Vp: 128, L: 1, NH: 1, C: 16 }
const [B, T, ACCUMULATION] = [2, 8, 2]
const BAD = 100 // a token of the padding, which comes up once, if at all
const adamw = { beta1: 0.9, beta2: 0.95, eps: 1e-8, weightDecay: 0 }
const signatures = await contract()

class Quiet extends Display {
  override step() {}
  override say() {}
}

interface Settings {
  steps: number
  /** The micro-batch, of all, that cannot be read. */
  breaksAt?: number
  /** The micro-batch with a token whose embedding is beyond bf16. */
  badAt?: number
}

/** A run: its end, how it ended, and what a checkpoint would hold then. */
async function train({ steps, breaksAt, badAt }: Settings) {
  const shape = { B, T, accumulation: ACCUMULATION }
  const tensors = trainingProgram(CONFIG, { ...shape, adamw, precision: "bf16", fp8: true })
  const program = await Program.link(tensors, kernels)
  initialize(program, tensors, CONFIG, kernels, 1)
  if (badAt !== undefined) spoil(program, tensors, kernels)
  const tokens = Uint16Array.from(new Random("tokens").integers(1000, CONFIG.V))
  const loader = Loader.over("tokens", tokens, { B, T, vocabulary: CONFIG.V })
  const next = loader.next.bind(loader)
  loader.next = (inputs, targets) => {
    const at = loader.position.sequence / B
    if (at === breaksAt) throw new Error("broken off")
    next(inputs, targets)
    if (at === badAt) inputs[3] = BAD
  }
  const options: TrainOptions = {
    ...shape,
    totalBatch: B * T * ACCUMULATION,
    schedule: { name: "constant", lr: 1e-3, warmup: 0, steps, finalFraction: 1 },
    ...{ gradClip: 1, valEvery: 0, valBatches: 1, sampleEvery: 0, sampleTokens: 1, seed: 1 },
    ...{ checkpointEvery: 0, skipLossZ: 0, skipGradZ: 0, logDevice: 0, overfitBatch: false },
  }
  let peaks = 0
  const trainer = new Trainer(
    program,
    tensors,
    CONFIG,
    { name: "tokens", train: loader },
    options,
    {
      display: new Quiet(steps),
      measurePeak: () => 1 + peaks++, // far below any step's rate
      findBadState: () => undefined,
      findBad: (search) => findBad(program, tensors, kernels, signatures, search),
    },
  )
  using stop = new Stop()
  const message = await trainer.run(stop).then(
    () => "done",
    (error: Error) => error.message,
  )
  const { slots, step } = trainer.state()
  program.free()
  return { message, slots, step, peaks }
}

/** Places are the largest numbers there are, and go on as plus and minus 1; with the one token they are
 * infinite. */
function spoil(program: Program, tensors: TrainingProgram, kernels: Kernels) {
  const wide = wideWeights(tensors)!
  const [wpe, wte] = [program.view(wide.wpe!), program.view(wide.wte!)]
  const sign = (i: number) => (i % 2 === 0 ? 1 : -1)
  wpe.forEach((_, i) => {
    wpe[i] = sign(i) * LARGEST_BF16
  })
  for (let c = 0; c < CONFIG.C; c++) wte[BAD * CONFIG.C + c] = sign(c) * (LARGEST_BF16 / 100)
  roundWeights(program, tensors, wide, kernels)
}
const LARGEST_BF16 = 2 ** 128 - 2 ** 120

describe("a run with products in eight bits", () => {
  test("that is broken off within a step has the scales of the step before", async () => {
    const whole = await train({ steps: 3 })
    expect(whole).toMatchObject({ message: "done", step: 3 })
    expect(whole.slots.some((x) => x > 0)).toBe(true)
    for (const breaksAt of [6, 7]) {
      const broken = await train({ steps: 5, breaksAt })
      expect(broken).toMatchObject({ message: "broken off", step: 3 })
      expect(broken.slots).toEqual(whole.slots)
    }
  })

  test("that is broken off within its first step knows nothing", async () => {
    for (const breaksAt of [0, 1]) {
      expect(await train({ steps: 2, breaksAt })).toMatchObject({ step: 0, slots: [] })
    }
  })

  test("whose numbers go bad names the first tensor, in the micro-batch that it is of", async () => {
    for (const [step, micro] of [
      [0, 1],
      [1, 0],
      [2, 1],
    ] as const) {
      const { message } = await train({ steps: 4, badAt: ACCUMULATION * step + micro })
      expect(message).toMatch(
        new RegExp(`^step ${step}: the loss is NaN; first in encoded .* of micro-batch ${micro}$`),
      )
    }
  })

  test("measures the peak once, as its steps may pass it", async () => {
    expect((await train({ steps: 4 })).peaks).toBe(1)
  })
})
