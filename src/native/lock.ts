// One process a run folder: an advisory lock on an open file, which the system takes back whenever
// and however the process ends.

import { closeSync, openSync } from "node:fs"
import { libc } from "./libc.ts"

const LOCK_EX = 2
const LOCK_NB = 4

/** Takes the lock on a file, which is made if need be, until the process ends. False when another
 * process has it, or when the file system knows no locks. */
export function lockFile(path: string): boolean {
  const file = openSync(path, "a")
  if (libc().flock(file, LOCK_EX | LOCK_NB) === 0) return true
  closeSync(file)
  return false
}
