// Read-only views of files. Bun.mmap opens a file for writing as well, so it refuses the read-only
// files and folders that data sets often live in; this asks for no more than reading.

import { dlopen, type Pointer, toArrayBuffer } from "bun:ffi"
import { closeSync, openSync } from "node:fs"
import { assert } from "../errors.ts"

const PROT_READ = 1
const MAP_PRIVATE = 2

/** The longest view that Bun makes of native memory. */
export const MAX_MAP_BYTES = 2 ** 32

let libc: ReturnType<typeof openLibc> | undefined
function openLibc() {
  return dlopen("libc.so.6", {
    mmap: { args: ["u64", "u64", "i32", "i32", "i32", "i64"], returns: "i64" },
  }).symbols
}

/** The first `bytes` of a file, mapped for the life of the process. Writing to the view is a
 * fault. Throws the system's error when the file cannot be opened. */
export function mapFile(path: string, bytes: number): ArrayBuffer {
  assert(
    Number.isSafeInteger(bytes) && bytes > 0 && bytes <= MAX_MAP_BYTES,
    `cannot map ${bytes} bytes`,
  )
  libc ??= openLibc()
  const file = openSync(path, "r")
  try {
    const address = Number(libc.mmap(0, bytes, PROT_READ, MAP_PRIVATE, file, 0))
    if (address === -1) throw new Error(`the system refuses to map ${bytes} bytes`)
    return toArrayBuffer(address as Pointer, 0, bytes)
  } finally {
    closeSync(file)
  }
}
