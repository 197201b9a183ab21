// What numbers are stored in, to and from f32.

import { roundAll, widenAll } from "../data/bf16.ts"
import { dequantizeQ8, Q8_BLOCK, Q8_BYTES, quantizeQ8 } from "../data/q8.ts"
import type { NumberType } from "./source.ts"

type Storage = {
  /** Numbers that are stored together, and the bytes that they take. */
  block: number
  bytes: number
  /** Makes f32 of as many numbers as `out` has room for, from number `skip` of the blocks on. */
  decode(out: Float32Array, stored: Uint8Array, skip: number): void
  /** Stores whole blocks of finite numbers. Returns the place of the first that is too large, or -1. */
  encode(out: Uint8Array, numbers: Float32Array): number
}

/** Bytes that start where a number may, as 16 bits each. */
const halves = ({ buffer, byteOffset, length }: Uint8Array) =>
  new Uint16Array(buffer, byteOffset, length / 2)
const asBytes = ({ buffer, byteOffset, byteLength }: Float32Array) =>
  new Uint8Array(buffer, byteOffset, byteLength)

/** As options and messages call a type. */
export const typeName = (type: NumberType) => (type === "f32" ? "fp32" : type)

export const NUMBERS: Record<NumberType, Storage> = {
  f32: {
    block: 1,
    bytes: 4,
    decode: (out, stored, skip) =>
      asBytes(out).set(stored.subarray(4 * skip).subarray(0, out.byteLength)),
    encode(out, numbers) {
      out.set(asBytes(numbers))
      return -1
    },
  },
  bf16: {
    block: 1,
    bytes: 2,
    decode: (out, stored, skip) => widenAll(out, halves(stored.subarray(2 * skip))),
    encode(out, numbers) {
      const bits = halves(out)
      roundAll(bits, numbers)
      return bits.findIndex((half) => (half & 0x7fff) === 0x7f80)
    },
  },
  f16: {
    block: 1,
    bytes: 2,
    decode(out, stored, skip) {
      const { buffer, byteOffset } = stored
      out.set(new Float16Array(buffer, byteOffset + 2 * skip, out.length))
    },
    encode(out, numbers) {
      const bits = halves(out)
      new Float16Array(bits.buffer, bits.byteOffset, bits.length).set(numbers)
      return bits.findIndex((half) => (half & 0x7fff) === 0x7c00)
    },
  },
  q8_0: { block: Q8_BLOCK, bytes: Q8_BYTES, decode: dequantizeQ8, encode: quantizeQ8 },
}

/** How many of some numbers a type does not hold. */
export function countRounded(numbers: Float32Array, type: NumberType): number {
  const { block, bytes, encode, decode } = NUMBERS[type]
  const stored = new Uint8Array((numbers.length / block) * bytes)
  const back = new Float32Array(numbers.length)
  encode(stored, numbers)
  decode(back, stored, 0)
  return numbers.reduce((count, number, i) => count + (number === back[i] ? 0 : 1), 0)
}
