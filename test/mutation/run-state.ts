// An optimizer state, with what an exact resume needs, of a model of so many parameters.

import { type RunState, readState, stateParts } from "../../src/formats/state.ts"
import type { Config } from "../../src/model/config.ts"
import type { Reader } from "./readers.ts"

const WHOLE: RunState = {
  step: 1000,
  seed: 42,
  position: { epoch: 1, shard: 2, sequence: 9 },
  dataTokens: 2 ** 33,
  dataSum: 2n ** 63n + 5n,
  T: 64,
  orders: {
    shards: Uint32Array.of(1, 0, 2),
    sequences: Uint32Array.from({ length: 40 }, (_, i) => (i * 7) % 40),
  },
  losses: [3.25, 3.5],
  norms: [1, 0.5, 2],
  slots: [0.5, 2],
}

function make(parameters: number, hasMasters: boolean, changes: Partial<RunState> = {}): Buffer {
  const { head, tail } = stateParts({ ...WHOLE, ...changes }, hasMasters, 4)
  const sections = Float32Array.from({ length: (hasMasters ? 3 : 2) * parameters }, (_, i) =>
    i < parameters || i >= 2 * parameters ? Math.sin(i) : (i % 5) / 3,
  )
  return Buffer.concat([head, Buffer.from(sections.buffer), tail])
}

function read(path: string, config: Config, parameters: number, hasMasters: boolean) {
  const sections = Array.from({ length: hasMasters ? 3 : 2 }, () => new Float32Array(parameters))
  const [m, v, master] = sections.map((section) => [section])
  const { orders, ...state } = readState(path, config, { m: m!, v: v!, master })
  const numbers = Buffer.concat(sections.map((section) => Buffer.from(section.buffer)))
  return {
    ...state,
    numbers: numbers.toString("hex"),
    ...(orders && { orders: [[...orders.shards], [...orders.sequences]] }),
  }
}

function expected(bytes: Buffer, parameters: number, hasMasters: boolean) {
  if (bytes.length < 1024) return undefined
  const word = (i: number) => bytes.readInt32LE(4 * i)
  const u64 = (i: number) => bytes.readBigUInt64LE(4 * i)
  if (word(0) !== 20240527 || word(1) !== 1 || word(2) !== 1 || word(3) !== 0) return undefined
  if (word(4) !== (hasMasters ? 1 : 0) || ![0, 1].includes(word(5)) || word(10) < 0)
    return undefined
  const longs = [20, 22, 30, 32, 34, 36, 38, 40].map(u64)
  if (longs.some((n) => n >= 1n << 53n)) return undefined
  const [seed, seedAgain, shard, sample, epoch, sequence, dataTokens, T] = longs.map(Number)
  const [lossCount, normCount] = [word(42), word(43)]
  if (seed !== seedAgain || sample! > sequence!) return undefined
  if ([lossCount, normCount].some((n) => n < 0 || n > 128)) return undefined
  const slotCount = word(47)
  if (word(46) !== 0 || slotCount < 0 || slotCount > 2 ** 24) return undefined

  const start = 1024 + (hasMasters ? 3 : 2) * 4 * parameters
  if (bytes.length < start) return undefined
  for (let at = 1024; at < start; at += 4) {
    const x = bytes.readFloatLE(at)
    const isV = at >= 1024 + 4 * parameters && at < 1024 + 8 * parameters
    if (!Number.isFinite(x) || (isV && x < 0)) return undefined
  }
  let at = start
  const orders: number[][] = []
  if (word(5) === 1) {
    for (let i = 0; i < 2; i++) {
      if (at + 8 > bytes.length) return undefined
      const count = bytes.readBigUInt64LE(at)
      at += 8
      if (count > BigInt(bytes.length - at) / 4n) return undefined
      const order = Array.from({ length: Number(count) }, (_, j) => bytes.readInt32LE(at + 4 * j))
      at += 4 * order.length
      if (order.toSorted((a, b) => a - b).some((x, j) => x !== j)) return undefined
      orders.push(order)
    }
    if (at + 16 > bytes.length) return undefined
    const isOwn =
      bytes.readBigUInt64LE(at) === BigInt(seed!) &&
      bytes.readBigUInt64LE(at + 8) === BigInt(epoch!)
    if (!isOwn) return undefined
    at += 16
  }
  const counted = lossCount + normCount + slotCount
  if (at + 8 * counted !== bytes.length) return undefined
  const window = Array.from({ length: counted }, (_, i) => bytes.readDoubleLE(at + 8 * i))
  if (!window.every(Number.isFinite)) return undefined
  return {
    step: word(10),
    ...{ seed, position: { epoch, shard, sequence }, dataTokens, T },
    dataSum: u64(44),
    losses: window.slice(0, lossCount),
    norms: window.slice(lossCount, lossCount + normCount),
    slots: window.slice(lossCount + normCount),
    numbers: bytes.toString("hex", 1024, start),
    ...(orders.length > 0 && { orders }),
  }
}

export const runStateReader = (
  config: Config,
  parameters: number,
  hasMasters: boolean,
): Reader => ({
  name: `run state ${hasMasters ? "with" : "without"} master weights`,
  headerBytes: 1024,
  words: 48,
  floatBytes: 4,
  file: () => make(parameters, hasMasters),
  others: () => [
    make(parameters, hasMasters, { orders: undefined }),
    make(parameters, hasMasters, { losses: [], norms: [], slots: [] }),
    make(parameters, !hasMasters),
    make(parameters, hasMasters, {
      orders: { shards: Uint32Array.of(0, 0), sequences: Uint32Array.of(0) },
    }),
    make(parameters + 1, hasMasters),
  ],
  read: (path) => read(path, config, parameters, hasMasters),
  expected: (bytes) => expected(bytes, parameters, hasMasters),
  spareBytes: 3 * 4 * parameters,
})
