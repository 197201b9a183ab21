// Numbers of a source as other types: rounded to the nearest, a tie to the even one.

import { roundAll } from "../data/bf16.ts"
import { UserError } from "../errors.ts"
import { bytesOf } from "../formats/header.ts"
import type { WeightSource } from "./source.ts"

export type FloatType = "f32" | "bf16" | "f16"

export const FLOAT_BYTES: Record<FloatType, number> = { f32: 4, bf16: 2, f16: 2 }
export const PIECE = 2 ** 18 // numbers that are read and written at once

const EXPONENT = { bf16: 0x7f80, f16: 0x7c00 } // all of it set: not finite

/** Numbers of what `name` names, from `first` on, in bytes. Refuses those that the type is too small
 * for: a model in which they were infinite, or the largest number that there is, would be another. */
export function encode(
  { path }: WeightSource,
  name: string,
  first: number,
  numbers: Float32Array,
  type: FloatType,
): Uint8Array {
  if (type === "f32") return bytesOf(numbers)
  const halves = new Uint16Array(numbers.length)
  if (type === "bf16") roundAll(halves, numbers)
  else new Float16Array(halves.buffer).set(numbers)
  const exponent = EXPONENT[type]
  const bad = halves.findIndex((half) => (half & exponent) === exponent)
  if (bad < 0) return bytesOf(halves)
  const number = `number ${first + bad}, ${numbers[bad]}, is too large for ${type}`
  throw new UserError(`${path}: ${name}: ${number} (try --type fp32)`)
}
