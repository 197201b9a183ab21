// Tokens that wait on the disk until it is known where they are cut.

import { closeSync, mkdtempSync, openSync, readSync, rmSync, writeSync } from "node:fs"
import { join } from "node:path"
import { UserError } from "../errors.ts"
import { reason, wayOut } from "./files.ts"

/** Tokens that may be too many for the memory. */
export type TokenRun = { length: number; slice(first: number, end: number): Uint16Array }

/** Tokens [start, end) of a run. */
export function part(run: TokenRun, start: number, end: number): TokenRun {
  return { length: end - start, slice: (first, last) => run.slice(start + first, start + last) }
}

export class Spool implements TokenRun {
  length = 0
  private readonly handle: number

  /** A file that has no name any more once it is open, so that nothing is left of it. */
  constructor(private readonly folder: string) {
    try {
      const own = mkdtempSync(join(folder, ".tokens-"))
      try {
        this.handle = openSync(join(own, "tokens"), "wx+")
      } finally {
        rmSync(own, { recursive: true })
      }
    } catch (error) {
      throw this.failure("write", error)
    }
  }

  append(tokens: Uint16Array): void {
    const bytes = new Uint8Array(tokens.buffer, tokens.byteOffset, tokens.byteLength)
    try {
      for (let done = 0; done < bytes.length; ) done += writeSync(this.handle, bytes, done)
    } catch (error) {
      throw this.failure("write", error)
    }
    this.length += tokens.length
  }

  slice(first: number, end: number): Uint16Array {
    const tokens = new Uint16Array(end - first)
    const bytes = new Uint8Array(tokens.buffer)
    try {
      for (let done = 0; done < bytes.length; ) {
        const got = readSync(this.handle, bytes, done, bytes.length - done, 2 * first + done)
        if (got === 0) throw new Error("it became shorter")
        done += got
      }
    } catch (error) {
      throw this.failure("read", error)
    }
    return tokens
  }

  close(): void {
    closeSync(this.handle)
  }

  private failure(verb: string, error: unknown): UserError {
    return new UserError(
      `${this.folder}: cannot ${verb} there: ${reason(error)} (${wayOut(error)})`,
    )
  }
}
