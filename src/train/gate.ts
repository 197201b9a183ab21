// A checkpoint is written while the next step runs. Weights and moments only change when a step's
// update begins; until then the writing thread takes them from where they lie. What it has not written
// by then is copied, so that the update need not wait for the disk: as much as the snapshot has room
// for, which is the size of the weights; for more than that the update does wait.
//
// The numbers are cut into pieces, which are written in order. One lock decides whose turn it is.

import { borrow, type Span } from "../native/borrow.ts"

const LOCK = 0
const WANTED = 1 // the trainer waits for the lock: the writer lets it in first
const WRITTEN = 2 // pieces
const COPIED = 3 // the first piece that is to be taken from the snapshot, or NONE
const WORDS = 4
const NONE = -1

/** What both threads know. Plain data, apart from the shared words. */
export type Shared = { pieces: Span[]; snapshot?: Span | undefined; words: Int32Array }

const PIECE = 2 ** 22 // bytes

/** Spans of memory as pieces. */
export function cut(spans: Span[]): Span[] {
  return spans.flatMap(({ address, bytes }) =>
    Array.from({ length: Math.ceil(bytes / PIECE) }, (_, i) => ({
      address: address + i * PIECE,
      bytes: Math.min(PIECE, bytes - i * PIECE),
    })),
  )
}

export function share(pieces: Span[], snapshot?: Span): Shared {
  const words = new Int32Array(new SharedArrayBuffer(4 * WORDS))
  words[COPIED] = NONE
  return { pieces, snapshot, words }
}

const sizeOf = (pieces: Span[]) => pieces.reduce((sum, { bytes }) => sum + bytes, 0)

/** The trainer's side, before weights or moments change. Returns when they may. */
export function secure({ pieces, snapshot, words }: Shared): void {
  if (Atomics.load(words, COPIED) !== NONE) return
  for (;;) {
    const written = Atomics.load(words, WRITTEN)
    if (sizeOf(pieces.slice(written)) <= (snapshot?.bytes ?? 0)) break
    Atomics.wait(words, WRITTEN, written)
  }
  Atomics.store(words, WANTED, 1)
  lock(words)
  const written = Atomics.load(words, WRITTEN)
  let at = 0
  for (const piece of pieces.slice(written)) {
    copyOf(snapshot!, at, piece.bytes).set(borrow(piece))
    at += piece.bytes
  }
  Atomics.store(words, COPIED, written)
  Atomics.store(words, WANTED, 0)
  Atomics.notify(words, WANTED)
  unlock(words)
}

/** The writer's side: the bytes of the pieces from number `first` up to `end`, each of which stays as
 * it is until the next is asked for. */
export function* take(
  { pieces, snapshot, words }: Shared,
  first: number,
  end: number,
): Generator<Uint8Array, void> {
  for (let i = first; i < end; i++) {
    const piece = pieces[i]!
    Atomics.wait(words, WANTED, 1)
    lock(words)
    try {
      const copied = Atomics.load(words, COPIED)
      const isCopied = copied !== NONE && i >= copied
      yield isCopied
        ? copyOf(snapshot!, sizeOf(pieces.slice(copied, i)), piece.bytes)
        : borrow(piece)
    } finally {
      Atomics.store(words, WRITTEN, i + 1)
      Atomics.notify(words, WRITTEN)
      unlock(words)
    }
  }
}

/** The writer's side, when it writes no more, for whatever reason. */
export function release({ pieces, words }: Shared): void {
  Atomics.store(words, WRITTEN, pieces.length)
  Atomics.notify(words, WRITTEN)
}

const copyOf = ({ address }: Span, at: number, bytes: number) =>
  borrow({ address: address + at, bytes })

function lock(words: Int32Array): void {
  while (Atomics.compareExchange(words, LOCK, 0, 1) !== 0) Atomics.wait(words, LOCK, 1)
}

function unlock(words: Int32Array): void {
  Atomics.store(words, LOCK, 0)
  Atomics.notify(words, LOCK)
}
