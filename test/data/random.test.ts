import { describe, expect, test } from "bun:test"
import fc from "fast-check"
import { Random } from "../../src/data/random.ts"

/** Pearson's statistic against equal frequencies. */
function chiSquare(counts: number[]): number {
  const expected = counts.reduce((sum, count) => sum + count, 0) / counts.length
  return counts.reduce((sum, count) => sum + (count - expected) ** 2 / expected, 0)
}

describe("random numbers", () => {
  // Seeds are fixed, so a limit that chance passes once in 10,000 cannot flicker.
  test("below n are equally frequent", () => {
    const random = new Random(11)
    const counts = new Array(7).fill(0)
    for (let i = 0; i < 70_000; i++) counts[random.below(7)]++
    expect(chiSquare(counts)).toBeLessThan(27.9) // 6 degrees of freedom
  })

  test("below a large n do not favour small results", () => {
    // Taking the remainder would give the lower half of [0, 3·2³⁰) twice as often.
    const random = new Random(12)
    const counts = [0, 0, 0]
    for (let i = 0; i < 30_000; i++) counts[Math.floor(random.below(3 * 2 ** 30) / 2 ** 30)]!++
    expect(chiSquare(counts)).toBeLessThan(18.4) // 2 degrees of freedom
  })

  test("between 0 and 1 are equally spread", () => {
    const random = new Random(13)
    const counts = new Array(20).fill(0)
    for (let i = 0; i < 100_000; i++) counts[Math.floor(random.uniform() * 20)]++
    expect(chiSquare(counts)).toBeLessThan(52.4) // 19 degrees of freedom
  })

  test("give every permutation equally often", () => {
    const random = new Random(14)
    const counts = new Map<string, number>()
    for (let i = 0; i < 24_000; i++) {
      const order = random.permutation(4).join()
      counts.set(order, (counts.get(order) ?? 0) + 1)
    }
    expect(counts.size).toBe(24)
    expect(chiSquare([...counts.values()])).toBeLessThan(58.6) // 23 degrees of freedom
  })

  test("permutations hold every number once", () => {
    fc.assert(
      fc.property(fc.nat(), fc.nat(300), (seed, n) => {
        const order = new Random(seed).permutation(n)
        expect([...order].sort((a, b) => a - b)).toEqual(Array.from({ length: n }, (_, i) => i))
      }),
    )
  })

  test("depend on every seed", () => {
    const draw = (...seeds: number[]) => new Random(...seeds).next()
    const draws = [draw(1), draw(2), draw(1, 0), draw(1, 1), draw(0, 1), draw(1 + 2 ** 32), draw()]
    expect(new Set(draws).size).toBe(draws.length)
    expect(draw(1, 1)).toBe(draws[3]!)
  })
})
