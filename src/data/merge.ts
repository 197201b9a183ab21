// Byte-pair merging for long pieces of text without a break, such as a line of ten thousand dashes.
// gpt-tokenizer looks through all pairs after every merge, which is quick for words and quadratic
// here; this keeps the pairs in a heap. Both merge the lowest rank first, the leftmost among equals.

import type { Vocabulary } from "./tokenizer.ts"

export type Ranks = Map<string, number>

/** Every token by its bytes, one character a byte. */
export function ranksByBytes(vocabulary: Vocabulary): Ranks {
  return new Map(
    vocabulary.map((token, rank) => [
      (typeof token === "string" ? Buffer.from(token, "utf8") : Buffer.from(token)).toString(
        "latin1",
      ),
      rank,
    ]),
  )
}

/** The tokens of one piece of text. */
export function mergePiece(piece: string, ranks: Ranks): number[] {
  return mergeBytes(Buffer.from(piece, "utf8").toString("latin1"), ranks)
}

/** The tokens of bytes, one character a byte. */
export function mergeBytes(bytes: string, ranks: Ranks): number[] {
  const n = bytes.length
  // Parts start at their first byte and end where the next part starts. A part that was merged into
  // the one on its left has next = 0.
  const next = Uint32Array.from({ length: n }, (_, i) => i + 1)
  const previous = Int32Array.from({ length: n + 1 }, (_, i) => i - 1)

  // A pair waits under rank·2³² + start, so that one comparison orders both. A pair whose parts have
  // changed since has another rank now and is passed over.
  const heap = new Heap()
  const rankAt = (start: number): number | undefined => {
    const middle = next[start]!
    return middle < n ? ranks.get(bytes.slice(start, next[middle])) : undefined
  }
  const push = (start: number): void => {
    const rank = rankAt(start)
    if (rank !== undefined) heap.push(rank * 2 ** 32 + start)
  }
  for (let i = 0; i + 1 < n; i++) push(i)

  while (true) {
    const key = heap.pop()
    if (key === undefined) break
    const start = key % 2 ** 32
    if (next[start] === 0 || rankAt(start) !== Math.floor(key / 2 ** 32)) continue
    const middle = next[start]!
    const end = next[middle]!
    next[start] = end
    next[middle] = 0
    previous[end] = start
    push(start)
    if (previous[start]! >= 0) push(previous[start]!)
  }

  const tokens: number[] = []
  for (let i = 0; i < n; i = next[i]!) tokens.push(ranks.get(bytes.slice(i, next[i]))!)
  return tokens
}

class Heap {
  private readonly keys: number[] = []

  push(key: number): void {
    const { keys } = this
    let i = keys.length
    keys.push(key)
    while (i > 0) {
      const parent = (i - 1) >> 1
      if (keys[parent]! <= key) break
      keys[i] = keys[parent]!
      i = parent
    }
    keys[i] = key
  }

  pop(): number | undefined {
    const { keys } = this
    const top = keys[0]
    const last = keys.pop()
    if (last === undefined || keys.length === 0) return top
    let i = 0
    while (true) {
      let child = 2 * i + 1
      if (child >= keys.length) break
      if (child + 1 < keys.length && keys[child + 1]! < keys[child]!) child++
      if (keys[child]! >= last) break
      keys[i] = keys[child]!
      i = child
    }
    keys[i] = last
    return top
  }
}
