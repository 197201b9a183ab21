// The file DONE_<step>, written last: the checkpoint's files and their SHA-256, as `sha256sum -c` reads
// them. llm.c looks for the name alone, and leaves its own empty.

import { closeSync, existsSync, openSync, readFileSync, readSync } from "node:fs"
import { join } from "node:path"
import { fileBytes, reason } from "../data/files.ts"
import { UserError } from "../errors.ts"

const PIECE = 2 ** 22 // bytes
const MAX_BYTES = 2 ** 20 // more names no checkpoint has

export type Sums = { name: string; sha256: string }[]

export function doneText(sums: Sums): string {
  return sums.map(({ name, sha256 }) => `${sha256}  ${name}\n`).join("")
}

/** A checkpoint that is proven not to be what it was when it was written. */
export class Damaged extends UserError {}

/** Refuses a checkpoint whose DONE file does not list exactly these files of its folder, or one that
 * is not what it was: those are Damaged. Throws another UserError for a file that cannot be read.
 * `check`: of these alone the sums are compared. */
export function verifyDone(folder: string, done: string, names: string[], check = names): void {
  const path = join(folder, done)
  const wrong = (what: string) => new Damaged(`${path}: ${what}`)
  if (fileBytes(path) > MAX_BYTES) throw wrong("it is too long for a list of checksums")
  const text = readText(path)
  const lines = text.split("\n")
  if (lines.pop() !== "") throw wrong("its last line is cut short")
  const sums = lines.map((line, i) => {
    const match = /^([0-9a-f]{64}) {2}(\S+)$/.exec(line)
    if (!match) throw wrong(`line ${i + 1} is no checksum and name`)
    return { sha256: match[1]!, name: match[2]! }
  })
  // The names say nothing that is not known: so none of them can lead out of the folder.
  if (sums.map(({ name }) => name).join() !== names.join()) {
    throw wrong(`it does not list ${names.join(" and ")}`)
  }
  for (const { name, sha256 } of sums.filter(({ name }) => check.includes(name))) {
    const file = join(folder, name)
    if (!existsSync(file)) throw new Damaged(`${file}: it is gone`)
    fileBytes(file) // a regular one: nothing else is to be opened
    if (fileSum(file) !== sha256) {
      throw new Damaged(`${file}: it is damaged: its checksum is not ${done}'s`)
    }
  }
}

function readText(path: string): string {
  try {
    return readFileSync(path, "utf8")
  } catch (error) {
    throw new UserError(`${path}: cannot read: ${reason(error)}`)
  }
}

/** SHA-256 of a file, in hexadecimal digits. */
export function fileSum(path: string): string {
  const hash = new Bun.CryptoHasher("sha256")
  const piece = new Uint8Array(PIECE)
  let file: number | undefined
  try {
    file = openSync(path, "r")
    for (;;) {
      const got = readSync(file, piece)
      if (got === 0) return hash.digest("hex")
      hash.update(piece.subarray(0, got))
    }
  } catch (error) {
    throw new UserError(`${path}: cannot read: ${reason(error)}`)
  } finally {
    if (file !== undefined) closeSync(file)
  }
}
