// Multiple choice: against a slow computation in f64 from the logits, and for a model whose answers
// are known without one.

import { afterAll, describe, expect, test } from "bun:test"
import { UserError } from "../../src/errors.ts"
import {
  type Choices,
  completionLosses,
  describeScore,
  fitChoices,
  scoreChoices,
} from "../../src/eval/choices.ts"
import type { Example } from "../../src/formats/choices.ts"
import type { Config } from "../../src/model/config.ts"
import { parameterTable } from "../../src/model/gpt2.ts"
import { evaluationProgram } from "../../src/model/program.ts"
import { Kernels } from "../../src/native/library.ts"
import { Stop } from "../../src/native/signals.ts"
import { Program } from "../../src/program/link.ts"
import { randomExample } from "../fixtures/choices.ts"
import { openLibraries, poison, Run, type Weights } from "../model/run.ts"
import { Random } from "../ops/random.ts"

const elementsOf = (shape: number[]) => shape.reduce((a, b) => a * b, 1)
const stop = new Stop()
afterAll(() => stop[Symbol.dispose]())

const config: Config = { maxT: 16, V: 97, Vp: 128, L: 1, NH: 2, C: 16 }
const { V, Vp, maxT } = config
const random = new Random("questions")
const WEIGHTS: Weights = parameterTable(config).map(({ name, shape }) => {
  return { name, data: random.normals(elementsOf(shape), 0.5) }
})
// Contexts and completions of 1 to 12 tokens: some are longer than the model's 16 together.
const EXAMPLES = Array.from({ length: 51 }, () => randomExample(random, V, 12))
const CHOICES = fitChoices("questions", EXAMPLES, maxT)

// A logit is a sum of 16 terms, below 20 in all, grouped differently after a layer of roundings: as in
// decode.test.ts within 1e-5 of the largest, 2e-4; and a loss is no further off than the worst logits.
const TOLERANCE = 4e-4

/** Mean losses by the definition: each completion alone, the whole softmax in f64, of logits from the
 * reference kernels' training pass, op by op. */
async function slowLosses(examples: Example[]): Promise<number[][]> {
  const reference = await Kernels.open("reference")
  const run = await Run.link(reference, config, { B: 1, T: maxT, fuse: false }, WEIGHTS)
  const losses = examples.map(({ context, completions }) => {
    const longest = Math.max(...completions.map(({ length }) => length))
    return completions.map((completion) => {
      const kept = [...context].slice(-(maxT + 1 - longest))
      const tokens = new Int32Array(maxT)
      tokens.set([...kept, ...completion].slice(0, -1))
      run.load({ tokens, targets: new Int32Array(maxT) })
      run.program.run("forward")
      const logits = run.logits()
      let sum = 0
      for (const [i, token] of completion.entries()) {
        const row = [...logits.subarray((kept.length - 1 + i) * Vp).subarray(0, V)]
        sum += Math.log(row.reduce((total, logit) => total + Math.exp(logit), 0)) - row[token]!
      }
      return sum / completion.length
    })
  })
  run.program.free()
  return losses
}

type Shape = { B: number; T: number; classifierRows?: number }

/** What `use` makes of an evaluation program with these weights. Nobody has a right to read what is
 * NaN in it. */
async function evaluating<R>(
  kernels: Kernels,
  shape: Shape,
  use: (program: Program, tensors: ReturnType<typeof evaluationProgram>) => Promise<R>,
  weights: Weights = WEIGHTS,
): Promise<R> {
  const tensors = evaluationProgram(config, shape)
  const program = await Program.link(tensors, kernels)
  poison(program)
  program.view(tensors.losses).fill(Number.NaN)
  for (const { name, data } of weights) {
    program.view(tensors.parameters[name] as typeof tensors.losses).set(data)
  }
  try {
    return await use(program, tensors)
  } finally {
    program.free()
  }
}

const lossesIn = (kernels: Kernels, shape: Shape, choices: Choices) =>
  evaluating(kernels, shape, async (program, tensors) => {
    const all: number[][] = []
    for await (const means of completionLosses(program, tensors, choices, stop)) all.push(means)
    return all
  })

const slow = await slowLosses(EXAMPLES)
const answers = slow.map((means) => means.indexOf(Math.min(...means)))

for (const { title, kernels } of await openLibraries()) {
  describe(title, () => {
    test.skipIf(!kernels)("the mean losses are those of the definition", async () => {
      const losses = await lossesIn(kernels!, { B: 1, T: maxT }, CHOICES)
      expect(losses.map(({ length }) => length)).toEqual(EXAMPLES.map(() => 4))
      for (const [i, means] of losses.entries()) {
        for (const [c, mean] of means.entries()) {
          expect(Math.abs(mean - slow[i]![c]!)).toBeLessThan(TOLERANCE)
        }
      }
      // And the same bits in a batch of any size, and with the classifier in chunks.
      const shapes = [{ B: 3 }, { B: 4 }, { B: 7 }, { B: 8 }, { B: 50, classifierRows: 384 }]
      for (const shape of shapes) {
        const others = await lossesIn(kernels!, { ...shape, T: maxT }, CHOICES)
        expect([shape, others]).toEqual([shape, losses])
      }
    })

    test.skipIf(!kernels)("rows as long as the longest question give the same bits", async () => {
      const short = Array.from({ length: 12 }, () => randomExample(random, V, 5))
      const choices = fitChoices("questions", short, maxT)
      expect(choices).toMatchObject({ cut: 0, longest: 9 })
      const whole = await lossesIn(kernels!, { B: 4, T: maxT }, choices)
      expect(await lossesIn(kernels!, { B: 4, T: choices.longest }, choices)).toEqual(whole)
    })

    test.skipIf(!kernels)("the accuracy is the share of right answers", async () => {
      // Every third label is the answer.
      const examples = CHOICES.examples.map((example, i) => {
        return { ...example, label: i % 3 === 0 ? answers[i]! : (answers[i]! + 1 + (i % 2)) % 4 }
      })
      const score = await evaluating(kernels!, { B: 3, T: maxT }, (program, tensors) =>
        scoreChoices(program, tensors, { ...CHOICES, examples }, stop),
      )
      expect(score).toEqual({ correct: 17, examples: 51 })
    })
  })
}

describe("a model that knows only how frequent tokens are", async () => {
  const kernels = await Kernels.open("reference")
  // The last norm's weight is 0 and its bias the first unit vector: the logits of any text are wte's
  // first column.
  const weights = WEIGHTS.map(({ name, data }) => {
    const changed = Float32Array.from(data)
    if (name === "lnfw") changed.fill(0)
    if (name === "lnfb") changed.fill(0).fill(1, 0, 1)
    if (name === "wte") for (let v = 0; v < V; v++) changed[v * config.C] = -v / 8
    return { name, data: changed }
  })
  const score = (examples: Example[], own = weights) =>
    evaluating(
      kernels,
      { B: 3, T: maxT },
      (program, tensors) =>
        scoreChoices(program, tensors, fitChoices("questions", examples, maxT), stop),
      own,
    )
  const example = (label: number, ...completions: number[][]): Example => {
    const context = Uint16Array.of(1, 2, 3)
    return { context, completions: completions.map((tokens) => Uint16Array.from(tokens)), label }
  }

  test("chooses the completion whose tokens are the likeliest on average, however many", async () => {
    const right = [
      example(2, [9], [8], [7], [10]),
      example(0, [3, 3, 3, 3, 3], [4], [5], [6, 6]), // the sum of losses would choose [4]
      example(1, [50, 0], [20, 22], [23], [0, 50]), // the sum would choose [23]
      example(4, [9], [8], [7], [6], [5]), // five completions
      example(1, [1], [0]), // two
    ]
    expect(await score(right)).toEqual({ correct: 5, examples: 5 })
    const wrong = right.map((each) => ({ ...each, label: each.label === 0 ? 1 : 0 }))
    expect(await score(wrong)).toEqual({ correct: 0, examples: 5 })
    expect(await score([...right, ...wrong.slice(0, 3)])).toEqual({ correct: 5, examples: 8 })
  })

  test("takes the first of those that are equally likely", async () => {
    const equal = [0, 1, 2, 3].map((label) => example(label, [5], [5], [5, 5], [5]))
    expect(await score(equal)).toEqual({ correct: 1, examples: 4 })
  })

  test("scores NaN where a loss is none", async () => {
    const broken = weights.map((each) =>
      each.name === "lnfb" ? { ...each, data: each.data.map(() => Number.NaN) } : each,
    )
    const { correct } = (await score([example(0, [1], [2])], broken))!
    expect(correct).toBeNaN()
  })
})

describe("a question that is longer than the context", () => {
  const example = (context: number, ...completions: number[]): Example => ({
    context: Uint16Array.from({ length: context }, (_, i) => i),
    completions: completions.map((length) => new Uint16Array(length)),
    label: 0,
  })

  test("loses the start of its context, as far as its longest completion asks for", () => {
    const { examples, longest, cut } = fitChoices("x", [example(9, 2, 3), example(4, 5, 1)], 8)
    expect(examples.map(({ context }) => [...context])).toEqual([
      [3, 4, 5, 6, 7, 8],
      [0, 1, 2, 3],
    ])
    expect({ longest, cut }).toEqual({ longest: 8, cut: 1 })
    expect(describeScore({ correct: 1, examples: 2 }, { examples, longest, cut })).toBe(
      "0.5000 (1 of 2, the start of 1 contexts cut off)",
    )
  })

  test("keeps at least one token of it, and a completion is never cut", () => {
    const { examples, longest } = fitChoices("x", [example(9, 8, 1)], 8)
    expect([...examples[0]!.context]).toEqual([8])
    expect(longest).toBe(8)
    const refused = () => fitChoices("x.bin", [example(1, 1), example(1, 1, 9)], 8)
    expect(refused).toThrow(UserError)
    expect(refused).toThrow(
      "x.bin: example 1 has a completion of 9 tokens, above the context of 8 (try --context 9 or more)",
    )
  })

  test("the length that just fits is not cut", () => {
    expect(fitChoices("x", [example(6, 3, 3)], 8)).toMatchObject({ longest: 8, cut: 0 })
    expect(fitChoices("x", [example(7, 3, 3)], 8)).toMatchObject({ longest: 8, cut: 1 })
  })
})

test("an evaluation that is stopped has no score", async () => {
  const kernels = await Kernels.open("reference")
  using own = new Stop()
  const seen: number[] = []
  const score = await evaluating(kernels, { B: 4, T: maxT }, (program, tensors) =>
    scoreChoices(program, tensors, CHOICES, own, (done) => {
      seen.push(done)
      if (done === 2) process.kill(process.pid, "SIGINT")
    }),
  )
  expect(score).toBeUndefined()
  expect(seen).toEqual([0, 1, 2])
})
