import { describe, expect, test } from "bun:test"
import { fromF16, roundToF16 } from "../../src/data/f16.ts"

const f32 = new Float32Array(1)
const word = new Int32Array(f32.buffer)
const numberOf = (bits: number) => {
  word[0] = bits
  return f32[0]!
}

describe("f16", () => {
  test("is sign, exponent and fraction as IEEE 754 has them", () => {
    for (let half = 0; half < 65536; half++) {
      const [exponent, fraction] = [(half >> 10) & 31, half & 0x3ff]
      const special = fraction ? Number.NaN : Number.POSITIVE_INFINITY
      const size = exponent === 0 ? fraction * 2 ** -24 : (1024 + fraction) * 2 ** (exponent - 25)
      const expected = (half & 0x8000 ? -1 : 1) * (exponent === 31 ? special : size)
      if (!Object.is(fromF16(half), expected)) throw new Error(`${half}`)
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
})
