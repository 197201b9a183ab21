import { describe, expect, test } from "bun:test"
import fc from "fast-check"
import { fromF16, roundToF16 } from "../../src/data/f16.ts"

// The engine's own f16, which is not used otherwise: a second opinion.
const theirs = new Float16Array(1)
const theirBits = new Uint16Array(theirs.buffer)
const theirNumber = (half: number) => {
  theirBits[0] = half
  return theirs[0]!
}
const theirHalf = (x: number) => {
  theirs[0] = x
  return theirBits[0]!
}

const f32 = new Float32Array(1)
const word = new Int32Array(f32.buffer)
const numberOf = (bits: number) => {
  word[0] = bits
  return f32[0]!
}

describe("f16", () => {
  test("is what the engine makes of all 65,536 of them", () => {
    for (let half = 0; half < 65536; half++) {
      if (!Object.is(fromF16(half), theirNumber(half))) throw new Error(`${half}`)
    }
  })

  test("that is rounded again stays as it is", () => {
    for (let half = 0; half < 65536; half++) {
      const x = fromF16(half)
      if (!Number.isNaN(x) && roundToF16(x) !== half) throw new Error(`${half}`)
      if (Number.isNaN(x)) expect(roundToF16(x) & 0x7fff).toBe(0x7e00)
    }
  })

  test("takes the middle between two neighbours to the even one, and what is beside it to the near one", () => {
    for (let half = 0; half < 0x7c00; half++) {
      // Above the largest number lies what would be the next one, 65,536.
      const middle = (fromF16(half) + (half === 0x7bff ? 65536 : fromF16(half + 1))) / 2
      f32[0] = middle
      const below = numberOf(word[0]! - 1)
      f32[0] = middle
      const above = numberOf(word[0]! + 1)
      const even = half % 2 === 0 ? half : half + 1
      for (const sign of [0, 0x8000]) {
        const rounded = [below, middle, above].map((x) => roundToF16(sign ? -x : x))
        const expected = [half, even, half + 1].map((h) => h | sign)
        if (!Bun.deepEquals(rounded, expected)) throw new Error(`${half}: ${rounded}`)
      }
    }
  })

  test("is rounded from any f32 as the engine rounds it", () => {
    const bits = fc.oneof(
      fc.integer({ min: -(2 ** 31), max: 2 ** 31 - 1 }),
      fc.integer({ min: 0x33000000 - 9, max: 0x39000000 }), // the subnormal numbers
      fc.constantFrom(0, -(2 ** 31), 1, 0x7f800000, 0x477fefff, 0x477ff000, 0x7f7fffff),
    )
    fc.assert(
      fc.property(bits, (b) => {
        const x = numberOf(b)
        if (!Number.isNaN(x)) expect(roundToF16(x)).toBe(theirHalf(x))
      }),
      { numRuns: 20_000 },
    )
  })
})
