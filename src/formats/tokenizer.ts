// llm.c's tokenizer files: the bytes of every token, one after the other, each behind its length.

import { thousands, writeWhole } from "../data/files.ts"
import { assert } from "../errors.ts"
import { BinaryFile, HEADER_BYTES, headerBytes, type Kind } from "./header.ts"

const MAGIC = 20240328
const VERSION = 2
const KIND: Kind = {
  magic: MAGIC,
  versions: { 1: "GPT-2's", 2: "any, which names its end of text" },
  hint: "give a tokenizer file that llm or llm.c wrote",
}
const GPT2 = { count: 50257, endOfText: 50256 } // which the first version does not say

export type Tokenizer = {
  /** Token → its bytes. */
  tokens: Uint8Array[]
  /** The token that stands between documents. */
  endOfText: number
}

/** Reads a tokenizer file. Its bytes are held once: the tokens are parts of them. */
export function readTokenizer(path: string): Tokenizer {
  return BinaryFile.with(path, KIND, (file) => {
    const [, version, count = 0, field = 0] = file.header
    const endOfText = version === 1 ? GPT2.endOfText : field
    const room = file.bytes - HEADER_BYTES
    if (count < 1 || 2 * count > room) {
      const bytes = `${thousands(room)} bytes, each token at least 2`
      throw file.wrong(`its header promises ${thousands(count)} tokens in ${bytes}`, KIND.hint)
    }
    if (version === 1 && count !== GPT2.count) {
      const wanted = `version 1 has GPT-2's ${thousands(GPT2.count)}`
      throw file.wrong(`${thousands(count)} tokens, but ${wanted}`, KIND.hint)
    }
    if (endOfText < 0 || endOfText >= count) {
      const last = `its ${thousands(count)} tokens`
      throw file.wrong(`its end of text, ${endOfText}, is none of ${last}`, KIND.hint)
    }
    const body = new Uint8Array(room)
    file.read(body, HEADER_BYTES)
    const tokens: Uint8Array[] = []
    let at = 0
    for (let token = 0; token < count; token++) {
      const length = body[at]
      if (length === 0) throw file.wrong(`token ${token} has no bytes`, KIND.hint)
      if (length === undefined || at + 1 + length > room) {
        throw file.wrong(`it ends in token ${token} of ${thousands(count)}`, "copy it again")
      }
      tokens.push(body.subarray(at + 1, at + 1 + length))
      at += 1 + length
    }
    if (at < room) {
      const more = `${thousands(room - at)} bytes follow its last token`
      throw file.wrong(more, "it was added to: copy it again")
    }
    return { tokens, endOfText }
  })
}

/** Writes a tokenizer whose tokens have 1 to 255 bytes. */
export function writeTokenizer(path: string, { tokens, endOfText }: Tokenizer): void {
  const body = tokens.flatMap((bytes, token) => {
    assert(bytes.length >= 1 && bytes.length <= 255, `token ${token} of ${bytes.length} bytes`)
    return [Uint8Array.of(bytes.length), bytes]
  })
  assert(tokens[endOfText] !== undefined, `no token ${endOfText}`)
  writeWhole(path, [headerBytes(MAGIC, VERSION, tokens.length, endOfText), Buffer.concat(body)])
}
