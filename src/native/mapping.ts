// Read-only views of files. Bun.mmap opens a file for writing as well, so it refuses the read-only
// files and folders that data sets often live in; this asks for no more than reading.

import { type Pointer, toArrayBuffer } from "bun:ffi"
import { closeSync, openSync } from "node:fs"
import { assert } from "../errors.ts"
import { libc, MAP_PRIVATE, PROT_READ } from "./libc.ts"

/** The longest view that Bun makes of native memory. */
export const MAX_MAP_BYTES = 2 ** 32

/** The first `bytes` of a file, mapped for the life of the process. Writing to the view is a
 * fault. Throws the system's error when the file cannot be opened. */
export function mapFile(path: string, bytes: number): ArrayBuffer {
  assert(
    Number.isSafeInteger(bytes) && bytes > 0 && bytes <= MAX_MAP_BYTES,
    `cannot map ${bytes} bytes`,
  )
  const file = openSync(path, "r")
  try {
    const address = Number(libc().mmap(0, bytes, PROT_READ, MAP_PRIVATE, file, 0))
    if (address === -1) throw new Error(`the system refuses to map ${bytes} bytes`)
    return toArrayBuffer(address as Pointer, 0, bytes)
  } finally {
    closeSync(file)
  }
}
