// Fusions: rewrites of the list of calls that save a pass over memory. Ops stay simple; what a
// kernel can do on its way out is found here, by the shape of neighbouring calls.

import { assert } from "../errors.ts"
import { type Arg, type Call, isTensor, owner, type Tensor } from "./tensor.ts"

/** A call's arguments by position, as llm.h orders them. */
const MATMUL = { out: 0, pre: 1, residual: 5 } as const
const BACKWARD_INPUT = { dinp: 0, pre: 4, accumulateInp: 8 } as const
const BACKWARD_WEIGHT = { dbias: 1, dout: 2, accumulate: 8 } as const

/** Kernels that sum what they make, by the places of the sums and of how those are written. */
const SUMMING: Record<string, { sums: number; accumulate: number }> = {
  layernorm_backward: { sums: 3, accumulate: 12 },
  attention_backward: { sums: 1, accumulate: 11 },
  matmul_backward_input: { sums: 1, accumulate: 9 },
}

type Pair = (first: Call, second: Call, uses: Map<Tensor, number>) => Call | undefined

/** gelu(matmul): the product keeps the sum, which the gradient needs, and writes its GELU too. */
const matmulGelu: Pair = (first, second) => {
  if (first.kernel !== "matmul_forward" || second.kernel !== "gelu_forward") return
  const [out, inp] = second.args
  if (inp !== first.args[MATMUL.out] || first.args[MATMUL.residual] !== null) return
  return withArgs(first, { [MATMUL.out]: out!, [MATMUL.pre]: inp! })
}

/** a + matmul: the product adds the residual to its result. */
const matmulResidual: Pair = (first, second, uses) => {
  if (first.kernel !== "matmul_forward" || second.kernel !== "add_forward") return
  const [out, a, b] = second.args
  const product = first.args[MATMUL.out] as Tensor
  const isUsedElsewhere = uses.get(product)! > 2
  if (b !== product || isUsedElsewhere || first.args[MATMUL.residual] !== null) return
  return withArgs(first, { [MATMUL.out]: out!, [MATMUL.residual]: a! })
}

/** gelu' after the gradient of the product that used the GELU: one pass writes the final gradient. */
const backwardGelu: Pair = (first, second, uses) => {
  if (first.kernel !== "matmul_backward_input" || second.kernel !== "gelu_backward") return
  const [dinp, dout, inp] = second.args
  const isUsedElsewhere = uses.get(dout as Tensor)! > 2
  if (dout !== first.args[BACKWARD_INPUT.dinp] || isUsedElsewhere) return
  if (first.args[BACKWARD_INPUT.accumulateInp] !== 0) return
  return withArgs(first, { [BACKWARD_INPUT.dinp]: dinp!, [BACKWARD_INPUT.pre]: inp! })
}

/** Where GELUs join products: nowhere (0), in the forward pass (1), in the backward pass too (2). */
export type GeluFusion = 0 | 1 | 2

/** Rewrites neighbouring calls while one of the fusions fits. `all` are the calls of the whole
 * program, which tell whether a tensor that would vanish is used elsewhere. */
export function fusePairs(calls: Call[], all: Call[] = calls, geluFusion: GeluFusion = 2): Call[] {
  const uses = countUses(all)
  const pairs = [matmulResidual, ...[matmulGelu, backwardGelu].slice(0, geluFusion)]
  const fused: Call[] = []
  for (const call of calls) {
    const last = fused.at(-1)
    const pair = last && pairs.map((f) => f(last, call, uses)).find(Boolean)
    if (pair) fused[fused.length - 1] = pair
    else fused.push(call)
  }
  return fused
}

/** The classifier's loss and gradient in one pass, in place over the logits: the gradient's tensor
 * vanishes. Returns both lists, rewritten. */
export function fuseClassifier(forward: Call[], backward: Call[]): [Call[], Call[]] {
  const loss = forward.find((call) => call.kernel === "classifier_forward")
  const gradient = backward.find((call) => call.kernel === "classifier_backward")
  if (!loss || !gradient) return [forward, backward]
  const [losses, logits, targets] = loss.args as [Tensor, Tensor, Tensor]
  const [dlogits, sameLogits] = gradient.args as [Tensor, Tensor]
  assert(sameLogits === logits, "the classifier's gradient is of other logits")
  // In place: whoever else reads the logits would find their gradient.
  if (countUses([...forward, ...backward]).get(logits)! > 3) return [forward, backward]
  const [N, V, Vp, scale] = gradient.args.slice(3) as number[]
  const fused: Call = {
    kernel: "classifier_fused",
    args: [losses, logits, targets, N!, V!, Vp!, scale!],
  }
  return [
    forward.map((call) => (call === loss ? fused : call)),
    backward.filter((call) => call !== gradient).map((call) => substitute(call, dlogits, logits)),
  ]
}

/** A call that makes a product's dout, and sums it for the bias too; undefined where it cannot. */
function summing(maker: Call, product: Call): Call | undefined {
  const place = SUMMING[maker.kernel]
  const dbias = product.args[BACKWARD_WEIGHT.dbias]!
  if (product.kernel !== "matmul_backward_weight" || !place || dbias === null) return
  if (maker.args[place.sums] !== null) return
  if (maker.args[place.accumulate] !== product.args[BACKWARD_WEIGHT.accumulate]) return
  return withArgs(maker, { [place.sums]: dbias })
}

/** The gradients of biases, summed where what they are sums of is made, instead of read again. For a GPU:
 * the products of a CPU sum them on their way, as they pack what they read. */
export function fuseBiases(backward: Call[]): Call[] {
  const calls = [...backward]
  const makers = new Map<Arg, number>() // of each gradient, the last call so far to write it
  for (const [i, call] of backward.entries()) {
    const at = makers.get(call.args[BACKWARD_WEIGHT.dout]!)
    const maker = at !== undefined && summing(calls[at]!, call)
    if (maker) {
      calls[at] = maker
      calls[i] = withArgs(call, { [BACKWARD_WEIGHT.dbias]: null })
    }
    makers.set(call.args[0]!, i)
  }
  return calls
}

function countUses(calls: Call[]): Map<Tensor, number> {
  const uses = new Map<Tensor, number>()
  for (const arg of calls.flatMap((call) => call.args)) {
    if (isTensor(arg)) uses.set(owner(arg), (uses.get(owner(arg)) ?? 0) + 1)
  }
  return uses
}

function withArgs(call: Call, changes: Record<number, Arg>): Call {
  return { ...call, args: call.args.map((arg, i) => (i in changes ? changes[i]! : arg)) }
}

/** The call with another tensor in one's place. */
export function substitute(call: Call, from: Tensor, to: Tensor): Call {
  return { ...call, args: call.args.map((arg) => (arg === from ? to : arg)) }
}
