// Every kernel of the contract at the sizes that it has in GPT-2 124M, B 4 and T 64; attention at
// T 1024 as well, and a product of a longer batch.

import type { Arguments } from "../src/bench/work.ts"

export interface Case {
  kernel: string
  /** Scalar arguments that give the shape, in the order of their printing. */
  sizes: Arguments
  /** Scalar arguments that are no part of the shape. */
  options?: Arguments
  /** Pointers that are NULL. */
  absent?: string[]
  /** What a product does besides. */
  fused?: string
  /** Sizes of the sample that the reference kernels get: they run some hundred times slower. */
  reference: Arguments
}

const C = 768
const NH = 12
const V = 50257
const Vp = 50304
const maxT = 1024
const [B, T] = [4, 64]
const N = B * T
const LONG_T = 1024
const PREFILL = 64

/** One of the model's linear layers, with what the training step fuses into its products. */
interface Layer {
  N: number
  OC: number
  C: number
  bias: boolean
  forward?: "GELU" | "residual"
  backward?: "GELU'"
}
const LAYERS: Layer[] = [
  { N, OC: 3 * C, C, bias: true },
  { N, OC: C, C, bias: true, forward: "residual" },
  { N, OC: 4 * C, C, bias: true, forward: "GELU" },
  { N, OC: C, C: 4 * C, bias: true, forward: "residual", backward: "GELU'" },
  { N, OC: Vp, C, bias: false },
  { N: 4 * LONG_T, OC: 3 * C, C, bias: true },
]

const ROWS = 4 // of the reference's sample
const UNASKED = ["sums"] // on a CPU products sum the gradients of all biases

function layerCase(
  { N, OC, C }: Layer,
  kernel: string,
  fused: Record<string, string | false>,
  options: Arguments = {},
): Case {
  const names = Object.keys(fused)
  return {
    kernel,
    sizes: { N, OC, C },
    options,
    absent: names.filter((name) => !fused[name]),
    fused: names.flatMap((name) => fused[name] || []).join(", "),
    reference: { N: OC === Vp ? 1 : ROWS, OC, C },
  }
}

function matmulForward(layer: Layer): Case {
  const { bias, forward } = layer
  return layerCase(layer, "matmul_forward", {
    bias: bias && "bias",
    pre: forward === "GELU" && forward,
    residual: forward === "residual" && forward,
  })
}

const matmulBackwardInput = (layer: Layer) =>
  layerCase(
    layer,
    "matmul_backward_input",
    { pre: layer.backward ?? false, sums: false },
    { accumulate_inp: 0, accumulate: 0 },
  )

const matmulBackwardWeight = (layer: Layer) =>
  layerCase(layer, "matmul_backward_weight", { dbias: layer.bias && "bias" }, { accumulate: 0 })

function attention(B: number, T: number): Case[] {
  const sizes = { B, T, C, NH }
  const reference = { B: 1, T: Math.min(T, 128), C, NH }
  const backward = { options: { accumulate: 0 }, absent: UNASKED }
  return [
    { kernel: "attention_forward", sizes, reference },
    { kernel: "attention_backward", sizes, ...backward, reference },
  ]
}

/** New tokens at the end of a full cache. */
function decode(T: number): Case {
  const sizes = { B: 1, T, C, NH, maxT }
  return { kernel: "attention_decode", sizes, reference: { ...sizes, T: 1 } }
}

function layernorm(kernel: string, options: Arguments, absent: string[] = []): Case {
  return { kernel, sizes: { N, C }, options, absent, reference: { N: 64, C } }
}

function classifier(kernel: string, options: Arguments = {}): Case {
  return { kernel, sizes: { N, V, Vp }, options, reference: { N: ROWS, V, Vp } }
}

function embedding(kernel: string, options: Arguments = {}): Case {
  const sizes = { B, T, C, Vp, maxT }
  return { kernel, sizes, options, absent: ["positions"], reference: sizes }
}

function flat(kernel: string, n: number, options: Arguments = {}): Case {
  return { kernel, sizes: { n }, options, reference: { n: Math.min(n, 2 ** 18) } }
}

const ADAMW = {
  ...{ beta1: 0.9, beta2: 0.95, eps: 1e-8, weight_decay: 0.1 },
  ...{ stochastic: 0, seed: 1, stream: 0 },
}

export const CASES: Case[] = [
  ...LAYERS.map(matmulForward),
  ...LAYERS.map(matmulBackwardInput),
  ...LAYERS.map(matmulBackwardWeight),
  ...attention(B, T),
  ...attention(1, LONG_T),
  decode(1),
  decode(PREFILL),
  layernorm("layernorm_forward", { eps: 1e-5 }),
  layernorm("layernorm_backward", { accumulate_inp: 1, accumulate: 0 }, UNASKED),
  classifier("classifier_forward"),
  classifier("classifier_backward", { scale: 1 / N }),
  classifier("classifier_fused", { scale: 1 / N }),
  embedding("embedding_forward"),
  embedding("embedding_backward", { accumulate_wte: 1, accumulate_wpe: 0 }),
  flat("gelu_forward", N * 4 * C),
  flat("gelu_backward", N * 4 * C),
  flat("add_forward", N * C),
  flat("mean_forward", N),
  flat("squared_norm", Vp * C),
  {
    kernel: "update_begin",
    sizes: { count: 16 }, // GPT-2's parameters, each stacked over the layers
    options: { beta1: 0.9, beta2: 0.95 },
    reference: { count: 16 },
  },
  flat("adamw_update", Vp * C, ADAMW),
  flat("bf16_round", 4 * C * C),
  flat("bf16_widen", Vp),
  { kernel: "rng_seed", sizes: { seed: 42 }, reference: { seed: 42 } },
  flat("normal_fill", 4 * C * C, { mean: 0, std: 0.02 }),
]
