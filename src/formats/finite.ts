// Numbers that nobody can compute with are refused where they are read.

import { fromBf16 } from "../data/bf16.ts"
import type { InputFile } from "./file.ts"

/** Refuses NaN and infinite numbers; those of 16 bits are bf16. `start` is the first one's place in
 * what `name` names. */
export function checkFinite(
  file: Pick<InputFile, "wrong">,
  name: string,
  numbers: Float32Array | Uint16Array,
  start: number,
  wayOut: string,
): void {
  const isBf16 = numbers instanceof Uint16Array
  if (isBf16 ? areFiniteBf16(numbers) : areFiniteF32(numbers)) return
  const value = (i: number) => (isBf16 ? fromBf16(numbers[i]!) : numbers[i]!)
  let at = 0
  while (Number.isFinite(value(at))) at++
  throw file.wrong(`${name}: number ${start + at} is ${value(at)}`, wayOut)
}

// A number is not finite when its exponent is all ones. One unit more of it carries into the sign's
// place, which nothing else reaches: what all numbers carry is collected without a branch.

function areFiniteF32(numbers: Float32Array): boolean {
  const bits = new Int32Array(numbers.buffer, numbers.byteOffset, numbers.length)
  let seen = 0
  for (let i = 0; i < bits.length; i++) seen |= ((bits[i]! & 0x7f800000) + 0x00800000) | 0
  return seen >= 0
}

export function areFiniteBf16(bits: Uint16Array): boolean {
  let seen = 0
  for (let i = 0; i < bits.length; i++) seen |= (bits[i]! & 0x7f80) + 0x80
  return (seen & 0x8000) === 0
}
