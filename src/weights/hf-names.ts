// Hugging Face's GPT-2: the same tensors as llm.c's, a tensor for each layer instead of a stack.

import type { Config } from "../model/config.ts"
import { parameterTable } from "../model/gpt2.ts"

/** Of a GPT2LMHeadModel; a GPT2Model's names lack it. */
export const PREFIX = "transformer."

const NAMES: Record<string, string> = {
  wte: "wte.weight",
  wpe: "wpe.weight",
  ln1w: "ln_1.weight",
  ln1b: "ln_1.bias",
  qkvw: "attn.c_attn.weight",
  qkvb: "attn.c_attn.bias",
  attprojw: "attn.c_proj.weight",
  attprojb: "attn.c_proj.bias",
  ln2w: "ln_2.weight",
  ln2b: "ln_2.bias",
  fcw: "mlp.c_fc.weight",
  fcb: "mlp.c_fc.bias",
  fcprojw: "mlp.c_proj.weight",
  fcprojb: "mlp.c_proj.bias",
  lnfw: "ln_f.weight",
  lnfb: "ln_f.bias",
}

export interface HubTensor {
  /** Without a prefix. */
  name: string
  /** As it is stored: its Conv1D layers keep their matrices (in, out). */
  shape: number[]
  isTransposed: boolean
  /** Where its numbers are in ours. */
  parameter: string
  layer: number
}

/** The tensors of a model, in our order. */
export function* hubTensors(config: Config): Generator<HubTensor> {
  const { V, C, L } = config
  for (const { name: parameter, shape: ours } of parameterTable(config)) {
    const name = NAMES[parameter]!
    if (!/^(ln_[12]|attn|mlp)\./.test(name)) {
      const shape = parameter === "wte" ? [V, C] : ours // without padding rows
      yield { name, shape, isTransposed: false, parameter, layer: 0 }
      continue
    }
    const isTransposed = ours.length === 3
    const shape = ours.slice(1)
    if (isTransposed) shape.reverse()
    for (let layer = 0; layer < L; layer++) {
      yield { name: `h.${layer}.${name}`, shape, isTransposed, parameter, layer }
    }
  }
}
