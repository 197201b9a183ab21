// From phases of calls to a memory plan: which tensors there are, how long each lives, where it lies.

import { type Plan, planArena } from "./arena.ts"
import { BYTES, elements, isTensor, owner, type Phase, type Tensor, tensorBytes } from "./tensor.ts"

export interface Placement {
  tensor: Tensor
  bytes: number
  offset: number
  /** Indices of the first and last call, counted over all phases in order. */
  first: number
  last: number
}

export interface MemoryPlan extends Plan {
  placements: Placement[]
}

/** Plans every tensor that the phases or `always` name. Phases follow one another in time: what is
 * not needed across them shares memory between them. */
export function planMemory(phases: Phase[], always: Tensor[]): MemoryPlan {
  const calls = phases.flatMap((phase) => phase.calls)
  const lives = new Map<Tensor, { first: number; last: number }>()
  const end = Math.max(0, calls.length - 1)
  for (const tensor of always) lives.set(tensor, { first: 0, last: end })

  let start = 0
  for (const phase of phases) {
    const phaseEnd = start + phase.calls.length - 1
    phase.calls.forEach((call, i) => {
      for (const arg of call.args.filter(isTensor)) {
        const tensor = owner(arg)
        const [from, to] = lifetime(tensor, { call: start + i, start, phaseEnd, end })
        const life = lives.get(tensor)
        if (!life) lives.set(tensor, { first: from, last: to })
        else life.last = Math.max(life.last, to)
      }
    })
    start += phase.calls.length
  }

  const tensors = [...lives.keys()]
  const blocks = tensors.map((tensor) => ({ bytes: tensorBytes(tensor), ...lives.get(tensor)! }))
  const plan = planArena(blocks)
  const placements = tensors.map((tensor, i) => {
    return { tensor, ...blocks[i]!, offset: plan.offsets[i]! }
  })
  return { ...plan, placements }
}

function lifetime(
  { role }: Tensor,
  at: { call: number; start: number; phaseEnd: number; end: number },
): [number, number] {
  if (role === "activation" || role === "scratch") return [at.call, at.call]
  if (role === "cache") return [at.start, at.phaseEnd]
  return [0, at.end]
}

/** Byte offset of any tensor, views included. */
export function offsetOf(tensor: Tensor, offsets: Map<Tensor, number>): number {
  const own = (tensor.offset ?? 0) * BYTES[tensor.dtype]
  return tensor.base ? offsetOf(tensor.base, offsets) + own : offsets.get(tensor)! + own
}

/** "name (2,3,4)" */
export function describe(tensor: Tensor): string {
  return `${tensor.name} (${elements(tensor) === 1 ? 1 : tensor.shape.join(",")})`
}
