// Token files. GPT-2's: a header of 256 int32, then uint16 tokens. Llama 3's: the same header, then
// uint32 tokens. The first format, from spring 2024, has no header: int32 tokens from byte 0; it is
// told apart by its first word, which is a token and so far below any magic.

import { fileBytes, reason, thousands, writeWhole } from "../data/files.ts"
import { UserError } from "../errors.ts"
import { MAX_MAP_BYTES, mapFile } from "../native/mapping.ts"

const HEADER_BYTES = 1024
const FORMATS = [
  { magic: 20240520, version: 1, tokenBytes: 2 },
  { magic: 20240801, version: 7, tokenBytes: 4 },
] as const
const HINT = "make token files with llm data"

export type Tokens = Uint16Array | Uint32Array | Int32Array

/** Maps a token file after checking its header against its size. The tokens themselves are checked
 * by `checkTokens`: that reads the whole file. */
export function openTokens(path: string, vocabulary: number): Tokens {
  const bytes = fileBytes(path, HINT)
  if (bytes === 0) throw new UserError(`${path}: the file is empty (${HINT})`)
  if (bytes < 4) {
    throw new UserError(`${path}: ${bytes} bytes are too few for a token file (${HINT})`)
  }
  if (bytes > MAX_MAP_BYTES) {
    throw new UserError(
      `${path}: ${thousands(bytes)} bytes, but a token file may have ${thousands(MAX_MAP_BYTES)} (cut it into several and name them by a glob)`,
    )
  }
  let buffer: ArrayBuffer
  try {
    buffer = mapFile(path, bytes)
  } catch (error) {
    throw new UserError(`${path}: cannot read: ${reason(error)} (${HINT})`)
  }
  const [magic = 0, version = 0, count = 0] = new Int32Array(buffer, 0, Math.min(3, bytes >> 2))
  const format = FORMATS.find((f) => f.magic === magic)
  if (!format) return openHeaderless(path, buffer, magic, vocabulary)

  if (bytes < HEADER_BYTES) {
    throw new UserError(
      `${path}: ${thousands(bytes)} bytes, but its header alone takes ${thousands(HEADER_BYTES)} (${HINT})`,
    )
  }
  if (version !== format.version) {
    throw new UserError(
      `${path}: version ${version} of magic ${magic}, but only version ${format.version} is known (${HINT})`,
    )
  }
  const promised = HEADER_BYTES + count * format.tokenBytes
  if (count < 0 || promised !== bytes) {
    throw new UserError(
      `${path}: ${thousands(bytes)} bytes, but its header promises ${thousands(count)} tokens (${thousands(promised)} bytes)`,
    )
  }
  if (count === 0) throw new UserError(`${path}: it holds no tokens (${HINT})`)
  return format.tokenBytes === 2
    ? new Uint16Array(buffer, HEADER_BYTES, count)
    : new Uint32Array(buffer, HEADER_BYTES, count)
}

function openHeaderless(
  path: string,
  buffer: ArrayBuffer,
  first: number,
  vocabulary: number,
): Int32Array {
  if (first < 0 || first >= vocabulary) {
    throw new UserError(
      `${path}: not a token file: it starts with ${first}, which is neither a magic (${FORMATS.map((f) => f.magic).join(" or ")}) nor a token below ${thousands(vocabulary)} (${HINT})`,
    )
  }
  if (buffer.byteLength % 4 !== 0) {
    throw new UserError(
      `${path}: ${thousands(buffer.byteLength)} bytes without a header are not a whole number of int32 tokens (${HINT})`,
    )
  }
  return new Int32Array(buffer)
}

/** Refuses a token outside [0, vocabulary), naming the first one. */
export function checkTokens(path: string, tokens: Tokens, vocabulary: number): void {
  for (let i = 0; i < tokens.length; i++) {
    const token = tokens[i]!
    if (token < 0 || token >= vocabulary) {
      throw new UserError(
        `${path}: token ${thousands(i)} is ${thousands(token)}, but the vocabulary has ${thousands(vocabulary)} (use the model's own tokenizer, or --vocab)`,
      )
    }
  }
}

/** Both checks: a token file whose every token the model can take. */
export function readTokens(path: string, vocabulary: number): Tokens {
  const tokens = openTokens(path, vocabulary)
  checkTokens(path, tokens, vocabulary)
  return tokens
}

/** Writes GPT-2's format. */
export function writeTokens(path: string, tokens: Uint16Array): void {
  const header = new Int32Array(HEADER_BYTES / 4)
  header.set([FORMATS[0].magic, FORMATS[0].version, tokens.length])
  writeWhole(path, [
    new Uint8Array(header.buffer),
    new Uint8Array(tokens.buffer, tokens.byteOffset, tokens.byteLength),
  ])
}
