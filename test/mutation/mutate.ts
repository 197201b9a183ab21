// What can happen to a file: on disks, in transfer, and by the hands of those who make such files.

import type { Random } from "../../src/data/random.ts"

export interface Layout {
  /** Bytes of the header, and how many of its words mean something. */
  headerBytes: number
  words: number
  /** Bytes of the body's floating-point numbers, if it has such. */
  floatBytes?: 2 | 4
  /** What text is made of, if the file is one. */
  snippets?: readonly string[]
}

export interface Case {
  what: string
  bytes: Buffer
}

const WORDS = [0, -1, 1, 2, 3, 5, 7, 2 ** 31 - 1, -(2 ** 31), 2 ** 30, 2 ** 24, 65536, 1e9 | 0]
const MAGICS = [20240326, 20240327, 20240328, 20240520, 20240522, 20240527, 20240801, 20240803]
// A u64's two words: 2⁶³, 2⁶⁴ − 1, 2³², 2⁵³, and what four bytes a number would wrap around to.
const PAIRS = [
  [0, -(2 ** 31)],
  [-1, -1],
  [0, 1],
  [0, 2 ** 21],
  [1, 2 ** 30],
] as const
// NaNs, quiet and not, and infinities, by their upper half.
const NOT_FINITE = [0x7fc0, 0xffc0, 0x7f81, 0xff81, 0x7f80, 0xff80]

/** The mutations that are few enough to make all of them. */
export function* systematic(file: Buffer, { headerBytes, words }: Layout): Generator<Case> {
  for (let length = 0; length < headerBytes; length += 16) {
    yield { what: `cut to ${length} bytes`, bytes: file.subarray(0, length) }
  }
  const withWords = (start: number, values: readonly number[]) => {
    const bytes = Buffer.from(file)
    for (const [i, value] of values.entries()) bytes.writeInt32LE(value, 4 * (start + i))
    return bytes
  }
  for (let word = 0; word < words; word++) {
    const now = file.readInt32LE(4 * word)
    for (const value of [...WORDS, now + 1, now - 1, 2 * now, -now]) {
      yield { what: `word ${word} is ${value | 0}`, bytes: withWords(word, [value | 0]) }
    }
    for (const pair of PAIRS) {
      if (word + 1 < words) {
        yield { what: `words ${word} and ${word + 1} are ${pair}`, bytes: withWords(word, pair) }
      }
    }
  }
  for (const magic of words > 0 ? MAGICS : []) {
    for (let version = 0; version <= 8; version++) {
      const what = `magic ${magic}, version ${version}`
      yield { what, bytes: withWords(0, [magic, version]) }
    }
  }
}

type Change = (bytes: Buffer, random: Random, layout: Layout) => Buffer

const place = (bytes: Buffer, random: Random, less = 0) =>
  random.below(Math.max(1, bytes.length + 1 - less))
const some = (random: Random) => 1 + random.below(random.below(4) === 0 ? 300 : 8)
const noise = (random: Random, length: number) =>
  Buffer.from(Uint8Array.from({ length }, () => random.below(256)))

function flip(bytes: Buffer, random: Random, times: number, within = bytes.length): Buffer {
  for (let i = 0; i < times && within > 0; i++) {
    const at = random.below(within)
    bytes[at]! ^= 1 << random.below(8)
  }
  return bytes
}

/** Puts `middle` where `length` bytes were. */
function splice(bytes: Buffer, at: number, length: number, middle: Uint8Array): Buffer {
  return Buffer.concat([bytes.subarray(0, at), middle, bytes.subarray(at + length)])
}

const CHANGES: Record<string, Change> = {
  "cut short": (bytes, random) => bytes.subarray(0, place(bytes, random)),
  "a bit flipped": (bytes, random) => flip(bytes, random, 1),
  "bits flipped": (bytes, random) => flip(bytes, random, 2 + random.below(15)),
  "bits flipped in the header": (bytes, random, { words }) =>
    flip(bytes, random, 1 + random.below(3), Math.min(bytes.length, 4 * words)),
  "bytes put in": (bytes, random) =>
    splice(bytes, place(bytes, random), 0, noise(random, some(random))),
  "bytes taken out": (bytes, random) =>
    splice(bytes, place(bytes, random), some(random), new Uint8Array()),
  "bytes behind the end": (bytes, random) => Buffer.concat([bytes, noise(random, some(random))]),
  "words behind the end": (bytes, random) =>
    Buffer.concat([bytes, new Uint8Array(4 * some(random))]),
  "a block of one value": (bytes, random) => {
    const at = place(bytes, random)
    return bytes.fill(random.below(2) * 255, at, Math.min(bytes.length, at + some(random)))
  },
  "a block of noise": (bytes, random) => {
    const length = Math.min(bytes.length, some(random))
    return splice(bytes, place(bytes, random, length), length, noise(random, length))
  },
  "a block twice": (bytes, random) => {
    const at = place(bytes, random)
    return splice(bytes, at, 0, bytes.subarray(at, at + some(random)))
  },
  "two blocks swapped": (bytes, random) => {
    const [a, b, c] = [0, 0, 0].map(() => place(bytes, random)).sort((x, y) => x - y)
    const [first, second] = [bytes.subarray(a, b), bytes.subarray(b, c)]
    return splice(bytes, a!, c! - a!, Buffer.concat([second, first]))
  },
  "a word of the header": (bytes, random, { words }) => {
    const at = 4 * random.below(Math.max(1, words))
    if (words === 0 || at + 4 > bytes.length) return bytes
    const small = random.below(2) === 0
    bytes.writeInt32LE(small ? random.below(20) : WORDS[random.below(WORDS.length)]!, at)
    return bytes
  },
  "a number that is not finite": (bytes, random, { headerBytes, floatBytes }) => {
    const count = Math.floor((bytes.length - headerBytes) / (floatBytes ?? 1))
    if (floatBytes === undefined || count < 1) return bytes
    const at = headerBytes + floatBytes * random.below(count) + floatBytes - 2
    bytes.writeUInt16LE(NOT_FINITE[random.below(NOT_FINITE.length)]!, at)
    return bytes
  },
  "a piece of text": (bytes, random, { snippets }) => {
    if (snippets === undefined) return bytes
    const text = Buffer.from(snippets[random.below(snippets.length)]!)
    return splice(bytes, place(bytes, random), random.below(2) * some(random), text)
  },
}
const NAMES = Object.keys(CHANGES)

/** One change, or a few of them, one after the other. */
export function drawn(file: Buffer, random: Random, layout: Layout): Case {
  const count = random.below(3) === 0 ? 2 + random.below(2) : 1
  const names = Array.from({ length: count }, () => NAMES[random.below(NAMES.length)]!)
  let bytes: Buffer = Buffer.from(file)
  for (const name of names) bytes = CHANGES[name]!(bytes, random, layout)
  return { what: names.join(", "), bytes }
}
