// GPT-2's byte-pair encoding. The vocabulary comes from gpt-tokenizer and takes tens of
// milliseconds to load, so it is loaded on first use: decoding needs only the tokens' bytes,
// encoding the merge table too.

import { assert } from "../errors.ts"
import { mergePiece, type Ranks, ranksByBytes } from "./merge.ts"

export const VOCABULARY = 50257
export const END_OF_TEXT = 50256

// "<|endoftext|>" inside a text is text; only this program places the token.
const AS_TEXT = { disallowedSpecial: new Set<string>() }

// From this length on, a text without any break between letters, or of nothing but breaks, is merged
// by our own code: gpt-tokenizer's time grows with its square.
const LONG_PIECE = 1000
const LONG_RUN = new RegExp(`(?:^|\\s)\\S{${LONG_PIECE}}|(?:^|\\S)\\s{${LONG_PIECE}}`)

/** A token's text, or its bytes where they are no text. */
export type Vocabulary = readonly (string | ArrayLike<number>)[]
export type Encode = (text: string) => number[]

export async function loadEncoder(): Promise<Encode> {
  const { encode } = await import("gpt-tokenizer/encoding/r50k_base")
  const { R50K_TOKEN_SPLIT_REGEX } = await import("gpt-tokenizer/encodingParams/constants")
  const { default: vocabulary } = await import("gpt-tokenizer/bpeRanks/r50k_base")
  let ranks: Ranks | undefined
  return (text) => {
    if (!LONG_RUN.test(text)) return encode(text, AS_TEXT)
    ranks ??= ranksByBytes(vocabulary as Vocabulary)
    const tokens: number[] = []
    for (const [piece] of text.matchAll(R50K_TOKEN_SPLIT_REGEX)) {
      const more = piece.length < LONG_PIECE ? encode(piece, AS_TEXT) : mergePiece(piece, ranks)
      for (const token of more) tokens.push(token)
    }
    return tokens
  }
}

export class Decoder {
  // All tokens' bytes, one after the other; token i is [starts[i], starts[i+1]).
  private constructor(
    private readonly bytes: Uint8Array,
    private readonly starts: Uint32Array,
  ) {}

  private static loaded: Promise<Decoder> | undefined

  /** GPT-2's. */
  static load(): Promise<Decoder> {
    Decoder.loaded ??= Decoder.read()
    return Decoder.loaded
  }

  private static async read(): Promise<Decoder> {
    const { default: ranks } = await import("gpt-tokenizer/bpeRanks/r50k_base")
    const decoder = Decoder.of([...(ranks as Vocabulary), "<|endoftext|>"])
    assert(decoder.count === VOCABULARY, `vocabulary of ${decoder.count}`)
    return decoder
  }

  /** Of any tokens, such as a tokenizer file's. */
  static of(tokens: Vocabulary): Decoder {
    const encoder = new TextEncoder()
    // A token of n UTF-16 units takes at most 3n bytes.
    const bytes = new Uint8Array(tokens.reduce((sum, token) => sum + 3 * token.length, 0))
    const starts = new Uint32Array(tokens.length + 1)
    let end = 0
    for (const [token, part] of tokens.entries()) {
      if (typeof part === "string") {
        end += encoder.encodeInto(part, bytes.subarray(end)).written
      } else {
        bytes.set(part, end)
        end += part.length
      }
      starts[token + 1] = end
    }
    return new Decoder(bytes.slice(0, end), starts)
  }

  /** How many tokens there are. */
  get count(): number {
    return this.starts.length - 1
  }

  tokenBytes(token: number): Uint8Array {
    assert(Number.isInteger(token) && token >= 0 && token < this.count, `no token ${token}`)
    return this.bytes.subarray(this.starts[token], this.starts[token + 1])
  }

  decode(tokens: Iterable<number>): string {
    const stream = this.stream()
    let text = ""
    for (const token of tokens) text += stream.push(token)
    return text + stream.end()
  }

  /** Text as the tokens come. A character whose bytes are spread over several tokens is held back
   * until its last byte; bytes that are no UTF-8 become U+FFFD. */
  stream(): { push(token: number): string; end(): string } {
    const decoder = new TextDecoder("utf-8", { ignoreBOM: true })
    return {
      push: (token) => decoder.decode(this.tokenBytes(token), { stream: true }),
      end: () => decoder.decode(),
    }
  }
}
