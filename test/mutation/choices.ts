// A multiple-choice evaluation.

import { choicesFile, choicesHeader, exampleWords, readChoices } from "../../src/formats/choices.ts"
import type { Reader } from "./readers.ts"

const VOCABULARY = 50257
const EXAMPLES = Array.from({ length: 5 }, (_, i) => {
  const tokens = (length: number) =>
    Uint16Array.from({ length }, (_, j) => (i * 9001 + j * 13007 + length) % VOCABULARY)
  return { context: tokens(6 + i), completions: [3, 5, 4, 6].map(tokens), label: (i * 3) % 4 }
})

function expected(bytes: Buffer) {
  const word = (i: number) => bytes.readInt32LE(4 * i)
  if (bytes.length < 1024 || bytes.length % 2 !== 0) return undefined
  if (word(0) !== 20240522 || word(1) !== 1) return undefined
  const [count, longest] = [word(2), word(3)]
  if (count < 1 || count > 65535) return undefined
  const sizes: number[] = []
  const examples: unknown[] = []
  for (let at = 1024; at < bytes.length; ) {
    if (at + 12 > bytes.length) return undefined
    const half = (i: number) => bytes.readUInt16LE(at + 2 * i)
    const [size, label, completions] = [half(1), half(3), half(4)]
    if (half(0) !== 65535 || half(2) !== examples.length || size % 2 !== 0) return undefined
    if (at + size > bytes.length || completions < 2 || completions > 8) return undefined
    if (label >= completions) return undefined
    const lists: number[][] = []
    let i = 5
    while (lists.length <= completions) {
      if (2 * i + 2 > size) return undefined
      const length = half(i)
      if (length === 0 || 2 * (i + 1 + length) > size) return undefined
      lists.push(Array.from({ length }, (_, j) => half(i + 1 + j)))
      i += 1 + length
    }
    if (2 * i !== size || lists.flat().some((token) => token >= VOCABULARY)) return undefined
    examples.push({ label, lists })
    sizes.push(size)
    at += size
  }
  return examples.length === count && Math.max(...sizes) === longest ? examples : undefined
}

export const CHOICES: Reader = {
  name: "multiple choice",
  headerBytes: 1024,
  words: 4,
  file: () => Buffer.from(choicesFile(EXAMPLES)),
  others: () => [
    Buffer.from(choicesFile(EXAMPLES.slice(0, 1))),
    Buffer.from(choicesHeader(0, 0)),
    Buffer.from(choicesFile(EXAMPLES.map((example) => ({ ...example, label: 4 })))),
    // Sizes that lead nowhere: an example that takes no bytes, over and over.
    Buffer.concat([
      choicesHeader(9, 8),
      Buffer.from(Uint16Array.from(exampleWords(EXAMPLES[0]!, 0).with(1, 0)).buffer),
    ]),
  ],
  read: (path) =>
    readChoices(path, VOCABULARY).map(({ context, completions, label }) => ({
      label,
      lists: [context, ...completions].map((tokens) => [...tokens]),
    })),
  expected,
}
