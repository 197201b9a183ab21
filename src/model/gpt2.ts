// GPT-2 (Radford et al. 2019): the parameter table, and the forward pass as a list of ops.

import type { Graph } from "../program/graph.ts"
import * as ops from "../program/ops.ts"
import { layer, type Tensor } from "../program/tensor.ts"
import type { Config } from "./config.ts"

export interface ParameterSpec {
  name: string
  shape: number[]
  init: "zeros" | "ones" | "normal"
  /** Standard deviation of a normal init. */
  std?: number
  /** AdamW decays matrices, and neither biases nor norms. */
  decay: boolean
}

/** All parameters in llm.c's order, stacked over layers. Linear weights are (out, in). */
export function parameterTable({ Vp, maxT, L, C }: Config): ParameterSpec[] {
  const std = 0.02
  const residualStd = std / Math.sqrt(2 * L) // keeps the residual stream's variance flat with depth
  const matrix = (name: string, shape: number[], s = std): ParameterSpec => {
    return { name, shape, init: "normal", std: s, decay: true }
  }
  const vector = (name: string, shape: number[], init: "zeros" | "ones"): ParameterSpec => {
    return { name, shape, init, decay: false }
  }
  return [
    matrix("wte", [Vp, C]),
    matrix("wpe", [maxT, C]),
    vector("ln1w", [L, C], "ones"),
    vector("ln1b", [L, C], "zeros"),
    matrix("qkvw", [L, 3 * C, C]),
    vector("qkvb", [L, 3 * C], "zeros"),
    matrix("attprojw", [L, C, C], residualStd),
    vector("attprojb", [L, C], "zeros"),
    vector("ln2w", [L, C], "ones"),
    vector("ln2b", [L, C], "zeros"),
    matrix("fcw", [L, 4 * C, C]),
    vector("fcb", [L, 4 * C], "zeros"),
    matrix("fcprojw", [L, C, 4 * C], residualStd),
    vector("fcprojb", [L, C], "zeros"),
    vector("lnfw", [C], "ones"),
    vector("lnfb", [C], "zeros"),
  ]
}

export type Parameters = Record<string, Tensor>
export type F32Parameters = Record<string, Tensor & { dtype: "f32" }>

/** logits (B,T,Vp) of tokens (B,T). `attend` is the attention of layer l over qkv (B,T,3C);
 * `positions` (B) the places of the first tokens, or null for zeros. */
export function forward(
  g: Graph,
  p: Parameters,
  { L }: Config,
  tokens: Tensor,
  positions: Tensor | null,
  attend: (l: number, name: string, qkv: Tensor) => ops.Op,
): Tensor {
  const block = (l: number, inp: Tensor): Tensor => {
    const w = (name: string) => layer(p[name]!, l)
    const at = (name: string) => `h${l}.${name}`

    const ln1 = g.run(ops.layernorm(g, at("ln1"), [inp, w("ln1w"), w("ln1b")]))
    const qkv = g.run(ops.matmul(g, at("qkv"), [ln1, w("qkvw"), w("qkvb")]))
    const atty = g.run(attend(l, at("atty"), qkv))
    const attproj = g.run(ops.matmul(g, at("attproj"), [atty, w("attprojw"), w("attprojb")]))
    const x = g.run(ops.add(g, at("residual2"), [inp, attproj]))

    const ln2 = g.run(ops.layernorm(g, at("ln2"), [x, w("ln2w"), w("ln2b")]))
    const fch = g.run(ops.matmul(g, at("fch"), [ln2, w("fcw"), w("fcb")]))
    const fchGelu = g.run(ops.gelu(g, at("fch_gelu"), [fch]))
    const fcproj = g.run(ops.matmul(g, at("fcproj"), [fchGelu, w("fcprojw"), w("fcprojb")]))
    return g.run(ops.add(g, at("residual3"), [x, fcproj]))
  }

  let x = g.run(ops.embedding(g, "encoded", [tokens, p.wte!, p.wpe!, positions]))
  for (let l = 0; l < L; l++) x = g.block(() => block(l, x))
  const lnf = g.run(ops.layernorm(g, "lnf", [x, p.lnfw!, p.lnfb!]))
  return g.run(ops.matmul(g, "logits", [lnf, p.wte!, null])) // tied: the embedding is the classifier
}
