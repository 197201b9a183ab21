// Text is tokenized in jobs, each on its own. A job is cut so that the tokens of its parts, one
// after the other, are the tokens of the whole.

import { closeSync, openSync, readSync } from "node:fs"
import { UserError } from "../errors.ts"
import { fileBytes, reason, thousands } from "./files.ts"
import { END_OF_TEXT, type Encode } from "./tokenizer.ts"

export type Job =
  /** Whole documents. */
  | { kind: "documents"; texts: string[] }
  /** A part of one document in UTF-8; `offset` is its place in the file. */
  | { kind: "text"; path: string; bytes: Uint8Array; offset: number; first: boolean }
  /** Whole lines, each a JSON object with a "text"; `line` is the number of the first. */
  | { kind: "lines"; path: string; bytes: Uint8Array; offset: number; line: number }

const BLOCK_BYTES = 2 ** 19
const NEWLINE = 0x0a
const SPACE = 0x20
const BOM = [0xef, 0xbb, 0xbf]

/** The tokens of a job, an end-of-text before each document. */
export function runJob(job: Job, encode: Encode): Uint16Array {
  if (job.kind === "documents") {
    return Uint16Array.from(job.texts.flatMap((text) => [END_OF_TEXT, ...encode(text)]))
  }
  const text = decodeUtf8(job.path, job.bytes, job.offset)
  if (job.kind === "text") {
    return Uint16Array.from(job.first ? [END_OF_TEXT, ...encode(text)] : encode(text))
  }
  const tokens: number[] = []
  for (const [index, line] of text.split("\n").entries()) {
    if (line.trim() === "") continue
    tokens.push(END_OF_TEXT)
    for (const token of encode(documentOf(job.path, job.line + index, line))) tokens.push(token)
  }
  return Uint16Array.from(tokens)
}

function documentOf(path: string, number: number, line: string): string {
  const where = `${path}: line ${thousands(number)}`
  let object: unknown
  try {
    object = JSON.parse(line)
  } catch {
    throw new UserError(`${where} is not JSON (each line must be an object such as {"text": "…"})`)
  }
  const text = (object as { text?: unknown } | null)?.text
  if (typeof text !== "string") {
    throw new UserError(`${where} has no "text" that is a string (each line is one document)`)
  }
  return text
}

/** Text of valid UTF-8; otherwise a UserError that names the first bad byte's place in the file. */
export function decodeUtf8(path: string, bytes: Uint8Array, offset: number): string {
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes)
  } catch {
    // The shortest prefix that cannot be completed to valid text ends with the bad byte. When there
    // is none, the last character is cut off.
    let good = 0
    let bad = bytes.length + 1
    while (bad - good > 1) {
      const middle = (good + bad) >> 1
      if (isPrefixOfText(bytes.subarray(0, middle))) good = middle
      else bad = middle
    }
    throw new UserError(
      `${path}: not UTF-8 at byte ${thousands(offset + bad - 1)} (convert the file to UTF-8 first)`,
    )
  }
}

function isPrefixOfText(bytes: Uint8Array): boolean {
  try {
    new TextDecoder("utf-8", { fatal: true }).decode(bytes, { stream: true })
    return true
  } catch {
    return false
  }
}

/** A text file as one document, in jobs that can be encoded apart. */
export function* textJobs(path: string, blockBytes = BLOCK_BYTES): Generator<Job> {
  let first = true
  for (const { bytes, offset } of blocks(path, blockBytes, lastSafeCut)) {
    yield { kind: "text", path, bytes, offset, first }
    first = false
  }
}

/** A JSON Lines file in jobs of whole lines. */
export function* lineJobs(path: string, blockBytes = BLOCK_BYTES): Generator<Job> {
  let line = 1
  for (const { bytes, offset } of blocks(path, blockBytes, lastLineEnd)) {
    const lines = countLines(bytes) // now: a worker takes the bytes away
    yield { kind: "lines", path, bytes, offset, line }
    line += lines
  }
}

function lastLineEnd(bytes: Uint8Array): number {
  return bytes.lastIndexOf(NEWLINE) + 1
}

function countLines(bytes: Uint8Array): number {
  let lines = 0
  for (const byte of bytes) if (byte === NEWLINE) lines++
  return lines
}

/** Sections, each an own document, in jobs of about equal size. */
export function* documentJobs(documents: Iterable<string>): Generator<Job> {
  let texts: string[] = []
  let length = 0
  for (const text of documents) {
    texts.push(text)
    length += text.length
    if (length < BLOCK_BYTES / 4) continue
    yield { kind: "documents", texts }
    texts = []
    length = 0
  }
  if (texts.length > 0) yield { kind: "documents", texts }
}

/** The end of the longest prefix that tokenizes on its own: a space or newline follows that starts
 * a run of white space, because no token of GPT-2's spans the change to white space. 0: none. */
function lastSafeCut(bytes: Uint8Array): number {
  for (let cut = bytes.length - 1; cut > 0; cut--) {
    if (bytes[cut] !== SPACE && bytes[cut] !== NEWLINE) continue
    const before = new TextDecoder().decode(bytes.subarray(Math.max(0, cut - 4), cut))
    if (/\S$/.test(before)) return cut
  }
  return 0
}

/** A file in blocks that end at the places `lastCut` finds; a block without one is read on. */
function* blocks(
  path: string,
  blockBytes: number,
  lastCut: (bytes: Uint8Array) => number,
): Generator<{ bytes: Uint8Array; offset: number }> {
  const size = fileBytes(path)
  let file: number
  try {
    file = openSync(path, "r")
  } catch (error) {
    throw new UserError(`${path}: cannot read: ${reason(error)} (give the path of a file)`)
  }
  try {
    let offset = 0
    let length = blockBytes
    while (offset < size) {
      let bytes: Uint8Array = readAt(path, file, offset, Math.min(length, size - offset))
      const atEnd = offset + bytes.length >= size
      const cut = atEnd ? bytes.length : lastCut(bytes)
      if (cut === 0) {
        length *= 2
        continue
      }
      bytes = bytes.slice(0, cut)
      if (offset === 0 && BOM.every((byte, i) => bytes[i] === byte)) {
        bytes = bytes.slice(BOM.length) // marks the encoding, is no text
      }
      yield { bytes, offset: offset + cut - bytes.length }
      offset += cut
      length = blockBytes
    }
  } finally {
    closeSync(file)
  }
}

function readAt(path: string, file: number, offset: number, length: number): Uint8Array {
  const bytes = new Uint8Array(length)
  let done = 0
  while (done < length) {
    let read: number
    try {
      read = readSync(file, bytes, done, length - done, offset + done)
    } catch (error) {
      throw new UserError(`${path}: cannot read: ${reason(error)}`)
    }
    if (read === 0) throw new UserError(`${path}: it got shorter while it was read (try again)`)
    done += read
  }
  return bytes
}
