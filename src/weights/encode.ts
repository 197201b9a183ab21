// Numbers of a source as other types: rounded to the nearest, a tie to the even one.

import { UserError } from "../errors.ts"
import { NUMBERS } from "./numbers.ts"
import type { WeightSource } from "./source.ts"

export type FloatType = "f32" | "bf16" | "f16"

export const PIECE = 2 ** 18 // numbers that are read and written at once

/** Numbers of what `name` names, from `first` on, in bytes. Refuses those that the type is too small
 * for: a model in which they were infinite, or the largest number that there is, would be another. */
export function encode(
  { path }: WeightSource,
  name: string,
  first: number,
  numbers: Float32Array,
  type: FloatType,
): Uint8Array {
  const out = new Uint8Array(numbers.length * NUMBERS[type].bytes)
  const bad = NUMBERS[type].encode(out, numbers)
  if (bad < 0) return out
  const number = `number ${first + bad}, ${numbers[bad]}, is too large for ${type}`
  throw new UserError(`${path}: ${name}: ${number} (try --type fp32)`)
}
