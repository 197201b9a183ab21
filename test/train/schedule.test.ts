import { describe, expect, test } from "bun:test"
import fc from "fast-check"
import { learningRate, SCHEDULES, type Schedule } from "../../src/train/schedule.ts"

const schedule = (changes: Partial<Schedule>): Schedule => {
  return { name: "cosine", lr: 1, warmup: 10, steps: 110, finalFraction: 0.1, ...changes }
}
const rates = (changes: Partial<Schedule>, ...steps: number[]) =>
  steps.map((step) => learningRate(schedule(changes), step))

describe("learning rate", () => {
  test("warms up in even parts, and the first step is one of them", () => {
    for (const name of ["cosine", "linear", "wsd"] as const) {
      expect(rates({ name }, 0, 4, 9)).toEqual([0.1, 0.5, 1])
    }
  })

  test("cosine falls along half a wave", () => {
    const [top, quarter, middle, end] = rates({}, 10, 35, 60, 110)
    expect(top).toBe(1)
    expect(quarter).toBeCloseTo(0.1 + 0.45 * (1 + Math.SQRT1_2), 12)
    expect(middle).toBeCloseTo(0.55, 12)
    expect(end).toBeCloseTo(0.1, 12)
  })

  test("linear falls along a line", () => {
    const [top, quarter, middle, end] = rates({ name: "linear" }, 10, 35, 60, 110)
    expect([top, quarter, middle, end].map((rate) => rate!.toFixed(12))).toEqual(
      [1, 0.775, 0.55, 0.1].map((rate) => rate.toFixed(12)),
    )
  })

  test("constant knows neither warm-up nor end", () => {
    expect(rates({ name: "constant" }, 0, 5, 50, 110)).toEqual([1, 1, 1, 1])
  })

  test("wsd stays up for four fifths, then falls by a root", () => {
    const [before, start, quarter, end] = rates({ name: "wsd" }, 87, 88, 88 + 5.5, 110)
    expect([before, start]).toEqual([1, 1])
    expect(quarter).toBeCloseTo(0.1 + 0.9 * 0.5, 12)
    expect(end).toBeCloseTo(0.1, 12)
  })

  test("is finite and between 0 and lr, whatever the numbers", () => {
    const any = fc.record({
      name: fc.constantFrom(...SCHEDULES),
      lr: fc.double({ min: 1e-8, max: 10, noNaN: true }),
      warmup: fc.nat(50),
      steps: fc.integer({ min: 1, max: 60 }),
      finalFraction: fc.double({ min: 0, max: 1, noNaN: true }),
    })
    fc.assert(
      fc.property(any, (given) => {
        for (let step = 0; step < given.steps; step++) {
          const rate = learningRate(given, step)
          expect(rate).toBeWithin(0, given.lr * (1 + 1e-12) + Number.MIN_VALUE)
        }
      }),
    )
  })
})
