// A file that is open for reading, piece by piece: a model may be larger than the memory that is left.

import { closeSync, openSync, readSync } from "node:fs"
import { fileBytes, reason } from "../data/files.ts"
import { UserError } from "../errors.ts"

const MAX_READ = 2 ** 30 // bytes: Linux reads at most 2³¹ − 4096 at once

export class InputFile {
  readonly bytes: number
  private readonly handle: number

  /** `hint` is the way out where there is no such file. */
  constructor(
    readonly path: string,
    hint: string,
  ) {
    this.bytes = fileBytes(path, hint)
    try {
      this.handle = openSync(path, "r")
    } catch (error) {
      throw this.wrong(`cannot read: ${reason(error)}`, hint)
    }
  }

  close(): void {
    closeSync(this.handle)
  }

  /** A user's mistake in this file. */
  wrong(what: string, wayOut: string): UserError {
    return new UserError(`${this.path}: ${what} (${wayOut})`)
  }

  /** Fills `into` from byte `position` on. */
  read(into: Uint8Array, position: number): void {
    for (let done = 0; done < into.length; ) {
      const wanted = Math.min(into.length - done, MAX_READ)
      let got: number
      try {
        got = readSync(this.handle, into, done, wanted, position + done)
      } catch (error) {
        throw this.wrong(`cannot read: ${reason(error)}`, "copy it again")
      }
      if (got === 0) throw this.wrong("it became shorter while it was read", "copy it again")
      done += got
    }
  }
}
