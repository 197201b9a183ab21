import { describe, expect, test } from "bun:test"
import fc from "fast-check"
import { fromF16 } from "../../src/data/f16.ts"
import { dequantizeQ8, Q8_BLOCK, Q8_BYTES, quantizeQ8 } from "../../src/data/q8.ts"

const LARGEST = 65504 * 127 // in a block whose scale is f16's largest

function quantized(numbers: Float32Array): Uint8Array {
  const out = new Uint8Array((numbers.length / Q8_BLOCK) * Q8_BYTES).fill(0xa5)
  expect(quantizeQ8(out, numbers)).toBe(-1)
  return out
}
function dequantized(blocks: Uint8Array): Float32Array {
  const out = new Float32Array((blocks.length / Q8_BYTES) * Q8_BLOCK).fill(Number.NaN)
  dequantizeQ8(out, blocks, 0)
  return out
}
const scaleOf = (block: Uint8Array) => fromF16(block[0]! | (block[1]! << 8))

// Magnitudes from where the scale is subnormal to where it is f16's largest.
const block = fc
  .tuple(
    fc.array(fc.double({ min: -1, max: 1, noNaN: true }), { minLength: 32, maxLength: 32 }),
    fc.integer({ min: -16, max: 22 }),
  )
  .map(([numbers, exponent]) => Float32Array.from(numbers, (x) => x * 2 ** exponent))

describe("Q8_0", () => {
  test("has the bytes of ggml's reference for a block that is computed by hand", () => {
    // The largest is 127/64, so d = 1/64, 0x2400 in f16; 1/d = 64.
    const numbers = new Float32Array(32)
    numbers.set([
      127 / 64,
      -127 / 64,
      0.5 / 64,
      -0.5 / 64,
      1.5 / 64,
      2.5 / 64,
      -2.5 / 64,
      0.49 / 64,
    ])
    const bytes = new Uint8Array(Q8_BYTES)
    bytes.set([0x00, 0x24, 127, 256 - 127, 1, 256 - 1, 2, 3, 256 - 3, 0])
    expect(quantized(numbers)).toEqual(bytes)
  })

  test("of nothing but zeros is zeros", () => {
    expect(quantized(new Float32Array(64))).toEqual(new Uint8Array(2 * Q8_BYTES))
  })

  test("is within half a step of every number, and what rounding the step itself adds", () => {
    fc.assert(
      fc.property(block, (numbers) => {
        const bytes = quantized(numbers)
        const back = dequantized(bytes)
        const d = Math.fround(Math.max(...numbers.map(Math.abs)) / 127)
        // 127 steps, each of them off by d's rounding to f16; 1/d and its product round in f32, which
        // moves a number of 127 steps by at most 127·2⁻²³ of one. Where d is subnormal it is itself
        // off by up to half of f32's smallest number.
        const subnormal = 127 * 2 ** -150
        const limit = d * (0.5 + 127 * 2 ** -23) + 127 * Math.abs(d - scaleOf(bytes)) + subnormal
        for (const [i, x] of numbers.entries()) {
          if (!(Math.abs(back[i]! - x) <= limit)) throw new Error(`${x} became ${back[i]}`)
        }
      }),
      { numRuns: 2000 },
    )
  })

  test("quantized again has the same bytes", () => {
    fc.assert(
      fc.property(block, (numbers) => {
        const bytes = quantized(numbers)
        // A scale too small for f16 is 0: the bytes beside it, which ggml has as well, say nothing.
        if (scaleOf(bytes) > 0) expect(quantized(dequantized(bytes))).toEqual(bytes)
      }),
      { numRuns: 2000 },
    )
  })

  test("can be read from any number on", () => {
    const numbers = Float32Array.from({ length: 96 }, (_, i) => Math.sin(i) * 1.5 ** (i % 40))
    const bytes = quantized(numbers)
    const all = dequantized(bytes)
    for (let first = 0; first < 64; first++) {
      for (const count of [1, 2, 31, 32]) {
        const out = new Float32Array(count).fill(Number.NaN)
        const start = Math.floor(first / 32)
        dequantizeQ8(out, bytes.subarray(start * Q8_BYTES), first - 32 * start)
        expect(out).toEqual(all.slice(first, first + count))
      }
    }
  })

  test("names the first number that is too large for f16's largest scale", () => {
    const numbers = new Float32Array(96).fill(LARGEST)
    quantized(numbers)
    numbers[70] = -2 * LARGEST
    expect(quantizeQ8(new Uint8Array(3 * Q8_BYTES), numbers)).toBe(70)
  })
})
