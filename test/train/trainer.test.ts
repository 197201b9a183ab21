import { beforeAll, describe, expect, test } from "bun:test"
import { Loader } from "../../src/data/loader.ts"
import { Random } from "../../src/data/random.ts"
import { type Config, padVocabulary } from "../../src/model/config.ts"
import { initialize } from "../../src/model/initialize.ts"
import { type TrainingProgram, trainingProgram } from "../../src/model/program.ts"
import { openDevice } from "../../src/native/device.ts"
import { contract, type Kernels } from "../../src/native/library.ts"
import { Stop } from "../../src/native/signals.ts"
import { findBad } from "../../src/program/check.ts"
import { Program } from "../../src/program/link.ts"
import { Display } from "../../src/train/display.ts"
import type { StepMetrics } from "../../src/train/runfolder.ts"
import { Diverged, type Surroundings, Trainer, type TrainOptions } from "../../src/train/trainer.ts"

const CONFIG: Config = { maxT: 16, V: 97, Vp: padVocabulary(97), L: 2, NH: 2, C: 16 }
const ADAMW = { beta1: 0.9, beta2: 0.95, eps: 1e-8, weightDecay: 0.1 }
const random = new Random(7)
// Something to learn: small tokens are frequent.
const TOKENS = Uint16Array.from({ length: 3000 }, () => random.uniform() ** 5 * CONFIG.V)

interface Settings extends Partial<Omit<TrainOptions, "schedule">> {
  steps?: number
  lr?: number
  shuffle?: boolean
  val?: boolean
  onStep?: (metrics: StepMetrics) => void
  /** Called before the first step. */
  spoil?: (program: Program, tensors: TrainingProgram) => void
  /** Called before the run ends by numbers that are none. */
  onBad?: (program: Program, tensors: TrainingProgram) => void
  /** Called with each piece of a sample. */
  onText?: (text: string) => void
}

let kernels: Kernels
const signatures = await contract()
beforeAll(async () => {
  kernels = await openDevice("auto", 2)
})

/** Keeps what a run shows. */
class Recorder extends Display {
  readonly metrics: StepMetrics[] = []
  text = ""

  constructor(
    steps: number,
    private readonly onStep?: Settings["onStep"],
    private readonly onText?: Settings["onText"],
  ) {
    super(steps)
  }

  override step(metrics: StepMetrics): void {
    this.metrics.push(metrics)
    this.onStep?.(metrics)
  }

  override say(text: string): void {
    this.text += `${text}\n`
  }

  override write(text: string): void {
    this.text += text
    this.onText?.(text)
  }
}

/** Trains from scratch and returns everything that can be seen of it. */
async function train(settings: Settings = {}) {
  const { steps = 4, lr = 1e-2, shuffle = false, val = false, ...others } = settings
  const { onStep, onText, onBad, spoil, ...given } = others
  const { B = 2, T = 8, accumulation = 1, seed = 42 } = given
  const tensors = trainingProgram(CONFIG, { B, T, accumulation, adamw: ADAMW })
  const program = await Program.link(tensors, kernels)
  initialize(program, tensors, CONFIG, kernels, 1)
  spoil?.(program, tensors)
  const shape = { B, T, vocabulary: CONFIG.V, seed }
  const data = {
    name: "tokens",
    train: Loader.over("tokens", TOKENS.subarray(0, 2500), { ...shape, shuffle }),
    val: val ? Loader.over("tokens", TOKENS.subarray(2500), shape) : undefined,
  }
  const display = new Recorder(steps, onStep, onText)
  const options: TrainOptions = {
    B,
    T,
    accumulation,
    totalBatch: B * T * accumulation,
    schedule: { name: "cosine", lr, warmup: 0, steps, finalFraction: 1 },
    gradClip: 1,
    valEvery: 0,
    valBatches: 3,
    sampleEvery: 0,
    sampleTokens: 4,
    overfitBatch: false,
    checkpointEvery: 0,
    skipLossZ: 0,
    skipGradZ: 0,
    logDevice: 0,
    seed,
    ...given,
  }
  const around: Surroundings = {
    display,
    measurePeak: () => 1e9,
    findBadState: () => undefined,
    findBad(search) {
      onBad?.(program, tensors)
      return findBad(program, tensors, kernels, signatures, search)
    },
  }
  const trainer = new Trainer(program, tensors, CONFIG, data, options, around)
  using stop = new Stop()
  try {
    const outcome = await trainer.run(stop)
    const { metrics, text } = display
    const losses = metrics.map(({ trainLoss }) => trainLoss)
    const [weights, m] = [tensors.parameters, tensors.m].map((stack) => copy(program, stack))
    return { outcome, losses, metrics, text, weights: weights!, m: m! }
  } finally {
    program.free()
  }
}

const copy = (program: Program, stack: TrainingProgram["parameters"]) =>
  Object.values(stack).map((tensor) => Float32Array.from(program.view(tensor as never)))

/** The Euclidean norm of all numbers together. */
function norm(tensors: Float32Array[]): number {
  return Math.sqrt(tensors.reduce((sum, t) => t.reduce((s, x) => s + x * x, sum), 0))
}

describe("gradient accumulation", () => {
  test("four micro-batches of 2 make the same steps as one batch of 8", async () => {
    const one = await train({ B: 8, steps: 6, lr: 1e-3 })
    const four = await train({ B: 2, accumulation: 4, steps: 6, lr: 1e-3 })
    for (const [s, { trainLoss, gradNorm }] of one.metrics.entries()) {
      // Sums of the same float32 numbers in another order.
      expect(Math.abs(four.metrics[s]!.trainLoss / trainLoss - 1)).toBeLessThan(1e-5)
      expect(Math.abs(four.metrics[s]!.gradNorm / gradNorm - 1)).toBeLessThan(1e-4)
    }
    const distance = norm(one.weights.map((w, i) => w.map((x, j) => x - four.weights[i]![j]!)))
    expect(distance / norm(one.weights)).toBeLessThan(1e-4)
    const few = await train({ B: 2, steps: 6, lr: 1e-3 })
    expect(few.losses).not.toEqual(four.losses)
  })
})

describe("clipping", () => {
  // After one step from zero, m is (1 − beta1) times the gradient that AdamW was given.
  const given = ({ m }: { m: Float32Array[] }) => norm(m) / (1 - ADAMW.beta1)

  test("a gradient above the limit is scaled down to it, and logged as it was", async () => {
    const free = await train({ steps: 1, gradClip: 0 })
    const { gradNorm } = free.metrics[0]!
    expect(given(free)).toBeCloseTo(gradNorm, 4)
    const clipped = await train({ steps: 1, gradClip: 0.125 })
    expect(gradNorm).toBeGreaterThan(0.125)
    expect(given(clipped)).toBeCloseTo(0.125, 5)
    expect(clipped.metrics[0]!.gradNorm).toBe(gradNorm)
  })

  test("a gradient less than twice the limit is scaled down to it as well", async () => {
    const { gradNorm } = (await train({ steps: 1, gradClip: 0 })).metrics[0]!
    for (const above of [1.01, 1.5, 1.99]) {
      const gradClip = gradNorm / above
      expect(given(await train({ steps: 1, gradClip }))).toBeCloseTo(gradClip, 4)
    }
  })

  test("a gradient below the limit is left as it is, to the bit", async () => {
    const free = await train({ gradClip: 0 })
    const loose = await train({ gradClip: 1000 })
    expect(loose.weights).toEqual(free.weights)
  })
})

describe("outliers", () => {
  // 128 steps make a window; a loss far above it comes when the batch changes.
  const metrics = (settings: Settings) => train({ steps: 140, lr: 0, ...settings })

  test("above the z-score are skipped: no weight or moment moves, and the metrics say it", async () => {
    const { metrics: lines, text } = await metrics({ skipLossZ: 1 })
    const skipped = lines.filter((line) => line.skipped)
    expect(skipped.length).toBeGreaterThan(0)
    expect(skipped.every(({ step, skipped }) => step >= 128 && skipped === "loss")).toBe(true)
    expect(text).toContain(`step ${skipped[0]!.step}  update skipped: the loss's z-score is `)

    const until = skipped[0]!.step
    const before = await train({ steps: until, lr: 1e-3, skipLossZ: 1 })
    const after = await train({ steps: until + 1, lr: 1e-3, skipLossZ: 1 })
    const isSkipped = after.metrics[until]!.skipped !== undefined
    if (isSkipped) expect([after.weights, after.m]).toEqual([before.weights, before.m])
    else expect(after.m).not.toEqual(before.m)
  })

  test("of the gradient's norm are told apart", async () => {
    const { metrics: lines } = await metrics({ skipGradZ: 1 })
    const reasons = new Set(lines.map(({ skipped }) => skipped))
    expect(reasons).toEqual(new Set([undefined, "norm"]))
  })

  test("are not looked for without a limit", async () => {
    const { metrics: lines } = await metrics({})
    expect(lines.some((line) => "skipped" in line)).toBe(false)
  })
})

describe("of a step whose numbers are not finite no update is made", () => {
  /** The numbers of a run that ends in its first step: weights, moments and the norm at its end. */
  async function end(settings: Settings & { spoil: NonNullable<Settings["spoil"]> }) {
    const state = (program: Program, { parameters, m, v }: TrainingProgram) =>
      [parameters, m, v].map((stack) => copy(program, stack))
    let [before, after, gradNorm] = [[] as unknown, [] as unknown, 0]
    const run = train({
      ...settings,
      spoil(program, tensors) {
        settings.spoil(program, tensors)
        before = state(program, tensors)
      },
      onBad(program, tensors) {
        after = state(program, tensors)
        gradNorm = program.read(tensors.norm)[0]!
      },
    })
    const message = await run.then(String, (error: Error) => error.message)
    expect(after).toEqual(before)
    return { message, gradNorm }
  }
  const weights = (program: Program, tensors: TrainingProgram) => (name: string) =>
    program.view(tensors.parameters[name] as never as typeof tensors.loss)

  test("where the loss is, and the gradient's norm is not", async () => {
    const { message } = await end({
      spoil(program, tensors) {
        // The product of the two is tame; on the way back only the large one counts.
        const numbers = weights(program, tensors)
        numbers("fcw").fill(1e-38)
        numbers("fcprojw").fill(3e38)
        numbers("lnfw").fill(1000)
      },
    })
    expect(message).toMatch(/^step 0: the gradient's norm is (NaN|Infinity); first in dh1\./)
  })

  /** Makes logits of 1.9e38 for the last token, minus that for some, and 0 for others: what lies between
   * the first two f32 does not hold, while their gradients are those of any wrong guess. */
  const spread =
    (isLow: (token: number) => boolean) => (program: Program, tensors: TrainingProgram) => {
      const numbers = weights(program, tensors)
      numbers("lnfw").fill(0)
      numbers("lnfb").fill(1.9e38 / 1e3 / CONFIG.C)
      const { V, C } = CONFIG
      const wte = numbers("wte")
      for (let token = 0; token < V; token++) {
        wte.fill(token === V - 1 ? 1e3 : isLow(token) ? -1e3 : 0, token * C, (token + 1) * C)
      }
    }

  test("where the gradient's norm is, and the loss is not", async () => {
    const { message, gradNorm } = await end({ spoil: spread(() => true) })
    expect(message).toMatch(/^step 0: the loss is Infinity; first in losses /)
    expect(gradNorm).toBeGreaterThan(0)
    expect(gradNorm).toBeLessThan(Number.POSITIVE_INFINITY)
  })

  test("where that is a loss of another micro-batch than the last", async () => {
    const [first, last] = [TOKENS.subarray(1, 17), TOKENS.subarray(17, 33)]
    const low = first.find((token) => !last.includes(token))
    const { message } = await end({ accumulation: 2, spoil: spread((token) => token === low) })
    expect(message).toMatch(/^step 0: the loss is Infinity; first in losses .* of micro-batch 0$/)
  })
})

describe("what a step trains on", () => {
  test("with --overfit-batch it is always the first batch, and its loss falls", async () => {
    const still = await train({ overfitBatch: true, lr: 0 })
    expect(new Set(still.losses).size).toBe(1)
    const { losses } = await train({ overfitBatch: true, steps: 60 })
    expect(losses[0]).toBe(still.losses[0]!)
    expect(losses.at(-1)!).toBeLessThan(losses[0]! / 2)
  })

  test("without, every batch is another one, and the loss falls all the same", async () => {
    const still = await train({ lr: 0 })
    expect(new Set(still.losses).size).toBe(still.losses.length)
    const { losses } = await train({ steps: 60, B: 8 })
    expect(losses.at(-1)!).toBeLessThan(losses[0]! - 0.3)
  })

  test("the order of --shuffle depends on the seed alone", async () => {
    const [a, b, other, plain] = await Promise.all([
      train({ shuffle: true, seed: 3 }),
      train({ shuffle: true, seed: 3 }),
      train({ shuffle: true, seed: 4 }),
      train({}),
    ])
    expect(b.losses).toEqual(a.losses)
    expect(b.weights).toEqual(a.weights)
    expect(other.losses).not.toEqual(a.losses)
    expect(plain.losses).not.toEqual(a.losses)
  })
})

describe("validation and samples", () => {
  test("do not change the training by a bit", async () => {
    const plain = await train({ steps: 7 })
    const full = await train({ steps: 7, val: true, valEvery: 2, sampleEvery: 3 })
    expect(full.losses).toEqual(plain.losses)
    expect(full.weights).toEqual(plain.weights)
  })

  test("come before step 0, every so many steps, and at the end", async () => {
    const { text, outcome } = await train({ steps: 5, val: true, valEvery: 2, sampleEvery: 4 })
    const said = text.match(/^step \d+ {2}validation|^---\n[\s\S]*?\n---$/gm)!
    const seen = said.map((line) => (line.startsWith("---") ? "sample" : line.split(" ")[1]))
    expect(seen).toEqual(["0", "2", "4", "sample", "5", "sample"])
    expect(outcome).toEqual({ steps: 5, valLoss: expect.any(Number) })
  })

  test("the validation loss is the mean over the first batches, the same at every call", async () => {
    const { text } = await train({ steps: 3, lr: 0, val: true, valEvery: 1 })
    const losses = [...text.matchAll(/validation loss ([\d.]+)/g)].map(([, loss]) => Number(loss))
    expect(losses).toHaveLength(4)
    expect(new Set(losses).size).toBe(1)
    // An untrained model is as wise as a die with V faces.
    expect(losses[0]!).toBeCloseTo(Math.log(CONFIG.V), 1)
  })
})

describe("a run that ends early", () => {
  test.each(["SIGINT", "SIGTERM"] as const)("on %s after the step that runs", async (signal) => {
    const onStep = ({ step }: StepMetrics) => step === 2 && process.kill(process.pid, signal)
    const { outcome, losses } = await train({ steps: 100, onStep })
    expect(outcome).toEqual({ steps: 3, signal })
    expect(losses).toHaveLength(3)
    expect(process.listenerCount(signal)).toBe(0)
  })

  test("in the middle of a validation, whose loss is not told", async () => {
    setTimeout(() => process.kill(process.pid, "SIGINT"))
    const { outcome, text } = await train({ steps: 3, val: true, valEvery: 1, valBatches: 30 })
    expect(outcome).toEqual({ steps: 0, signal: "SIGINT" })
    expect(text).toBe("")
  })

  test("in the middle of a sample", async () => {
    const texts: string[] = []
    const onText = (text: string) => texts.push(text) === 3 && process.kill(process.pid, "SIGINT")
    const { outcome } = await train({ steps: 3, sampleEvery: 1, sampleTokens: 100_000, onText })
    expect(outcome).toEqual({ steps: 1, signal: "SIGINT" })
    expect(texts.length).toBeLessThan(100)
  })

  test("on numbers that are none, with the step's name", async () => {
    const run = train({ steps: 20, lr: 1e30 })
    expect(run).rejects.toBeInstanceOf(Diverged)
    expect(run).rejects.toThrow(
      /^step 1: the loss is NaN; first in h0\.qkv \(2,8,48\), made by matmul_forward in the forward pass$/,
    )
    await run.catch(() => {})
    expect(process.listenerCount("SIGINT")).toBe(0)
  })

  test("on a bad parameter, by its name", async () => {
    const spoil = (program: Program, tensors: TrainingProgram) => {
      program.view(tensors.parameters.lnfb as never as typeof tensors.loss)[3] = Number.NaN
    }
    const run = train({ steps: 2, spoil })
    expect(run).rejects.toThrow(/^step 0: the loss is NaN; first in the parameter lnfb \(16\)$/)
    await run.catch(() => {})
  })

  test("on a validation loss that is no number", async () => {
    const run = train({ steps: 1, lr: 1e30, val: true, valEvery: 1 })
    expect(run).rejects.toThrow(/^step 1: the validation loss is NaN$/)
    await run.catch(() => {})
  })

  test("on a model that has no likeliest token", async () => {
    const run = train({ steps: 1, lr: 1e30, sampleEvery: 1 })
    expect(run).rejects.toBeInstanceOf(Diverged)
    expect(run).rejects.toThrow(/^step 1: .*not finite/)
    await run.catch(() => {})
  })
})

test("a step's metrics hold the schedule's rate and consistent speeds", async () => {
  const { metrics } = await train({ steps: 5, lr: 1e-3 })
  expect(metrics.map(({ step }) => step)).toEqual([0, 1, 2, 3, 4])
  for (const { lr, ms, tokensPerSecond, mfu } of metrics) {
    expect(lr).toBe(1e-3) // a final fraction of 1 makes every schedule constant
    expect(tokensPerSecond * ms).toBeCloseTo(16 * 1000, 3)
    expect(mfu).toBeGreaterThan(0)
  }
})
