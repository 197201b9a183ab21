// Reads a tar archive as it comes: names and sizes from its headers of 512 bytes, all else skipped.

import { UserError } from "../errors.ts"
import type { Chunks } from "./chunks.ts"

const BLOCK = 512
const FILES = ["0", "\0"] // types of an entry that is a regular file

/** Hands every regular file's name and content to `take`, one after the other. */
export async function readTar(
  path: string,
  chunks: Chunks,
  take: (name: string, content: Chunks) => Promise<void>,
): Promise<void> {
  const wrong = (what: string) => new UserError(`${path}: ${what} (copy it again)`)
  const source = chunks[Symbol.asyncIterator]()
  let held: Uint8Array = new Uint8Array(0)

  /** The next bytes, `count` of them in all. */
  async function* next(count: number): AsyncGenerator<Uint8Array> {
    for (let left = count; left > 0; ) {
      if (held.length === 0) {
        const { value, done } = await source.next()
        if (done) throw wrong("the archive is cut short")
        held = value
        continue
      }
      const piece = held.subarray(0, Math.min(left, held.length))
      held = held.subarray(piece.length)
      left -= piece.length
      yield piece
    }
  }
  const pass = async (content: Chunks) => {
    for await (const _ of content);
  }

  for (;;) {
    const pieces: Uint8Array[] = []
    for await (const piece of next(BLOCK)) pieces.push(piece)
    const header = Buffer.concat(pieces)
    if (header.every((byte) => byte === 0)) break // the end
    checkSum(header, () => wrong("not a tar archive"))
    const size = octal(header, 124, 12)
    const padding = (BLOCK - (size % BLOCK)) % BLOCK
    const isFile = FILES.includes(String.fromCharCode(header[156]!))
    const content = next(size)
    if (isFile) await take(text(header, 0, 100), content)
    await pass(content)
    await pass(next(padding))
  }
  for (;;) if ((await source.next()).done) return // a compressed file's own checks are at its end
}

function text(header: Buffer, start: number, length: number): string {
  const field = header.subarray(start, start + length)
  const end = field.indexOf(0)
  return field.toString("utf8", 0, end < 0 ? length : end)
}

function octal(header: Buffer, start: number, length: number): number {
  return Number.parseInt(text(header, start, length).trim(), 8)
}

/** A header's sum counts its own eight bytes as spaces. */
function checkSum(header: Buffer, error: () => Error): void {
  const sum = header.reduce((a, byte, i) => a + (i >= 148 && i < 156 ? 0x20 : byte), 0)
  if (octal(header, 148, 8) !== sum || Number.isNaN(octal(header, 124, 12))) throw error()
}
