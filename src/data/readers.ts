// From content in pieces to jobs.

import { UserError } from "../errors.ts"
import type { Chunks } from "./chunks.ts"
import { thousands } from "./files.ts"
import type { Job } from "./jobs.ts"
import { ArrayScan } from "./json-array.ts"

const BLOCK_BYTES = 2 ** 19
const NEWLINE = 0x0a
const SPACE = 0x20
const BOM = [0xef, 0xbb, 0xbf]

/** A text as one document, in jobs that can be encoded apart. */
export async function* textJobs(
  path: string,
  chunks: Chunks,
  blockBytes = BLOCK_BYTES,
): AsyncGenerator<Job> {
  let first = true
  for await (const { bytes, offset } of blocks(chunks, blockBytes, lastSafeCut)) {
    yield { kind: "text", path, bytes, offset, first }
    first = false
  }
}

/** JSON Lines in jobs of whole lines. */
export async function* lineJobs(
  path: string,
  field: string,
  chunks: Chunks,
  blockBytes = BLOCK_BYTES,
): AsyncGenerator<Job> {
  let line = 1
  for await (const { bytes, offset } of blocks(chunks, blockBytes, lastLineEnd)) {
    const lines = countLines(bytes) // now: a worker takes the bytes away
    yield { kind: "lines", path, field, bytes, offset, line }
    line += lines
  }
}

function lastLineEnd(bytes: Uint8Array): number {
  return bytes.lastIndexOf(NEWLINE) + 1
}

function countLines(bytes: Uint8Array): number {
  let lines = 0
  for (let end = bytes.indexOf(NEWLINE); end >= 0; end = bytes.indexOf(NEWLINE, end + 1)) lines++
  return lines
}

/** Documents in jobs of about equal size. */
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

/** Content in blocks that end at the places `lastCut` finds; a block without one is read on. */
async function* blocks(
  chunks: Chunks,
  blockBytes: number,
  lastCut: (bytes: Uint8Array) => number,
): AsyncGenerator<{ bytes: Uint8Array; offset: number }> {
  let wanted = blockBytes
  let isStart = true
  const held = new Held()
  for await (const chunk of chunks) {
    held.push(chunk)
    if (isStart && held.length >= BOM.length) {
      isStart = false
      const start = held.join()
      if (BOM.every((byte, i) => start[i] === byte)) held.take(BOM.length) // no text
    }
    while (held.length > wanted) {
      const cut = lastCut(held.join().subarray(0, wanted))
      if (cut === 0) {
        wanted *= 2
        continue
      }
      const { offset } = held
      yield { bytes: held.take(cut), offset }
      wanted = blockBytes
    }
  }
  const { offset, length } = held
  if (length > 0) yield { bytes: held.take(length), offset }
}

/** The elements of a JSON array, in jobs that end before a comma between two of them. */
export async function* elementJobs(
  path: string,
  field: string,
  chunks: Chunks,
  blockBytes = BLOCK_BYTES,
): AsyncGenerator<Job> {
  const held = new Held()
  const scan = new ArrayScan()
  let element = 1
  for await (const chunk of chunks) {
    let base = held.length // the chunk's place
    held.push(chunk)
    const { start, comma, end, wrong } = scan.push(chunk)
    if (wrong !== undefined) {
      const place = thousands(held.offset + base + wrong)
      throw new UserError(
        `${path}: not a JSON array at byte ${place} (a .json file is an array of objects such as {"${field}": "…"}, or of strings; a .jsonl file has an object a line)`,
      )
    }
    if (start !== undefined) {
      held.take(base + start + 1)
      base = -(start + 1)
    }
    const cut = base + (end ?? comma ?? -base)
    if (end === undefined && cut < blockBytes) continue
    const { offset } = held
    const bytes = held.take(cut)
    held.take(1) // the comma or the bracket
    const only = end !== undefined && element === 1
    yield { kind: "elements", path, field, bytes, offset, element, only }
    element = scan.commas + 1
  }
  if (!scan.hasEnded) throw new UserError(`${path}: it ends within its array (copy it again)`)
}

/** Bytes that are in no job yet; `offset` is the first one's place in the file. */
class Held {
  offset = 0
  length = 0
  private pieces: Uint8Array[] = []

  push(piece: Uint8Array): void {
    this.pieces.push(piece)
    this.length += piece.length
  }

  join(): Uint8Array {
    if (this.pieces.length !== 1) this.pieces = [Buffer.concat(this.pieces)]
    return this.pieces[0]!
  }

  /** Takes the first bytes out, with memory of their own. */
  take(count: number): Uint8Array {
    const all = this.join()
    this.pieces = [all.subarray(count)]
    this.length -= count
    this.offset += count
    return new Uint8Array(all.subarray(0, count))
  }
}
