// Token files. GPT-2's: a header of 256 int32, then uint16 tokens. Llama 3's: the same header, then
// uint32 tokens. The first format, from spring 2024, has no header: int32 tokens from byte 0; it is
// told apart by its first word, which is a token and so far below any magic.
//
// They are read piece by piece and never mapped: touching a mapped page of a file that was cut short
// meanwhile ends the process, and a run that takes weeks must get to write a checkpoint instead.

import { type BigIntStats, closeSync, fstatSync, openSync, readSync, statSync } from "node:fs"
import { fileBytes, NewFile, reason, thousands } from "../data/files.ts"
import { UserError } from "../errors.ts"
import { bytesOf, HEADER_BYTES, headerBytes, kindOf } from "./header.ts"

const FORMATS = [
  { magic: 20240520, version: 1, tokenBytes: 2, Numbers: Uint16Array },
  { magic: 20240801, version: 7, tokenBytes: 4, Numbers: Uint32Array },
] as const
const HEADERLESS = { tokenBytes: 4, Numbers: Int32Array } as const
const HINT = "make token files with llm data"
const PIECE = 2 ** 20 // tokens checked at once
const MAX_TOKENS = 2 ** 31 - 1 // their number is an int32 of the header

export type Tokens = Uint16Array | Uint32Array | Int32Array

/** A token file that is no longer what it was when it was opened. */
export class FileChanged extends UserError {}

type Layout = {
  start: number
  tokenBytes: number
  Numbers: new (length: number | ArrayBuffer, start?: number, count?: number) => Tokens
  count: number
}

/** A token file, open for reading. */
export class TokenFile {
  /** A hash of all tokens, when they have been checked: other tokens, another number. */
  sum = 0n
  private handle: number | undefined
  private scratch = new ArrayBuffer(0)

  private constructor(
    readonly path: string,
    private readonly vocabulary: number,
    private readonly layout: Layout,
    private identity: string,
  ) {}

  /** Opens a file after checking its header against its size. A headerless one is told by its first
   * token, which the vocabulary must have. */
  static open(path: string, vocabulary: number): TokenFile {
    const bytes = fileBytes(path, HINT)
    if (bytes === 0) throw new UserError(`${path}: the file is empty (${HINT})`)
    if (bytes < 4) {
      throw new UserError(`${path}: ${bytes} bytes are too few for a token file (${HINT})`)
    }
    let handle: number
    try {
      handle = openSync(path, "r")
    } catch (error) {
      throw new UserError(`${path}: cannot read: ${reason(error)} (${HINT})`)
    }
    try {
      const head = new Int32Array(3)
      readExactly(path, handle, new Uint8Array(head.buffer, 0, Math.min(12, bytes & ~3)), 0)
      const layout = checkHeader(path, bytes, head, vocabulary)
      return new TokenFile(
        path,
        vocabulary,
        layout,
        identityOf(fstatSync(handle, { bigint: true })),
      )
    } finally {
      closeSync(handle) // a data set may have more files than may be open
    }
  }

  get length(): number {
    return this.layout.count
  }

  /** Reads the whole file and refuses a token outside the vocabulary. One that is found after hours of
   * training would end the run. */
  checkTokens(): void {
    const { Numbers } = this.layout
    const piece = new Numbers(Math.min(PIECE, this.length))
    for (let first = 0; first < this.length; first += PIECE) {
      const tokens = piece.subarray(0, Math.min(PIECE, this.length - first))
      this.read(tokens, first)
      checkTokens(this.path, tokens, this.vocabulary, first)
      this.sum = tokenSum(tokens, this.sum)
    }
    this.close()
    this.scratch = new ArrayBuffer(0)
  }

  /** Fills `into` with the tokens from number `first` on. Throws FileChanged when the file has been
   * changed or taken away since it was opened; one in its place that holds the same is as good. */
  read(into: Tokens, first: number): void {
    const { path } = this
    try {
      this.handle ??= openSync(path, "r")
      // What the name stands for now, and what this handle holds: neither may have changed.
      const now = [statSync(path, { bigint: true }), fstatSync(this.handle, { bigint: true })]
      if (now.some((stats) => identityOf(stats) !== this.identity)) this.adopt()
    } catch (error) {
      if (error instanceof FileChanged) throw error
      throw new FileChanged(`${path}: cannot read any more: ${reason(error)} (${CHANGED_HINT})`)
    }
    into.set(this.raw(this.handle, first, into.length))
  }

  /** Takes the file that the name stands for now, if it holds what this one held. */
  private adopt(): void {
    this.close()
    const changed = new FileChanged(
      `${this.path}: the file has changed since it was opened (${CHANGED_HINT})`,
    )
    let other: TokenFile
    try {
      other = TokenFile.open(this.path, this.vocabulary)
    } catch {
      throw changed
    }
    if (this.sum === 0n || other.length !== this.length) throw changed
    other.checkTokens()
    if (other.sum !== this.sum) throw changed
    this.identity = other.identity
    this.handle = openSync(this.path, "r")
  }

  /** Closes the file, until the next read. */
  close(): void {
    if (this.handle !== undefined) closeSync(this.handle)
    this.handle = undefined
  }

  private raw(handle: number, first: number, count: number): Tokens {
    const { start, tokenBytes, Numbers } = this.layout
    if (this.scratch.byteLength < count * tokenBytes) {
      this.scratch = new ArrayBuffer(count * tokenBytes)
    }
    const bytes = new Uint8Array(this.scratch, 0, count * tokenBytes)
    readExactly(this.path, handle, bytes, start + first * tokenBytes)
    return new Numbers(this.scratch, 0, count)
  }
}

const CHANGED_HINT = "put it back as it was; a run with --out goes on by --resume"

const identityOf = ({ dev, ino, size, mtimeNs }: BigIntStats) => [dev, ino, size, mtimeNs].join()

function readExactly(path: string, handle: number, into: Uint8Array, position: number): void {
  for (let done = 0; done < into.length; ) {
    let got: number
    try {
      got = readSync(handle, into, done, into.length - done, position + done)
    } catch (error) {
      throw new FileChanged(`${path}: cannot read: ${reason(error)} (${CHANGED_HINT})`)
    }
    if (got === 0) {
      throw new FileChanged(`${path}: it became shorter while it was read (${CHANGED_HINT})`)
    }
    done += got
  }
}

function checkHeader(path: string, bytes: number, head: Int32Array, vocabulary: number): Layout {
  const [magic = 0, version = 0, count = 0] = head
  const format = FORMATS.find((f) => f.magic === magic)
  if (!format) return checkHeaderless(path, bytes, magic, vocabulary)

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
  return { ...format, start: HEADER_BYTES, count }
}

function checkHeaderless(path: string, bytes: number, first: number, vocabulary: number): Layout {
  if (first < 0 || first >= vocabulary) {
    const words = FORMATS.map((f) => f.magic).join(" or ")
    const found =
      kindOf(first) ??
      `it starts with ${first}, which is neither a magic (${words}) nor a token below ${thousands(vocabulary)}`
    throw new UserError(`${path}: not a token file: ${found} (${HINT})`)
  }
  const { tokenBytes } = HEADERLESS
  if (bytes % tokenBytes !== 0) {
    throw new UserError(
      `${path}: ${thousands(bytes)} bytes without a header are not a whole number of int32 tokens (${HINT})`,
    )
  }
  return { ...HEADERLESS, start: 0, count: bytes / tokenBytes }
}

/** Refuses a token outside [0, vocabulary), naming the first one; `first` is the number of the first
 * of these tokens in their file. */
export function checkTokens(path: string, tokens: Tokens, vocabulary: number, first = 0): void {
  for (let i = 0; i < tokens.length; i++) {
    const token = tokens[i]!
    if (token < 0 || token >= vocabulary) {
      throw new UserError(
        `${path}: token ${thousands(first + i)} is ${thousands(token)}, but the vocabulary has ${thousands(vocabulary)} (use the model's own tokenizer, or --vocab)`,
      )
    }
  }
}

/** A hash of tokens that follow others, whose hash is `before`; 0n for the first. */
export function tokenSum({ buffer, byteOffset, byteLength }: Tokens, before = 0n): bigint {
  return Bun.hash.xxHash3(new Uint8Array(buffer, byteOffset, byteLength), before)
}

/** All tokens of a file. */
export function readTokens(path: string, vocabulary: number): Int32Array {
  const file = TokenFile.open(path, vocabulary)
  file.checkTokens()
  const tokens = new Int32Array(file.length)
  file.read(tokens, 0)
  file.close()
  return tokens
}

/** A file in GPT-2's format that is written piece by piece, and has its name when it is whole. */
export class TokenWriter {
  private readonly file: NewFile
  private written = 0

  constructor(path: string) {
    this.file = new NewFile(path)
    this.file.write(headerOf(0))
  }

  get count(): number {
    return this.written
  }

  append(tokens: Uint16Array): void {
    if (this.written + tokens.length > MAX_TOKENS) {
      this.discard()
      throw new UserError(
        `${this.file.path}: above ${thousands(MAX_TOKENS)} tokens, which no token file can hold (give --shard-tokens 100000000)`,
      )
    }
    this.file.write(bytesOf(tokens))
    this.written += tokens.length
  }

  finish(): void {
    this.file.write(headerOf(this.written), 0)
    this.file.commit()
  }

  discard(): void {
    this.file.discard()
  }
}

function headerOf(count: number): Uint8Array {
  return headerBytes(FORMATS[0].magic, FORMATS[0].version, count)
}

/** Writes GPT-2's format. */
export function writeTokens(path: string, tokens: Uint16Array): void {
  const writer = new TokenWriter(path)
  writer.append(tokens)
  writer.finish()
}
