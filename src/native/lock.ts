// One process a run folder, or a download: an advisory lock on an open file, which the system takes
// back whenever and however the process ends.

import { read } from "bun:ffi"
import { closeSync, openSync } from "node:fs"
import { resolve } from "node:path"
import { libc } from "./libc.ts"

const LOCK_EX = 2
const LOCK_NB = 4
const EWOULDBLOCK = 11

const held = new Set<string>()

/** Takes the lock on a file, which is made if need be, until the process ends. False when another
 * process has it. A file system without locks lets everybody in. */
export function lockFile(path: string): boolean {
  if (held.has(resolve(path))) return true
  const file = openSync(path, "a")
  if (!lockHandle(file)) {
    closeSync(file)
    return false
  }
  held.add(resolve(path))
  return true
}

/** The same for a file that is open, until it is closed. */
export function lockHandle(file: number): boolean {
  const { flock, __errno_location } = libc()
  if (flock(file, LOCK_EX | LOCK_NB) === 0) return true
  return read.i32(__errno_location()!) !== EWOULDBLOCK
}
