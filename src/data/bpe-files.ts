// GPT-2's vocabulary as other programs keep it: every token as text in an alphabet of one character
// a byte, and the pairs that were merged. gpt-tokenizer has neither, but they follow from its ranks:
// a token's number is the rank of the merge that makes it.

import { assert } from "../errors.ts"
import { mergeBytes, type Ranks, ranksByBytes } from "./merge.ts"
import { VOCABULARY, type Vocabulary } from "./tokenizer.ts"

export type BpeFiles = {
  /** Token → its text in the alphabet; the last one is "<|endoftext|>" itself. */
  tokens: string[]
  /** The pairs in the order in which they are merged, each as "left right" in the alphabet. */
  merges: string[]
}

const isPrintable = (byte: number) =>
  (byte > 32 && byte < 127) || (byte > 160 && byte < 256 && byte !== 173)

/** Byte → its character (Radford et al. 2019, encoder.py): itself where it can be seen, and those that
 * cannot, in their order, the characters from 256 on. */
export const BYTE_ALPHABET: readonly string[] = Array.from({ length: 256 }, (_, byte) => {
  const hiddenBefore = Array.from({ length: byte }, (_, i) => i).filter((i) => !isPrintable(i))
  return String.fromCharCode(isPrintable(byte) ? byte : 256 + hiddenBefore.length)
})

/** Bytes, one character a byte, in the alphabet. */
const spell = (bytes: string) =>
  Array.from(bytes, (byte) => BYTE_ALPHABET[byte.charCodeAt(0)]!).join("")

/** The pairs of tokens that were merged, in order: what the tokens of lower ranks make of each. */
function recoverPairs(tokens: readonly string[]): number[][] {
  const lower: Ranks = new Map()
  return tokens.flatMap((bytes, rank) => {
    const pair = mergeBytes(bytes, lower)
    lower.set(bytes, rank)
    if (bytes.length === 1) return []
    assert(pair.length === 2, `token ${rank} is made of ${pair.length} others`)
    return [pair]
  })
}

export async function loadBpeFiles(): Promise<BpeFiles> {
  const { default: vocabulary } = await import("gpt-tokenizer/bpeRanks/r50k_base")
  const ranked = [...ranksByBytes(vocabulary as Vocabulary).keys()]
  const tokens = ranked.map(spell)
  const merges = recoverPairs(ranked).map((pair) => pair.map((token) => tokens[token]).join(" "))
  tokens.push("<|endoftext|>")
  assert(tokens.length === VOCABULARY, `vocabulary of ${tokens.length}`)
  return { tokens, merges }
}
