// GPT-2's parameters under the names that llama.cpp gives them (gguf-py's constants.py, arch gpt2).
// Its matrices are (out, in) as ours; dims are written the fastest first.

import type { Config } from "../model/config.ts"

export type GgufParameter = {
  /** Ours. */
  name: string
  /** The tensors of its layers, one after the other; a single one where it is no stack. */
  tensors: string[]
  /** Of each of them. */
  dims: number[]
  /** Always in f32: vectors, and the positions, as llama.cpp's converter does. */
  isWide: boolean
}

/** All parameters, in the order of the parameter table. wte has no padding rows here. */
export function ggufTable({ V, maxT, L, C }: Omit<Config, "Vp" | "NH">): GgufParameter[] {
  const one = (name: string, tensor: string, ...dims: number[]): GgufParameter => {
    return { name, tensors: [tensor], dims, isWide: dims.length === 1 || name === "wpe" }
  }
  const stack = (name: string, tensor: string, ...dims: number[]): GgufParameter => {
    const tensors = Array.from({ length: L }, (_, l) => `blk.${l}.${tensor}`)
    return { name, tensors, dims, isWide: dims.length === 1 }
  }
  return [
    one("wte", "token_embd.weight", C, V),
    one("wpe", "position_embd.weight", C, maxT),
    stack("ln1w", "attn_norm.weight", C),
    stack("ln1b", "attn_norm.bias", C),
    stack("qkvw", "attn_qkv.weight", C, 3 * C),
    stack("qkvb", "attn_qkv.bias", 3 * C),
    stack("attprojw", "attn_output.weight", C, C),
    stack("attprojb", "attn_output.bias", C),
    stack("ln2w", "ffn_norm.weight", C),
    stack("ln2b", "ffn_norm.bias", C),
    stack("fcw", "ffn_up.weight", C, 4 * C),
    stack("fcb", "ffn_up.bias", 4 * C),
    stack("fcprojw", "ffn_down.weight", 4 * C, C),
    stack("fcprojb", "ffn_down.bias", C),
    one("lnfw", "output_norm.weight", C),
    one("lnfb", "output_norm.bias", C),
  ]
}
