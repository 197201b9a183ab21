// What a run computes in: which options contradict it, and which sizes it does not take.

import { UserError } from "../errors.ts"
import type { Config } from "../model/config.ts"
import type { Arithmetic } from "../native/contract.ts"
import type { Options } from "../options.ts"
import type { Shape } from "./settings.ts"

const FP8_MULTIPLE = 16 // of all sizes of a product in eight bits, for tensor cores to take it

/** What contradicts weights in f32. */
export const ofBf16 = (option: string) =>
  new UserError(
    `${option} contradicts --precision fp32, whose weights are f32 (leave it out, or --precision bf16)`,
  )

/** Whether weights in bf16 have others in f32 beside them. */
export function keepsMasters(options: Options, arithmetic: Arithmetic): boolean {
  if (options.number("master-weights") === 1) return true
  if (arithmetic === "fp32") throw ofBf16("--master-weights 0")
  if (arithmetic === "bf16") return false
  throw new UserError(
    "--master-weights 0 contradicts --precision fp8, which keeps weights in f32 (try --precision bf16)",
  )
}

/** Tensor cores leave other products in eight bits to plain cores, which would take hundreds of times as
 * long. */
export function checkFp8Sizes({ B, T }: Pick<Shape, "B" | "T">, { C }: Config): void {
  const isMultiple = (size: number) => size % FP8_MULTIPLE === 0
  if (!isMultiple(C)) {
    throw new UserError(
      `--precision fp8: the model's ${C} channels are no multiple of ${FP8_MULTIPLE}, as a GPU's products in eight bits take (try --precision bf16)`,
    )
  }
  if (isMultiple(B * T)) return
  const fitting = Math.max(1, Math.floor(T / FP8_MULTIPLE)) * FP8_MULTIPLE
  throw new UserError(
    `--precision fp8: --batch ${B} × --context ${T} = ${B * T} tokens are no multiple of ${FP8_MULTIPLE}, as a GPU's products in eight bits take (try --context ${fitting})`,
  )
}
