// llm.c's debug state: one batch and what a trusted implementation computes from it, to compare with.

import { thousands } from "../data/files.ts"
import type { Config } from "../model/config.ts"
import { checkFinite } from "./finite.ts"
import { BinaryFile, bytesOf, HEADER_BYTES, type Kind } from "./header.ts"
import { countParameters } from "./model.ts"

const KIND: Kind = {
  magic: 20240327,
  versions: { 2: "fp32" },
  hint: "give the debug state that was written with this model",
}

export type DebugState = {
  B: number
  T: number
  /** Inputs and targets (B,T). */
  x: Int32Array
  y: Int32Array
  /** (B,T,V), without padding columns. */
  logits: Float32Array
  loss: number
  /** All tensors' gradients, in the model file's order, padding rows included. */
  gradients: Float32Array
}

/** Reads the debug state of a model with this configuration. */
export function readDebugState(path: string, config: Config): DebugState {
  return BinaryFile.with(path, KIND, (file) => {
    const [, , B = 0, T = 0] = file.header
    if (B < 1 || T < 1 || T > config.maxT) {
      const shape = `a batch of ${B}×${T}, and the model takes contexts of 1 to ${config.maxT}`
      throw file.wrong(`its header says ${shape}`, KIND.hint)
    }
    const { V } = config
    const parameters = countParameters(config)
    const words = B * T * (2 + V) + 1 + parameters
    const of = `a batch of ${B}×${T} over ${thousands(V)} tokens and ${thousands(parameters)} gradients`
    file.checkBytes(HEADER_BYTES + 4 * words, of)

    let position = HEADER_BYTES
    const take = <A extends Int32Array | Float32Array>(array: A): A => {
      file.read(bytesOf(array), position)
      position += array.byteLength
      return array
    }
    const x = take(new Int32Array(B * T))
    const y = take(new Int32Array(B * T))
    const isOutside = (token: number) => token < 0 || token >= V
    const outside = x.find(isOutside) ?? y.find(isOutside)
    if (outside !== undefined) {
      throw file.wrong(`token ${outside}, but the vocabulary has ${thousands(V)}`, KIND.hint)
    }
    // Nothing that is compared with NaN could pass.
    const numbers = (name: string, length: number) => {
      const array = take(new Float32Array(length))
      checkFinite(file, name, array, 0, KIND.hint)
      return array
    }
    const logits = numbers("logits", B * T * V)
    const [loss = Number.NaN] = numbers("loss", 1)
    return { B, T, x, y, logits, loss, gradients: numbers("gradients", parameters) }
  })
}
