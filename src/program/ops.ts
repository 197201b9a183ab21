// Every op, declared once: its shape rule, its forward call, and the calls that compute its
// gradients. A model is a list of op calls; graph.ts reverses that list.

import { ACCUMULATE, type Backward, type Graph } from "./graph.ts"
import type { Call, Tensor } from "./tensor.ts"
import { elements } from "./tensor.ts"

export interface Op {
  forward: Call[]
  /** The tensor that later ops use, or none for an op that ends the graph. */
  out: Tensor
  /** Calls that turn the gradient of `out` into those of the inputs; undefined: not differentiable. */
  backward?: (d: Backward) => Call[]
}

const LAYERNORM_EPS = 1e-5

/** Rows and width of a tensor seen as a matrix. */
function matrix(tensor: Tensor): [N: number, C: number] {
  const C = tensor.shape.at(-1)!
  return [elements(tensor) / C, C]
}

// Room that the matrix products of llm.h ask for: LLM_MATMUL_SCRATCH. A GPU's have their own.
const matmulScratch = (N: number, C: number) => Math.ceil(N / 64) * 64 * C

/** out (B,T,C) = wte[tokens] + wpe[positions + t]; positions (B), or null for zeros. */
export function embedding(
  g: Graph,
  name: string,
  [tokens, wte, wpe, positions]: [Tensor, Tensor, Tensor, Tensor | null],
): Op {
  const [B, T] = tokens.shape as [number, number]
  const [Vp, C] = wte.shape as [number, number]
  const maxT = wpe.shape[0]!
  const out = g.activation(name, [B, T, C])
  return {
    forward: [{ kernel: "embedding_forward", args: [out, tokens, wte, wpe, positions, B, T, C] }],
    out,
    backward: (d) => {
      const [dwte, dwpe] = [d.into(wte), d.into(wpe)]
      const args = [dwte.tensor, dwpe.tensor, d.of(out), tokens, B, T, C, Vp, maxT]
      const accumulate = [dwte.accumulate, dwpe.accumulate]
      return [{ kernel: "embedding_backward", args: [...args, ...accumulate] }]
    },
  }
}

/** out (…,C) = layer normalisation of inp over C. */
export function layernorm(
  g: Graph,
  name: string,
  [inp, weight, bias]: [Tensor, Tensor, Tensor],
): Op {
  const [N, C] = matrix(inp)
  const out = g.activation(name, inp.shape)
  const mean = g.statistic(`${name}.mean`, [N])
  const rstd = g.statistic(`${name}.rstd`, [N])
  return {
    forward: [
      {
        kernel: "layernorm_forward",
        args: [out, mean, rstd, inp, weight, bias, N, C, LAYERNORM_EPS],
      },
    ],
    out,
    backward: (d) => {
      const dout = d.of(out)
      const [dinp, dweight, dbias] = [d.into(inp), d.into(weight), d.into(bias)]
      const outputs = [dinp.tensor, dweight.tensor, dbias.tensor, null]
      const inputs = [dout, inp, weight, mean, rstd]
      const options = [dinp.accumulate, dweight.accumulate]
      return [{ kernel: "layernorm_backward", args: [...outputs, ...inputs, N, C, ...options] }]
    },
  }
}

/** out (…,OC) = inp (…,C) · weight (OC,C)ᵀ + bias. */
export function matmul(
  g: Graph,
  name: string,
  [inp, weight, bias]: [Tensor, Tensor, Tensor | null],
): Op {
  const [N, C] = matrix(inp)
  const OC = weight.shape[0]!
  const out = g.activation(name, [...inp.shape.slice(0, -1), OC])
  const scratch = () => g.cpuScratch(`${name}.packed`, [matmulScratch(N, C)])
  return {
    forward: [
      {
        kernel: "matmul_forward",
        args: [out, null, inp, weight, bias, null, scratch(), N, C, OC],
      },
    ],
    out,
    // The input's gradient comes last: a GELU before this product can then be fused into it.
    backward: (d) => {
      const dout = d.of(out)
      const dweight = d.into(weight)
      const dbias = bias ? d.into(bias).tensor : null
      const dinp = d.into(inp)
      const toWeight = [dweight.tensor, dbias, dout, inp, scratch(), N, C, OC]
      return [
        { kernel: "matmul_backward_weight", args: [...toWeight, dweight.accumulate] },
        {
          kernel: "matmul_backward_input",
          args: [dinp.tensor, null, dout, weight, null, N, C, OC, dinp.accumulate, ACCUMULATE],
        },
      ]
    },
  }
}

/** out = gelu(inp). */
export function gelu(g: Graph, name: string, [inp]: [Tensor]): Op {
  const n = elements(inp)
  const out = g.activation(name, inp.shape)
  return {
    forward: [{ kernel: "gelu_forward", args: [out, inp, n] }],
    out,
    backward: (d) => {
      const dout = d.of(out)
      return [{ kernel: "gelu_backward", args: [d.fresh(inp), dout, inp, n] }]
    },
  }
}

/** out = a + b. The gradient of the sum is that of both terms: no call, one tensor with two names. */
export function add(g: Graph, name: string, [a, b]: [Tensor, Tensor]): Op {
  const out = g.activation(name, a.shape)
  return {
    forward: [{ kernel: "add_forward", args: [out, a, b, elements(a)] }],
    out,
    backward: (d) => {
      d.pass(out, a)
      d.pass(out, b)
      return []
    },
  }
}

/** out (B,T,C) = causal attention of qkv (B,T,3C) with NH heads. */
export function attention(g: Graph, name: string, [qkv]: [Tensor], NH: number): Op {
  const [B, T, C3] = qkv.shape as [number, number, number]
  const C = C3 / 3
  const out = g.activation(name, [B, T, C])
  const lse = g.statistic(`${name}.lse`, [B, NH, T])
  return {
    forward: [{ kernel: "attention_forward", args: [out, lse, qkv, B, T, C, NH] }],
    out,
    backward: (d) => {
      const scratch = g.scratch(`${name}.scratch`, [B, T, NH + (qkv.dtype === "bf16" ? 2 * C : 0)])
      const inputs = [d.of(out), qkv, out, lse, scratch]
      const args = [d.fresh(qkv), null, ...inputs, B, T, C, NH, ACCUMULATE]
      return [{ kernel: "attention_backward", args }]
    },
  }
}

/** out (B,T,C) = attention of new tokens' qkv (B,T,3C) over each other and over the cached rows
 * before positions (B). The caches are (B,maxT,C). */
export function attentionDecode(
  g: Graph,
  name: string,
  [kcache, vcache, qkv, positions]: [Tensor, Tensor, Tensor, Tensor],
  NH: number,
): Op {
  const [, maxT, C] = kcache.shape as [number, number, number]
  const [B, T] = qkv.shape as [number, number]
  const out = g.activation(name, [B, T, C])
  const scratch = g.scratch(`${name}.scores`, [B, NH, maxT])
  const args = [out, kcache, vcache, qkv, positions, scratch, B, T, C, NH, maxT]
  return { forward: [{ kernel: "attention_decode", args }], out }
}

/** losses (B,T) = cross-entropy of logits (B,T,Vp), over the first V columns, with targets (B,T).
 * The gradient of `scale` times the sum of all losses is what flows back. */
export function classifier(
  g: Graph,
  name: string,
  [logits, targets]: [Tensor, Tensor],
  V: number,
  scale: number,
): Op {
  const [N, Vp] = matrix(logits)
  const out = g.statistic(name, targets.shape)
  return {
    forward: [{ kernel: "classifier_forward", args: [out, logits, targets, N, V, Vp] }],
    out,
    backward: (d) => [
      {
        kernel: "classifier_backward",
        args: [d.fresh(logits), logits, targets, N, V, Vp, scale],
      },
    ],
  }
}
