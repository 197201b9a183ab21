// Q8_0, ggml's numbers in blocks of 32: a scale in f16, then a signed byte a number. The formula is
// that of its reference quantizer (ggml-quants.c, quantize_row_q8_0_ref), in f32 throughout: the scale
// d is the largest magnitude over 127, each number times 1/d is rounded with halves away from zero.

import { fromF16, roundToF16 } from "./f16.ts"

export const Q8_BLOCK = 32
export const Q8_BYTES = 2 + Q8_BLOCK

/** Writes whole blocks. Returns the place of the first number that is too large for its block's
 * scale, or -1. */
export function quantizeQ8(out: Uint8Array, numbers: Float32Array): number {
  const bytes = new Int8Array(out.buffer, out.byteOffset, out.length)
  let at = 0
  for (let start = 0; start < numbers.length; start += Q8_BLOCK) {
    let largest = start
    for (let i = start; i < start + Q8_BLOCK; i++) {
      if (Math.abs(numbers[i]!) > Math.abs(numbers[largest]!)) largest = i
    }
    const d = Math.fround(Math.abs(numbers[largest]!) / 127)
    const inverse = d === 0 ? 0 : Math.fround(1 / d)
    const scale = roundToF16(d)
    if (scale === 0x7c00) return largest
    out[at++] = scale
    out[at++] = scale >>> 8
    for (let i = start; i < start + Q8_BLOCK; i++) {
      const x = Math.fround(numbers[i]! * inverse)
      // Where 1/d is infinite the scale is 0, and the byte, which C leaves open, becomes 0.
      bytes[at++] = x < 0 ? -Math.round(-x) : Math.round(x)
    }
  }
  return -1
}

/** Makes f32 of as many numbers as `out` has room for, from number `skip` of the blocks on. */
export function dequantizeQ8(out: Float32Array, blocks: Uint8Array, skip: number): void {
  const bytes = new Int8Array(blocks.buffer, blocks.byteOffset, blocks.length)
  for (let i = 0; i < out.length; ) {
    const inBlock = (skip + i) % Q8_BLOCK
    const block = ((skip + i - inBlock) / Q8_BLOCK) * Q8_BYTES
    const scale = fromF16(blocks[block]! | (blocks[block + 1]! << 8))
    const end = Math.min(out.length, i + Q8_BLOCK - inBlock)
    for (let at = block + 2 + inBlock; i < end; ) out[i++] = bytes[at++]! * scale
  }
}
