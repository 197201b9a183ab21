import { describe, expect, test } from "bun:test"
import fc from "fast-check"
import { preset } from "../../src/model/config.ts"
import { trainingProgram } from "../../src/model/program.ts"
import { ALIGN, type Block, planArena } from "../../src/program/arena.ts"
import { planMemory } from "../../src/program/plan.ts"

const block = fc
  .record({
    bytes: fc.integer({ min: 1, max: 5000 }),
    first: fc.integer({ min: 0, max: 40 }),
    length: fc.integer({ min: 0, max: 20 }),
  })
  .map(({ bytes, first, length }): Block => ({ bytes, first, last: first + length }))
const blocks = fc.array(block, { minLength: 1, maxLength: 60 })

const align = (bytes: number) => Math.ceil(bytes / ALIGN) * ALIGN

/** The pairs of blocks that are alive together and share a byte. */
function collisions(all: Block[], offsets: number[]): string[] {
  const found: string[] = []
  for (let i = 0; i < all.length; i++) {
    for (let j = 0; j < i; j++) {
      const [a, b] = [all[i]!, all[j]!]
      if (a.last < b.first || b.last < a.first) continue
      const [x, y] = [offsets[i]!, offsets[j]!]
      if (x < y + b.bytes && y < x + a.bytes) found.push(`${i} and ${j}`)
    }
  }
  return found
}

describe("any list of blocks", () => {
  test("no two blocks that are alive at once share a byte", () => {
    fc.assert(
      fc.property(blocks, (all) => {
        expect(collisions(all, planArena(all).offsets)).toEqual([])
      }),
      { numRuns: 500 },
    )
  })

  test("every block starts on a multiple of 128 and ends within the peak", () => {
    fc.assert(
      fc.property(blocks, (all) => {
        const { offsets, peak } = planArena(all)
        for (const [i, offset] of offsets.entries()) {
          expect(offset % 128).toBe(0)
          expect(offset + all[i]!.bytes).toBeLessThanOrEqual(peak)
        }
      }),
    )
  })

  test("the lower bound is the most bytes alive at one call, and the peak is not below it", () => {
    fc.assert(
      fc.property(blocks, (all) => {
        const { peak, lowerBound } = planArena(all)
        const calls = Array.from({ length: 61 }, (_, call) => call)
        const alive = calls.map((call) =>
          all
            .filter(({ first, last }) => first <= call && call <= last)
            .reduce((sum, { bytes }) => sum + align(bytes), 0),
        )
        expect(lowerBound).toBe(Math.max(...alive))
        expect(peak).toBeGreaterThanOrEqual(lowerBound)
      }),
    )
  })

  test("the same blocks give the same plan", () => {
    fc.assert(
      fc.property(blocks, (all) => {
        expect(planArena(all.map((b) => ({ ...b })))).toEqual(planArena(all))
      }),
    )
  })

  test("blocks that follow one another share one place", () => {
    const all = Array.from({ length: 9 }, (_, i) => ({ bytes: 1000, first: i, last: i }))
    expect(planArena(all)).toEqual({ offsets: Array(9).fill(0), peak: 1024, lowerBound: 1024 })
  })

  test("a block without bytes, or one that ends before it begins, is a bug", () => {
    expect(() => planArena([{ bytes: 0, first: 0, last: 0 }])).toThrow("internal error")
    expect(() => planArena([{ bytes: 4, first: 2, last: 1 }])).toThrow("internal error")
  })
})

describe("GPT-2 124M's training program", () => {
  const adamw = { beta1: 0.9, beta2: 0.95, eps: 1e-8, weightDecay: 0 }
  for (const [B, T] of [
    [4, 64],
    [1, 1024],
  ] as const) {
    const source = trainingProgram(preset("gpt2:d12")!, { B, T, accumulation: 1, adamw })
    const plan = planMemory(source.phases, source.always)

    test(`${B}×${T}: the peak is within 5 % of the lower bound`, () => {
      expect(plan.peak / plan.lowerBound).toBeLessThanOrEqual(1.05)
    })

    test(`${B}×${T}: so it is without what lives through the whole run`, () => {
      const end = Math.max(...plan.placements.map(({ last }) => last))
      const short = plan.placements.filter(({ first, last }) => first > 0 || last < end)
      const { peak, lowerBound } = planArena(short)
      expect(peak / lowerBound).toBeLessThanOrEqual(1.05)
    })

    test(`${B}×${T}: no two tensors alive at once share a byte`, () => {
      const offsets = plan.placements.map(({ offset }) => offset)
      expect(collisions(plan.placements, offsets)).toEqual([])
    })
  }
})
