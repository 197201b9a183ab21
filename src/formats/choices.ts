// llm.c's multiple-choice evaluations, HellaSwag's among them: a header with the number of examples
// and the bytes of the longest, then a stream of uint16 for each example: a marker, its bytes, its
// index, the right completion's number, the number of completions, and then, each behind its length,
// the context that they share and the completions.

import { thousands } from "../data/files.ts"
import { BinaryFile, bytesOf, HEADER_BYTES, headerBytes, type Kind } from "./header.ts"

const KIND: Kind = {
  magic: 20240522,
  versions: { 1: "uint16" },
  hint: "give a multiple-choice file as llm.c's hellaswag.py writes it",
}
const COPY = "copy it again, or make it anew"
const MARKER = 65535
const FIXED = 6 // words of an example before the context's tokens
const LEAST = 2 * (FIXED - 1 + 3 * 2) // bytes: a context and two completions of one token each
export const MAX_EXAMPLES = 65535 // their index is a word
export const MAX_EXAMPLE_BYTES = 65534 // a word, too, and even
const MAX_COMPLETIONS = 8 // llm.c's files have 4, other benchmarks' questions 2 to 5

export type Example = {
  context: Uint16Array
  completions: Uint16Array[]
  /** The right completion. */
  label: number
}

/** Reads a whole file: at most 65,535 examples of 64 KiB. */
export function readChoices(path: string, vocabulary: number): Example[] {
  return BinaryFile.with(path, KIND, (file) => {
    const [, , count = 0, longest = 0] = file.header
    const bytes = file.bytes - HEADER_BYTES
    if (count < 1 || count > MAX_EXAMPLES) {
      const range = `not 1 to ${thousands(MAX_EXAMPLES)}`
      throw file.wrong(`its header says ${thousands(count)} examples, ${range}`, KIND.hint)
    }
    if (bytes % 2 !== 0) {
      throw file.wrong(`its ${thousands(bytes)} bytes of examples are no whole words`, COPY)
    }
    // Before memory is taken for it.
    if (bytes > count * longest || bytes < count * LEAST) {
      const all = `${thousands(count)} × ${LEAST} to ${thousands(longest)} bytes of examples`
      throw file.wrong(`its header promises ${all}, but they take ${thousands(bytes)}`, COPY)
    }
    const words = new Uint16Array(bytes / 2)
    file.read(bytesOf(words), HEADER_BYTES)

    let [start, most] = [0, 0]
    const examples = Array.from({ length: count }, (_, i) => {
      const wrong = (what: string, wayOut = COPY) =>
        file.wrong(`example ${thousands(i)}: ${what}`, wayOut)
      const example = parse(words.subarray(start), i, vocabulary, wrong)
      most = Math.max(most, words[start + 1]!)
      start += words[start + 1]! / 2
      return example
    })
    if (start < words.length) {
      const left = thousands(2 * (words.length - start))
      throw file.wrong(`${left} bytes follow its ${thousands(count)} examples`, COPY)
    }
    if (most !== longest) {
      const says = `its header says ${thousands(longest)} bytes for the longest example`
      throw file.wrong(`${says}, which has ${thousands(most)}`, COPY)
    }
    return examples
  })
}

/** The example that `words` begin with. */
function parse(
  words: Uint16Array,
  i: number,
  vocabulary: number,
  wrong: (what: string, wayOut?: string) => Error,
): Example {
  if (words.length < FIXED) throw wrong(`the file ends after ${2 * words.length} bytes of it`)
  const [marker = 0, bytes = 0, index = 0, label = 0, count = 0] = words
  if (marker !== MARKER) throw wrong(`it starts with ${marker}, not ${MARKER}`)
  if (bytes > 2 * words.length) {
    const left = thousands(2 * words.length)
    throw wrong(`it has ${thousands(bytes)} bytes, but the file ends after ${left}`)
  }
  if (index !== i) throw wrong(`its index is ${thousands(index)}`)
  if (count < 2 || count > MAX_COMPLETIONS) {
    throw wrong(`its number of completions is ${count}, not 2 to ${MAX_COMPLETIONS}`)
  }
  if (label >= count) throw wrong(`its right completion is ${label} of 0 to ${count - 1}`)

  const end = bytes / 2
  let at = FIXED - 1
  const take = (what: string): Uint16Array => {
    const length = words[at] ?? 0
    if (at >= end || at + 1 + length > end) {
      throw wrong(`its ${thousands(bytes)} bytes end within its ${what}`)
    }
    if (length === 0) throw wrong(`its ${what} has no tokens`)
    const tokens = words.subarray(at + 1, at + 1 + length)
    const outside = tokens.find((token) => token >= vocabulary)
    if (outside !== undefined) {
      const rule = `the vocabulary has ${thousands(vocabulary)}`
      const text = `token ${thousands(outside)} in its ${what}, but ${rule}`
      throw wrong(text, "use the model's own tokenizer")
    }
    at += 1 + length
    return tokens
  }
  const context = take("context")
  const completions = Array.from({ length: count }, (_, c) => take(`completion ${c}`))
  if (at !== end) {
    throw wrong(`it has ${thousands(bytes)} bytes, but its tokens end after ${thousands(2 * at)}`)
  }
  return { context, completions, label }
}

/** An example's words. */
export function exampleWords({ context, completions, label }: Example, index: number): number[] {
  const lists = [context, ...completions].flatMap((tokens) => [tokens.length, ...tokens])
  return [MARKER, 2 * (lists.length + FIXED - 1), index, label, completions.length, ...lists]
}

export function choicesHeader(count: number, longest: number): Uint8Array {
  return headerBytes(KIND.magic, 1, count, longest)
}

/** The bytes of a whole file. */
export function choicesFile(examples: Example[]): Uint8Array {
  const words = examples.map(exampleWords)
  const longest = words.reduce((most, { length }) => Math.max(most, 2 * length), 0)
  const parts = words.map((own) => bytesOf(Uint16Array.from(own)))
  return Buffer.concat([choicesHeader(examples.length, longest), ...parts])
}
