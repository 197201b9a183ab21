// The arena planner: a pure function from (bytes, first use, last use) to offsets. Blocks whose
// lifetimes do not meet share bytes.
//
// Packing intervals optimally is NP-hard (dynamic storage allocation). Greedy placement, each block
// into the lowest gap among those alive with it, comes within a few percent of the lower bound when
// large blocks go first; which notion of "large" wins depends on the program, so several are tried.

import { assert } from "../errors.ts"

export const ALIGN = 128 // bytes: one GPU cache line, two AVX-512 vectors

export interface Block {
  bytes: number
  /** Indices of the first and last call that use it, both inclusive. */
  first: number
  last: number
}

export interface Plan {
  /** Byte offset of each block, in the order given. */
  offsets: number[]
  /** Bytes of the whole arena. */
  peak: number
  /** The most bytes alive at one call, alignment included: no plan can need less. */
  lowerBound: number
}

const align = (bytes: number) => Math.ceil(bytes / ALIGN) * ALIGN

/** Places all blocks. */
export function planArena(blocks: Block[]): Plan {
  for (const { bytes, first, last } of blocks) {
    assert(Number.isSafeInteger(bytes) && bytes > 0, `a block of ${bytes} bytes`)
    assert(first <= last, `a block alive from ${first} to ${last}`)
  }
  const lowerBound = mostAlive(blocks)
  const span = ({ first, last }: Block) => last - first
  const orders: ((a: Block, b: Block) => number)[] = [
    (a, b) => b.bytes - a.bytes || span(b) - span(a),
    (a, b) => span(b) - span(a) || b.bytes - a.bytes,
    (a, b) => b.bytes * (span(b) + 1) - a.bytes * (span(a) + 1),
  ]
  let best: Plan | undefined
  for (const order of orders) {
    const plan = { ...place(blocks, order), lowerBound }
    if (!best || plan.peak < best.peak) best = plan
    if (best.peak === lowerBound) break
  }
  return best!
}

function mostAlive(blocks: Block[]): number {
  const change = new Map<number, number>()
  const add = (at: number, bytes: number) => change.set(at, (change.get(at) ?? 0) + bytes)
  for (const { bytes, first, last } of blocks) {
    add(first, align(bytes))
    add(last + 1, -align(bytes))
  }
  let alive = 0
  let most = 0
  for (const at of [...change.keys()].sort((a, b) => a - b)) {
    alive += change.get(at)!
    most = Math.max(most, alive)
  }
  return most
}

function place(blocks: Block[], order: (a: Block, b: Block) => number) {
  const offsets = new Array<number>(blocks.length)
  const placed: Placed[] = [] // by start
  let peak = 0
  const indices = blocks.map((_, i) => i)
  // Equal blocks keep their order, so that the plan is the same everywhere.
  indices.sort((i, j) => order(blocks[i]!, blocks[j]!) || i - j)
  for (const i of indices) {
    const block = blocks[i]!
    const bytes = align(block.bytes)
    const start = lowestGap(placed, block, bytes)
    offsets[i] = start
    const entry = { first: block.first, last: block.last, start, end: start + bytes }
    let at = placed.length
    while (at > 0 && placed[at - 1]!.start > start) at--
    placed.splice(at, 0, entry)
    peak = Math.max(peak, entry.end)
  }
  return { offsets, peak }
}

// Flat, as the search for gaps spends its time on these.
type Placed = Pick<Block, "first" | "last"> & { start: number; end: number }

/** The lowest start at which `bytes` fit between all blocks that are alive with this one. */
function lowestGap(placed: Placed[], { first, last }: Block, bytes: number): number {
  let start = 0
  for (const other of placed) {
    if (other.last < first || other.first > last) continue
    if (other.start - start >= bytes) break
    start = Math.max(start, other.end)
  }
  return start
}
