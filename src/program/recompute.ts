// Activation recompute (checkpointing): a rewrite of the backward list for when memory is short. What
// the backward pass reads is otherwise kept from the forward pass on. Here it is made again, in a
// tensor of its own, by a copy of the call that made it, just before its first reader. The first
// one's life then ends in the forward pass, and the planner gives its bytes to others. The same call
// on the same inputs gives the same bits.

import { type Arg, type Call, isTensor, type Tensor } from "./tensor.ts"

/** What is made again: nothing, GELUs, norms as well, or all that a block makes of its input. */
export const RECOMPUTE = ["0", "1", "2", "block"] as const
export type Recompute = (typeof RECOMPUTE)[number]

// Few operations for many bytes; what feeds them is kept for their own gradients.
const CHEAP: Record<Exclude<Recompute, "block">, string[]> = {
  "0": [],
  "1": ["gelu_forward"],
  "2": ["gelu_forward", "layernorm_forward"],
}

/** The backward list, rewritten. `inner` are the calls of the forward list whose results stay within
 * their block (graph.ts). What lies between blocks is kept, and so is what follows the last one: it
 * is read again at once. Both lists are those of the ops, before any fusion: a GELU is then a call of
 * its own, which can be repeated without its product, and copies are fused as their originals are. */
export function recompute(
  forward: Call[],
  backward: Call[],
  inner: Set<Call>,
  mode: Recompute,
): Call[] {
  const makers = makersOf(forward)
  const isRepeated = (call: Call) =>
    inner.has(call) && (mode === "block" || CHEAP[mode].includes(call.kernel))
  const again = new Map<Tensor, Tensor>()
  const calls: Call[] = []

  const read = (arg: Arg): Arg => {
    const maker = isTensor(arg) && makers.get(arg)
    if (!maker || !isRepeated(maker)) return arg
    if (!again.has(arg)) repeat(maker)
    return again.get(arg)!
  }
  // All that the call writes is new, statistics and scratch too: none of it then lives in between.
  const repeat = (call: Call) => {
    const made = call.args.filter((arg) => isTensor(arg) && makers.get(arg) === call) as Tensor[]
    for (const tensor of made) again.set(tensor, { ...tensor, name: `${tensor.name}'` })
    calls.push({ ...call, args: call.args.map(read) }) // behind those that make its inputs again
  }
  for (const call of backward) calls.push({ ...call, args: call.args.map(read) })
  return calls
}

/** The call that makes each tensor: the first to name it, as none is read before it is written. */
function makersOf(calls: Call[]): Map<Tensor, Call> {
  const makers = new Map<Tensor, Call>()
  for (const call of calls) {
    for (const arg of call.args) {
      const isMade = isTensor(arg) && (arg.role === "activation" || arg.role === "scratch")
      if (isMade && !makers.has(arg)) makers.set(arg, call)
    }
  }
  return makers
}
