// Bun's FFI coerces silently (an i32 is `val | 0`) and a bad pointer ends the process, so every
// argument is checked against the function's signature before it crosses.

import type { FFITypeOrString } from "bun:ffi"
import { assert } from "../errors.ts"
import type { CType, Signature } from "./contract.ts"
import { isLive } from "./memory.ts"

export type NativeFunctions = Record<string, (...args: (number | bigint)[]) => number>

// Pointers cross as u64: `ptr` would turn 0 into an error instead of NULL.
const FFI_TYPES: Record<CType | "void", FFITypeOrString> = {
  f32: "f32",
  f64: "f64",
  i32: "i32",
  u32: "i32",
  i64: "i64",
  pointer: "u64",
  void: "void",
}

export function ffiSymbols(signatures: Iterable<Signature>) {
  const symbols: Record<string, { args: FFITypeOrString[]; returns: FFITypeOrString }> = {}
  for (const { name, parameters, returns } of signatures) {
    const args = parameters.map(({ type }) => FFI_TYPES[type])
    symbols[name] = { args, returns: FFI_TYPES[returns] }
  }
  return symbols
}

/** The arguments as they may cross. Throws unless every one has its parameter's type and range, and
 * every pointer is NULL or points into live native memory: this process's, or a device's. */
export function checkArguments(
  { name, parameters }: Signature,
  args: (number | bigint)[],
  isHost = true,
): (number | bigint)[] {
  assert(args.length === parameters.length, `${name} takes ${parameters.length} arguments`)
  return parameters.map((parameter, i) => {
    const value = Number(args[i])
    const fits = FITS[parameter.type](value, isHost)
    assert(fits, `${name}: ${parameter.name} = ${args[i]} is no ${parameter.type}`)
    // Bun 1.4.5 passes an integer that is stored as a double to a function of `cc` as 0, and an array
    // of numbers may store them all as doubles: one with a BigInt in it cannot.
    if (parameter.type === "pointer") return BigInt(args[i]!)
    const isInt = parameter.type === "i32" || parameter.type === "u32"
    return isInt ? value | 0 : args[i]!
  })
}

const isWhole = (value: number, low: number, high: number) =>
  Number.isInteger(value) && value >= low && value <= high

const FITS: Record<CType, (value: number, isHost: boolean) => boolean> = {
  f32: (value) => typeof value === "number",
  f64: (value) => typeof value === "number",
  i32: (value) => isWhole(value, -(2 ** 31), 2 ** 31 - 1),
  u32: (value) => isWhole(value, 0, 2 ** 32 - 1),
  i64: (value) => Number.isSafeInteger(value),
  pointer: (value, isHost) => value === 0 || (Number.isSafeInteger(value) && isLive(value, isHost)),
}
