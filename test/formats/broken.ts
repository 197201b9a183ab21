// Files that must be refused: what is in them → what the message says.

import { expect, test } from "bun:test"
import { writeFileSync } from "node:fs"
import { join } from "node:path"
import { UserError } from "../../src/errors.ts"

/** The one line that a user's mistake is answered with. */
export function messageOf(call: () => unknown): string {
  try {
    call()
  } catch (error) {
    expect(error).toBeInstanceOf(UserError)
    const { message } = error as UserError
    expect(message).toMatch(/^[^\n]+\)$/) // ends with the way out
    return message
  }
  throw new Error("not refused")
}

type Row = [title: string, chunks: Uint8Array[], message: string]

/** A test a row: `read` refuses the file by name, with a message that starts so. */
export function refuses(folder: string, read: (path: string) => unknown, rows: Row[]): void {
  test.each(rows)("%s", (_, chunks, message) => {
    const path = join(folder, "broken.bin")
    writeFileSync(path, Buffer.concat(chunks))
    expect(messageOf(() => read(path))).toStartWith(`${path}: ${message}`)
  })
}
