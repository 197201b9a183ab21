// Choosing the next token: draws against exact probabilities, and the corners of the filters.

import { describe, expect, test } from "bun:test"
import { Random } from "../../src/data/random.ts"
import { UserError } from "../../src/errors.ts"
import { chooseToken, type Filters, NO_FILTERS } from "../../src/sample/choose.ts"

const DRAWS = 100_000
const ALL = NO_FILTERS
const LAST = 1 - 2 ** -53 // the largest uniform number there is

/** Probabilities by the definitions, one filter after the other, each followed by a new softmax. */
function probabilities(given: number[], filters: Filters, seen: number[]): number[] {
  const { temperature, topK, topP, minP, repetitionPenalty } = filters
  const logits = given.map((logit, i) => {
    if (!seen.includes(i)) return logit
    return logit > 0 ? logit / repetitionPenalty : logit * repetitionPenalty
  })
  const soften = (values: number[]) => {
    const powers = values.map((value) => Math.exp(value / temperature))
    const total = powers.reduce((sum, power) => sum + power, 0)
    return powers.map((power) => power / total)
  }
  const keep = (values: number[], tokens: number[]) =>
    values.map((value, i) => (tokens.includes(i) ? value : Number.NEGATIVE_INFINITY))
  const ranking = logits.map((_, i) => i).sort((a, b) => logits[b]! - logits[a]! || a - b)

  let left = logits
  if (topK > 0) left = keep(left, ranking.slice(0, topK))
  if (topP < 1) {
    const p = soften(left)
    const before = ranking.map((_, i) => ranking.slice(0, i).reduce((sum, j) => sum + p[j]!, 0))
    left = keep(
      left,
      ranking.filter((_, i) => before[i]! < topP),
    )
  }
  const p = soften(left)
  const least = minP * Math.max(...p)
  return soften(left.map((logit, i) => (p[i]! >= least ? logit : Number.NEGATIVE_INFINITY)))
}

/** The value that chi-square with so many degrees of freedom passes once in a million (Wilson,
 * Hilferty 1931). */
function limit(degrees: number): number {
  const spread = 2 / (9 * degrees)
  return degrees * (1 - spread + 4.753 * Math.sqrt(spread)) ** 3
}

const V = 40
const random = new Random(3)
// Sums of uniform numbers: roughly normal, so that a few tokens are likely and most are not.
const spread = Array.from({ length: V }, () => 4 * (random.uniform() + random.uniform()) - 4)
const tied = spread.map((_, i) => [0, 2, 1, 2][i % 4]!)
// Every fourth token is one that the text has, likely and unlikely ones among them.
const SEEN = Array.from({ length: V / 4 }, (_, i) => 4 * i + 1)
const holes = spread.map((logit, i) => (i % 3 === 1 ? Number.NEGATIVE_INFINITY : logit))

const FILTERS: [string, Filters][] = [
  ["no filter", ALL],
  ["a low temperature", { ...ALL, temperature: 0.5 }],
  ["a high temperature", { ...ALL, temperature: 3 }],
  ["top-k", { ...ALL, topK: 7 }],
  ["top-k of more than there are", { ...ALL, topK: V + 1 }],
  ["top-p", { ...ALL, topP: 0.8 }],
  ["top-k, then top-p", { ...ALL, topK: 12, topP: 0.7 }],
  ["all three", { ...ALL, temperature: 1.7, topK: 9, topP: 0.9 }],
  ["min-p", { ...ALL, minP: 0.2 }],
  ["a high temperature, then min-p", { ...ALL, temperature: 2, minP: 0.3 }],
  ["top-k, then min-p", { ...ALL, topK: 20, minP: 0.05 }],
  ["top-p, then min-p", { ...ALL, topP: 0.9, minP: 0.1 }],
  ["a repetition penalty", { ...ALL, repetitionPenalty: 1.5 }],
  ["a penalty that is a reward", { ...ALL, repetitionPenalty: 0.7 }],
  ["a repetition penalty, then top-p", { ...ALL, repetitionPenalty: 2, topP: 0.8 }],
  ["all five", { temperature: 1.5, topK: 25, topP: 0.95, minP: 0.02, repetitionPenalty: 1.3 }],
]
const LOGITS: [string, number[]][] = [
  ["spread", spread],
  ["tied", tied],
  ["with holes", holes],
]
const cases = LOGITS.flatMap(([kind, logits]) =>
  FILTERS.map(([name, filters]) => [`${name}, logits ${kind}`, logits, filters] as const),
)

describe(`${DRAWS} draws follow the exact probabilities`, () => {
  test.each(cases)("%s", (_, logits, filters) => {
    // Padding columns hold whatever a kernel left there.
    const row = Float32Array.from([...logits, 1e30, Number.NaN])
    const counts = new Array<number>(V).fill(0)
    const draws = new Random(11)
    const seen = new Set(SEEN)
    for (let i = 0; i < DRAWS; i++) counts[chooseToken(row, V, filters, draws.uniform(), seen)]!++

    const expected = probabilities([...row.subarray(0, V)], filters, SEEN).map((p) => p * DRAWS)
    let chiSquare = 0
    let bins = 0
    let [rare, rareCount] = [0, 0] // tokens too rare for the statistic are counted together
    expected.forEach((mean, i) => {
      if (mean === 0) expect(counts[i]).toBe(0)
      else if (mean < 5) [rare, rareCount] = [rare + mean, rareCount + counts[i]!]
      else [chiSquare, bins] = [chiSquare + (counts[i]! - mean) ** 2 / mean, bins + 1]
    })
    if (rare > 0) [chiSquare, bins] = [chiSquare + (rareCount - rare) ** 2 / rare, bins + 1]
    expect(bins).toBeGreaterThan(1)
    expect(chiSquare).toBeLessThan(limit(bins - 1))
  })
})

test("a statistic that is off is seen: draws at another temperature fail", () => {
  const row = Float32Array.from(spread)
  const draws = new Random(11)
  const counts = new Array<number>(V).fill(0)
  for (let i = 0; i < DRAWS; i++) counts[chooseToken(row, V, ALL, draws.uniform())]!++
  const other = { ...ALL, temperature: 1.1 }
  const expected = probabilities(spread, other, []).map((p) => p * DRAWS)
  const chiSquare = expected.reduce((sum, mean, i) => sum + (counts[i]! - mean) ** 2 / mean, 0)
  expect(chiSquare).toBeGreaterThan(limit(V - 1))
})

const choose = (logits: number[], filters: Partial<Filters>, uniform: number) =>
  chooseToken(Float32Array.from(logits), logits.length, { ...ALL, ...filters }, uniform)

describe("temperature 0", () => {
  test("takes the likeliest token, whatever is drawn", () => {
    for (const uniform of [0, 0.5, LAST]) {
      expect(choose([1, 5, -2, 4], { temperature: 0 }, uniform)).toBe(1)
      expect(choose([1, 5, -2, 4], { temperature: 0, topK: 3, topP: 0.5 }, uniform)).toBe(1)
    }
  })

  test("takes the first of equals", () => {
    expect(choose([1, 5, 5, 5], { temperature: 0 }, LAST)).toBe(1)
  })

  test("is what ever lower temperatures come to", () => {
    for (const temperature of [1e-3, 1e-30, Number.MIN_VALUE]) {
      for (const uniform of [0, 0.5, LAST]) {
        expect(choose([1, 5, -2, 4.9], { temperature }, uniform)).toBe(1)
      }
    }
  })
})

describe("a repetition penalty", () => {
  const penalised = (logits: number[], seen: number[], repetitionPenalty: number) => {
    const filters = { ...ALL, temperature: 0, repetitionPenalty }
    return chooseToken(Float32Array.from(logits), logits.length, filters, 0, seen)
  }

  test("divides positive logits and multiplies negative ones", () => {
    expect(penalised([4, 3], [0], 1.3)).toBe(0) // 3.08
    expect(penalised([4, 3], [0], 1.4)).toBe(1) // 2.86
    expect(penalised([-3, -4], [0], 1.3)).toBe(0) // -3.9
    expect(penalised([-3, -4], [0], 1.4)).toBe(1) // -4.2
    expect(penalised([4, 3], [0, 1], 9)).toBe(0)
  })

  test("leaves the logits as they were, and a token that cannot be impossible", () => {
    const logits = Float32Array.of(1, 2, Number.NEGATIVE_INFINITY)
    const filters = { ...ALL, repetitionPenalty: 2 }
    expect(chooseToken(logits, 3, filters, LAST, [1, 2])).toBe(1)
    expect([...logits]).toEqual([1, 2, Number.NEGATIVE_INFINITY])
  })
})

test("min-p 1 leaves the likeliest, and its equals", () => {
  for (const uniform of [0, LAST]) expect(choose([1, 5, 4.99], { minP: 1 }, uniform)).toBe(1)
  expect(choose([5, 5, 1], { minP: 1 }, LAST)).toBe(1)
})

describe("both ends of the draw", () => {
  const logits = [Number.NEGATIVE_INFINITY, 0, 1, Number.NEGATIVE_INFINITY]

  test("are tokens that can be", () => {
    expect(choose(logits, {}, 0)).toBe(1)
    expect(choose(logits, {}, LAST)).toBe(2)
  })

  test("are, with one token left, that token", () => {
    for (const filters of [{ topK: 1 }, { topP: 1e-9 }, { topK: 1, topP: 1e-9 }]) {
      for (const uniform of [0, LAST]) expect(choose(logits, filters, uniform)).toBe(2)
    }
    expect(choose([7], {}, LAST)).toBe(0)
  })
})

test("equals are kept in the order of their tokens", () => {
  for (const uniform of [0, 0.25, 0.49]) expect(choose([3, 3, 3, 3], { topK: 2 }, uniform)).toBe(0)
  expect(choose([3, 3, 3, 3], { topK: 2 }, LAST)).toBe(1)
  expect(choose([3, 3, 3, 3], { topP: 0.5 }, LAST)).toBe(1)
  expect(choose([3, 3, 3, 3], { topP: 0.51 }, LAST)).toBe(2)
})

test("huge logits do not overflow", () => {
  expect(choose([3e38, -3e38, 3e38], {}, 0)).toBe(0)
  expect(choose([3e38, -3e38, 3e38], {}, LAST)).toBe(2)
})

test("the k likeliest are found however close together they lie", () => {
  const row = [0, -0.1, -0.2, -0.4, -0.7]
  const seen = (topK: number) => {
    return new Set(Array.from({ length: 400 }, (_, i) => choose(row, { topK }, i / 400)))
  }
  for (const k of [1, 2, 3, 4, 5]) expect([...seen(k)]).toEqual([0, 1, 2, 3, 4].slice(0, k))
})

describe("logits that are no numbers are the model's fault", () => {
  const { NaN: nan, NEGATIVE_INFINITY: low, POSITIVE_INFINITY: high } = Number
  test.each([
    ["a NaN among numbers", [1, nan, 2]],
    ["a NaN first", [nan, 1, 2]],
    ["an infinity", [1, high, 2]],
    ["no token at all", [low, low, low]],
  ])("%s", (_, logits) => {
    for (const temperature of [0, 1]) {
      expect(() => choose(logits, { temperature }, 0.5)).toThrow(UserError)
    }
  })
})
