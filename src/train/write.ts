// How a checkpoint comes onto the disk: the files, then DONE, then what may go.

import { closeSync, fsyncSync, openSync, rmSync } from "node:fs"
import { join } from "node:path"
import { reason, syncFolder, writeWhole } from "../data/files.ts"
import { UserError } from "../errors.ts"
import { doneText, type Sums } from "../formats/done.ts"
import { doneName, expired, ownSteps, removeCheckpoint } from "./checkpoint.ts"
import { type Shared, take } from "./gate.ts"

export interface Job {
  folder: string
  step: number
  /** Bytes that are at hand, or numbers of the first and the end of pieces in the trainer's memory. */
  files: { name: string; parts: (Uint8Array | [first: number, end: number])[] }[]
  shared: Shared
  /** Files beside the checkpoint that must be on disk with it. */
  logs: string[]
  keep: number
  keepEvery: number
}

/** Writes a checkpoint. Returns a warning when it is on disk, but an old one could not be deleted.
 * Throws a UserError when it is not on disk: then nothing of it is left. */
export function writeCheckpoint(job: Job): string | undefined {
  const { folder, step, keep, keepEvery } = job
  try {
    writeFiles(job)
  } catch (error) {
    try {
      removeCheckpoint(folder, step) // half a checkpoint only takes room
    } catch {
      // What cannot be deleted has no DONE, and counts for nothing.
    }
    throw worded(error)
  }
  try {
    const steps = ownSteps(folder).filter((other) => other <= step)
    for (const old of expired(steps, keep, keepEvery)) removeCheckpoint(folder, old)
  } catch (error) {
    return worded(error).message
  }
}

function writeFiles({ folder, step, files, shared, logs }: Job): void {
  // A checkpoint of this step may be there from before: not while its files are being replaced.
  rmSync(join(folder, doneName(step)), { force: true })
  syncFolder(folder)
  const sums: Sums = []
  for (const { name, parts } of files) {
    const hash = new Bun.CryptoHasher("sha256")
    writeWhole(join(folder, name), hashed(hash, parts, shared))
    sums.push({ name, sha256: hash.digest("hex") })
  }
  for (const log of logs) sync(join(folder, log))
  writeWhole(join(folder, doneName(step)), [new TextEncoder().encode(doneText(sums))])
}

function* hashed(
  hash: Bun.CryptoHasher,
  parts: Job["files"][number]["parts"],
  shared: Shared,
): Generator<Uint8Array> {
  for (const part of parts) {
    for (const bytes of part instanceof Uint8Array ? [part] : take(shared, ...part)) {
      hash.update(bytes)
      yield bytes
    }
  }
}

function sync(path: string): void {
  const file = openSync(path, "r")
  try {
    fsyncSync(file)
  } finally {
    closeSync(file)
  }
}

/** A system's error as one that the user can do something about; others are bugs of ours. */
function worded(error: unknown): UserError {
  if (error instanceof UserError) return error
  const { path, syscall } = error as NodeJS.ErrnoException
  if (syscall === undefined) throw error
  return new UserError(`${path}: cannot ${syscall}: ${reason(error)}`)
}
