// llm.c's optimizer state, beside the model file of the same step: AdamW's moments, the master weights,
// the place in the data. What an exact resume needs beyond that stands in header words that llm.c
// leaves at 0, and behind the last byte that it reads:
//
//   34–35 epoch (u64)      36–37 sequence of the shard      38–39 tokens of the training data
//   40–41 T      42, 43 losses and norms in the windows that follow, f64 each
//   44–45 hash of the training data      47 numbers of what products in eight bits know of their
//                                           tensors' numbers (slots of llm.h), f64 each; 46 was
//                                           theirs when a slot began with its scale
//
// In place of llm.c's generators stand the numbers that ours are made from: the seed, and for the order
// of the data the epoch too. llm.c can go on from such a state where the data stand in sequence, but not
// where they are shuffled: its order is one of batches.

import type { LoaderPosition } from "../data/loader.ts"
import { assert } from "../errors.ts"
import type { Config } from "../model/config.ts"
import { checkFinite } from "./finite.ts"
import { BinaryFile, bytesOf, HEADER_BYTES, type Kind } from "./header.ts"
import { countParameters } from "./model.ts"

const MAGIC = 20240527
const VERSION = 1
const KIND: Kind = {
  magic: MAGIC,
  versions: { [VERSION]: "f32 moments" },
  hint: "give the state that llm wrote beside the model",
}
export const WINDOW = 128 // steps over which outliers are judged

/** What a run is in the middle of, beside its weights and moments. */
export type RunState = {
  /** Updates that were made. */
  step: number
  seed: number
  position: LoaderPosition
  /** Tokens of the training data, all files together: another number means other data. */
  dataTokens: number
  /** A hash of them. */
  dataSum: bigint
  /** Tokens of a sequence, by which the position counts. */
  T: number
  /** In force at this position; undefined when the data are read as they stand. */
  orders?: { shards: Uint32Array; sequences: Uint32Array } | undefined
  /** The losses and gradient norms of the last steps, at most WINDOW, the newest last. */
  losses: number[]
  norms: number[]
  /** What products in eight bits know of their tensors' numbers, as llm.h's slots; none without them. */
  slots: number[]
}

/** The sections of f32 numbers, each all of the model's parameters in the model file's order. */
export const sectionsOf = (hasMasters: boolean) =>
  hasMasters ? (["m", "v", "master"] as const) : (["m", "v"] as const)

type Pieces = Iterable<Float32Array>

const U64 = 2 ** 32

const words = (value: number) => [value >>> 0, Math.floor(value / U64)]

/** What stands in the file before its f32 sections and after them. llm.c counts batches of B. */
export function stateParts(
  { step, seed, position, dataTokens, dataSum, T, orders, losses, norms, slots }: RunState,
  hasMasters: boolean,
  B: number,
): { head: Uint8Array; tail: Uint8Array } {
  assert(losses.length <= WINDOW && norms.length <= WINDOW, "a window that is too long")
  const header = new Int32Array(HEADER_BYTES / 4)
  header.set([MAGIC, VERSION, 1, 0, hasMasters ? 1 : 0, orders ? 1 : 0])
  header[10] = step
  const { epoch, shard, sequence } = position
  const sample = Math.floor(sequence / B)
  header.set([...words(seed), ...words(seed)], 20)
  header.set([shard, sample, epoch, sequence, dataTokens, T].flatMap(words), 30)
  header.set([losses.length, norms.length], 42)
  header.set(new Int32Array(BigUint64Array.of(dataSum).buffer), 44)
  header[47] = slots.length

  const parts: Uint8Array[] = []
  if (orders) {
    const count = (n: number) => bytesOf(Int32Array.from(words(n)))
    for (const order of [orders.shards, orders.sequences]) {
      parts.push(count(order.length), bytesOf(Int32Array.from(order)))
    }
    parts.push(count(seed), count(epoch))
  }
  parts.push(new Uint8Array(Float64Array.from([...losses, ...norms, ...slots]).buffer))
  return { head: bytesOf(header), tail: new Uint8Array(Buffer.concat(parts)) }
}

/** The sizes of all parts. */
export function stateBytes(config: Config, hasMasters: boolean, tail: number): number {
  return HEADER_BYTES + sectionsOf(hasMasters).length * 4 * countParameters(config) + tail
}

/** Reads a state of a model with this configuration, and fills the sections: each in the pieces of its
 * memory, one before the next is asked for. Throws a UserError for a file that is not whole, or holds what no run can be in. */
export function readState(
  path: string,
  config: Config,
  sections: { m: Pieces; v: Pieces; master?: Pieces | undefined },
): RunState {
  return BinaryFile.with(path, KIND, (file) => {
    const { header } = file
    const u64 = (at: number, what: string) => {
      const value = (header[at]! >>> 0) + U64 * (header[at + 1]! >>> 0)
      if (Number.isSafeInteger(value)) return value
      throw file.wrong(`its header's ${what} is above 2⁵³`, KIND.hint)
    }
    const [, , ranks = 0, rank = 0, masters = 0, shuffled = 0] = header
    if (ranks !== 1 || rank !== 0) {
      throw file.wrong(`rank ${rank} of ${ranks}, but this run has 1`, KIND.hint)
    }
    const flags = { "master weights": masters, shuffled }
    for (const [name, value] of Object.entries(flags)) {
      if (value !== 0 && value !== 1) {
        throw file.wrong(`its header says ${value} for ${name}, not 0 or 1`, KIND.hint)
      }
    }
    const hasMasters = masters === 1
    if (hasMasters !== (sections.master !== undefined)) {
      const [has, wants] = hasMasters ? ["", "keeps none"] : ["no ", "needs them"]
      throw file.wrong(
        `${has}master weights, but this run ${wants}`,
        "resume with the same --precision and --master-weights",
      )
    }
    const [step, lossCount, normCount] = [header[10]!, header[42]!, header[43]!]
    const slotCount = header[47]!
    if (header[46] !== 0) {
      throw file.wrong(
        "what it knows of tensors in eight bits stands in another order",
        "resume with the llm that wrote it",
      )
    }
    const counts = { step, losses: lossCount, norms: normCount, slots: slotCount }
    for (const [name, value] of Object.entries(counts)) {
      const limit = { step: 2 ** 31 - 1, slots: 2 ** 24 }[name] ?? WINDOW
      if (value < 0 || value > limit) {
        throw file.wrong(`its header says ${value} for ${name}, not 0 to ${limit}`, KIND.hint)
      }
    }
    const seed = u64(20, "seed")
    const position = {
      epoch: u64(34, "epoch"),
      shard: u64(30, "shard"),
      sequence: u64(36, "sequence"),
    }
    const dataSum = new BigUint64Array(header.slice(44, 46).buffer)[0]!
    const [dataTokens, T] = [u64(38, "token count"), u64(40, "context")]
    if (u64(22, "seed") !== seed) throw file.wrong("its header has two seeds", KIND.hint)
    if (u64(32, "sample") > position.sequence) {
      throw file.wrong("its header's sample is past its sequence", KIND.hint)
    }

    let at = stateBytes(config, hasMasters, 0)
    const orders = shuffled === 1 ? readOrders(file, at, seed, position.epoch) : undefined
    if (orders) at += 32 + 4 * (orders.shards.length + orders.sequences.length)
    const promised = at + 8 * (lossCount + normCount + slotCount)
    file.checkBytes(promised, `the state of ${countParameters(config)} parameters`)

    let start = HEADER_BYTES
    for (const name of sectionsOf(hasMasters)) {
      for (const piece of sections[name]!) {
        file.read(bytesOf(piece), start)
        checkFinite(file, name, piece, 0, KIND.hint)
        if (name === "v" && piece.some((x) => x < 0)) {
          throw file.wrong("v, a mean of squares, holds a negative number", KIND.hint)
        }
        start += piece.byteLength
      }
    }
    const windows = new Float64Array(lossCount + normCount + slotCount)
    file.read(new Uint8Array(windows.buffer), at)
    if (!windows.every(Number.isFinite)) {
      throw file.wrong("a loss, norm or scale of its last steps is not finite", KIND.hint)
    }
    const part = (start: number, count: number) => [...windows.subarray(start, start + count)]
    const windowed = {
      losses: part(0, lossCount),
      norms: part(lossCount, normCount),
      slots: part(lossCount + normCount, slotCount),
    }
    return { step, seed, position, dataTokens, dataSum, T, orders, ...windowed }
  })
}

function readOrders(file: BinaryFile, start: number, seed: number, epoch: number) {
  let at = start
  const pair = () => {
    if (at + 8 > file.bytes)
      throw file.wrong("it ends within the order of the data", "copy it again")
    const bytes = new Uint32Array(2)
    file.read(new Uint8Array(bytes.buffer), at)
    at += 8
    return bytes[0]! + U64 * bytes[1]!
  }
  const order = (what: string) => {
    const count = pair()
    if (count > (file.bytes - at) / 4) {
      throw file.wrong(`its order of ${count} ${what} is longer than the file`, KIND.hint)
    }
    const indices = new Int32Array(count)
    file.read(bytesOf(indices), at)
    at += 4 * count
    const sorted = indices.toSorted()
    if (!sorted.every((value, i) => value === i)) {
      throw file.wrong(`its order of ${count} ${what} is no permutation`, KIND.hint)
    }
    return Uint32Array.from(indices)
  }
  const orders = { shards: order("shards"), sequences: order("sequences") }
  if (pair() !== seed || pair() !== epoch) {
    throw file.wrong("its order of the data is of another seed or epoch", KIND.hint)
  }
  return orders
}
