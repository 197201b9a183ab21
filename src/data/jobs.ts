// Text is tokenized in jobs, each on its own. A job is cut so that the tokens of its parts, one
// after the other, are the tokens of the whole.

import { UserError } from "../errors.ts"
import { thousands } from "./files.ts"
import { END_OF_TEXT, type Encode } from "./tokenizer.ts"

export type Job =
  /** Whole documents. */
  | { kind: "documents"; texts: string[] }
  /** A part of one document in UTF-8; `offset` is its place in the file. */
  | { kind: "text"; path: string; bytes: Uint8Array; offset: number; first: boolean }
  /** Whole lines, each a JSON object with a text; `line` is the number of the first. */
  | (Block & { kind: "lines"; line: number })
  /** Elements of a JSON array, with their commas; `element` is the number of the first. */
  | (Block & { kind: "elements"; element: number; only: boolean })
  /** Rows [start, end) of a Parquet file. */
  | { kind: "rows"; path: string; field: string; start: number; end: number }

/** A part of a file in UTF-8. Objects have their text under `field`. */
type Block = { path: string; bytes: Uint8Array; offset: number; field: string }

/** The tokens of a job, an end-of-text before each document. */
export async function runJob(job: Job, encode: Encode): Promise<Uint16Array> {
  const tokens = new TokenBuffer()
  if (job.kind === "text") {
    if (job.first) tokens.add([END_OF_TEXT])
    tokens.add(encode(decodeUtf8(job.path, job.bytes, job.offset)))
    return tokens.take()
  }
  for (const text of await textsOf(job)) {
    tokens.add([END_OF_TEXT])
    tokens.add(encode(text))
  }
  return tokens.take()
}

/** The documents of a job. */
export async function textsOf(job: Exclude<Job, { kind: "text" }>): Promise<Iterable<string>> {
  if (job.kind === "documents") return job.texts
  if (job.kind === "lines") return textsOfLines(job)
  if (job.kind === "elements") return textsOfElements(job)
  const { readRows } = await import("./parquet.ts")
  return readRows(job)
}

function* textsOfLines(job: Job & { kind: "lines" }): Generator<string> {
  const { path, field } = job
  const lines = decodeUtf8(path, job.bytes, job.offset).split("\n")
  for (const [index, line] of lines.entries()) {
    if (line.trim() === "") continue
    const where = `${path}: line ${thousands(job.line + index)}`
    let object: unknown
    try {
      object = JSON.parse(line)
    } catch {
      throw new UserError(
        `${where} is not JSON (each line must be an object such as {"${field}": "…"})`,
      )
    }
    yield textOf(object, field, where, "each line is one document")
  }
}

function* textsOfElements(job: Job & { kind: "elements" }): Generator<string> {
  const { path, field, element: first } = job
  const text = decodeUtf8(path, job.bytes, job.offset)
  let elements: unknown[] = []
  try {
    elements = JSON.parse(`[${text}]`)
  } catch {}
  if (elements.length === 0 && !(job.only && text.trim() === "")) {
    throw new UserError(
      `${path}: not JSON from element ${thousands(first)} on (it must be an array of objects such as {"${field}": "…"}, or of strings)`,
    )
  }
  for (const [index, element] of elements.entries()) {
    const where = `${path}: element ${thousands(first + index)}`
    yield typeof element === "string"
      ? element
      : textOf(element, field, where, "each element is one document")
  }
}

function textOf(object: unknown, field: string, where: string, rule: string): string {
  const text = (object as Record<string, unknown> | null)?.[field]
  if (typeof text === "string") return text
  const other = field === "text" ? "; --field NAME names another" : ""
  throw new UserError(`${where} has no "${field}" that is a string (${rule}${other})`)
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

/** Whether bytes are UTF-8, but for a character that may be cut off at their end. */
export function isPrefixOfText(bytes: Uint8Array): boolean {
  try {
    new TextDecoder("utf-8", { fatal: true }).decode(bytes, { stream: true })
    return true
  } catch {
    return false
  }
}

/** Tokens that come in lists. */
class TokenBuffer {
  private tokens = new Uint16Array(2 ** 17)
  private length = 0

  add(more: number[]): void {
    const end = this.length + more.length
    if (end > this.tokens.length) {
      const larger = new Uint16Array(Math.max(end, 2 * this.tokens.length))
      larger.set(this.tokens)
      this.tokens = larger
    }
    this.tokens.set(more, this.length)
    this.length = end
  }

  /** The tokens, with memory of their own. */
  take(): Uint16Array {
    return this.tokens.slice(0, this.length)
  }
}
