// What a row of the table is: a kernel, its arguments by the contract's names, and what its outputs
// must be according to a formula in double precision.

import type { Random } from "./random.ts"

/** How far an output may be from what is expected: absolute + relative·|expected|. */
export interface Tolerance {
  absolute: number
  relative: number
}

export interface Output {
  kind: "output"
  type: "f32" | "f64"
  length: number
  /** overwritten: poisoned beforehand; added: to `initial`; updated: `initial` is also an input. */
  effect: "overwritten" | "added" | "updated"
  initial?: Float32Array
  tolerance: Tolerance
}
/** Undefined before and after the call. */
export interface Scratch {
  kind: "scratch"
  length: number
}
/** The same memory as another argument. */
export interface Alias {
  kind: "alias"
  of: string
}

/** A number stands for itself (and NULL is 0), an array for an input that must not change. */
export type Argument = number | Float32Array | Float64Array | Int32Array | Output | Scratch | Alias
export type Arguments = Record<string, Argument>
export type Point = Record<string, Float64Array>

export interface Drawn {
  args: Arguments
  /** Outputs by name. */
  outputs?: () => Point
  /** Outputs that are gradients: of `loss` by the variables at `at`, differentiated numerically. */
  gradients?: { loss: (x: Point) => number; at: Record<string, Float32Array>; of: Named }
}
/** Output → the variable whose gradient it is. */
type Named = Record<string, string>

export interface Case {
  kernel: string
  /** Sizes and options; with the kernel's name, the seed of its numbers. */
  title: string
  draw: (random: Random) => Drawn
}

export const NULL = 0

export function overwritten(length: number, tolerance: Tolerance): Output {
  return { kind: "output", type: "f32", length, effect: "overwritten", tolerance }
}

/** An output with an `accumulate` option. */
export function gradient(
  random: Random,
  length: number,
  accumulate: boolean,
  tolerance: Tolerance,
): Output {
  if (!accumulate) return overwritten(length, tolerance)
  const initial = random.normals(length)
  return { kind: "output", type: "f32", length, effect: "added", initial, tolerance }
}

export function updated(initial: Float32Array, tolerance: Tolerance): Output {
  const { length } = initial
  return { kind: "output", type: "f32", length, effect: "updated", initial, tolerance }
}

export const scratch = (length: number): Scratch => ({ kind: "scratch", length })
export const sameAs = (of: string): Alias => ({ kind: "alias", of })

// ---- tolerances: from the type and the length of the sums, for terms of about unit size ----

export const EPS = 2 ** -23 // f32: from 1 to the next number
export const EPS64 = 2 ** -52

/** A result of a few operations on terms up to `size`. */
export function rounding(size = 1): Tolerance {
  return { absolute: 4 * EPS * size, relative: 4 * EPS }
}

/** A sum of n terms of random sign, added one by one in f32: it wanders √k away after k terms, each
 * addition rounds that by half an EPS, and the roundings wander too: √(Σk)/2 ≈ 0.35·n EPS. The worst
 * of many thousand elements lies within five such deviations. Arm's BFDOT adds two terms at a time,
 * rounding to odd, by up to one EPS: √(Σ2k) over n/2 steps = 0.5·n EPS, four of which are allowed. */
export function sum(n: number, size = 1): Tolerance {
  return { absolute: 2 * EPS * (n + 4) * size, relative: 4 * EPS }
}

export function allowed(tolerance: Tolerance, expected: number): number {
  return tolerance.absolute + tolerance.relative * Math.abs(expected)
}
