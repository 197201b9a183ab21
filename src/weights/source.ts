// A model's weights, in whatever file they are: one way to read them, so that every format can be
// turned into every other, and trained or sampled from.

import type { Config } from "../model/config.ts"

/** What numbers are stored in. */
export type NumberType = "f32" | "bf16" | "f16" | "q8_0"

export interface WeightSource {
  readonly path: string
  readonly config: Config
  /** Of its matrices. */
  readonly type: NumberType
  /** Of a parameter; where it is a stack, of its first layer. */
  typeOf(name: string): NumberType
  /** Fills `into` with numbers of a parameter, from number `first` on: in the names, the stacks of
   * layers, the order and the (out, in) matrices of the parameter table, padding rows of wte as 0.
   * Throws a UserError for numbers that are not finite, and for a file that has become shorter. */
  read(name: string, into: Float32Array, first: number): void
  close(): void
}
