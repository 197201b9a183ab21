// The classifier a few rows at a time: a rewrite of the list of calls for when memory is short. The
// logits of a whole batch are by far its largest activation (V times the rows), and each row of them
// is needed only from its product to its gradient's: so both happen here for one chunk of rows after
// the other, in the same memory.

import { assert } from "../errors.ts"
import type { Call, Tensor } from "./tensor.ts"

/** Chunks are a multiple of this: their views stay aligned in any type, and the products work on whole
 * blocks of rows. */
export const CHUNK_ALIGN = 384

/** A tensor seen as a matrix: `count` of its rows from `first` on. */
function rowsOf(tensor: Tensor, width: number, first: number, count: number): Tensor {
  const name = `${tensor.name}[${first}:${first + count}]`
  return { ...tensor, name, shape: [count, width], base: tensor, offset: first * width }
}

interface Head {
  product: Call
  classifier: Call
  N: number
  C: number
  Vp: number
}

/** The product that makes the logits, and what makes losses of them. */
function findHead(calls: Call[], kernel: string): Head {
  const classifier = calls.find((call) => call.kernel === kernel)
  const logits = classifier?.args[1]
  const product = calls.find((call) => call.args[0] === logits && call.kernel === "matmul_forward")
  assert(classifier && product, "the list ends with no classifier")
  const [N, C, Vp] = product.args.slice(7) as [number, number, number]
  return { product, classifier, N, C, Vp }
}

/** Calls for each chunk of the head's rows. `use` adds to what makes a chunk's losses. */
function chunks(
  { product, classifier, N, C, Vp }: Head,
  rows: number,
  use: (logits: Tensor, first: number, count: number) => Call[],
): Call[] {
  assert(rows % CHUNK_ALIGN === 0, `chunks of ${rows} rows`)
  const [whole, pre, inp, weight, bias, residual, scratch] = product.args as Tensor[]
  const few: Tensor = { ...whole!, shape: [rows, Vp] }
  const [losses, , targets] = classifier.args as Tensor[]
  const [V, , ...scale] = classifier.args.slice(4)
  return Array.from({ length: Math.ceil(N / rows) }, (_, i) => {
    const first = i * rows
    const count = Math.min(rows, N - first)
    const logits = rowsOf(few, Vp, 0, count)
    const args = [logits, pre!, rowsOf(inp!, C, first, count), weight!, bias!, residual!, scratch!]
    const sizes = [count, V!, Vp, ...scale]
    const ends = [losses!, targets!].map((tensor) => rowsOf(tensor, 1, first, count))
    return [
      { ...product, args: [...args, count, C, Vp] },
      { ...classifier, args: [ends[0]!, logits, ends[1]!, ...sizes] },
      ...use(logits, first, count),
    ]
  }).flat()
}

/** The lists of a training step, its classifier fused (fuse.ts). Losses are then made at the start of
 * the backward pass, with the gradients: `rows` rows of logits exist at once. */
export function chunkTraining(
  forward: Call[],
  backward: Call[],
  rows: number,
): [forward: Call[], backward: Call[]] {
  const head = findHead(forward, "classifier_fused")
  if (head.N <= rows) return [forward, backward]
  const [toWeight, toInput, ...others] = backward
  assert(
    toWeight?.kernel === "matmul_backward_weight" && toInput?.kernel === "matmul_backward_input",
    "the backward pass begins with other calls than the classifier's products",
  )
  const { C, Vp } = head
  const made = chunks(head, rows, (logits, first, count) => {
    const [dweight, dbias, , inp, scratch] = toWeight.args
    const [dinp, , , weight] = toInput.args
    const part = (tensor: Tensor) => rowsOf(tensor, C, first, count)
    const before = first === 0 ? toWeight.args[8]! : 1
    const weightArgs = [
      dweight!,
      dbias!,
      logits,
      part(inp as Tensor),
      scratch!,
      count,
      C,
      Vp,
      before,
    ]
    const inputArgs = [part(dinp as Tensor), null, logits, weight!, null, count, C, Vp, 0, 0]
    return [
      { ...toWeight, args: weightArgs },
      { ...toInput, args: inputArgs },
    ]
  })
  const at = forward.indexOf(head.product)
  const mean = forward.slice(forward.indexOf(head.classifier) + 1)
  return [forward.slice(0, at), [...made, ...mean, ...others]]
}

/** The list of an evaluation. */
export function chunkEvaluation(calls: Call[], rows: number): Call[] {
  const head = findHead(calls, "classifier_forward")
  if (head.N <= rows) return calls
  const at = calls.indexOf(head.product)
  const rest = calls.slice(calls.indexOf(head.classifier) + 1)
  return [...calls.slice(0, at), ...chunks(head, rows, () => []), ...rest]
}
