// The thread that writes checkpoints, one at a time: the files, then DONE, then what may go.

import { closeSync, fsyncSync, openSync, rmSync } from "node:fs"
import { join } from "node:path"
import { syncFolder, writeWhole } from "../data/files.ts"
import { UserError } from "../errors.ts"
import { doneText, type Sums } from "../formats/done.ts"
import { completeSteps, doneName, expired, removeCheckpoint } from "./checkpoint.ts"
import { release, type Shared, take } from "./gate.ts"

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
export type Answer = { done: true } | { userError: string } | { bug: string }

declare const self: Worker

self.onmessage = ({ data }: MessageEvent<Job>) => {
  let answer: Answer = { done: true }
  try {
    write(data)
  } catch (error) {
    const { message, stack } = error as Error
    answer = error instanceof UserError ? { userError: message } : { bug: stack ?? message }
  } finally {
    release(data.shared)
  }
  self.postMessage(answer)
}

function write({ folder, step, files, shared, logs, keep, keepEvery }: Job): void {
  // A checkpoint of this step may be there from before: not while its files are being replaced.
  rmSync(join(folder, doneName(step)), { force: true })
  syncFolder(folder)
  const sums: Sums = []
  try {
    for (const { name, parts } of files) {
      const hash = new Bun.CryptoHasher("sha256")
      writeWhole(join(folder, name), hashed(hash, parts, shared))
      sums.push({ name, sha256: hash.digest("hex") })
    }
    for (const log of logs) sync(join(folder, log))
    writeWhole(join(folder, doneName(step)), [new TextEncoder().encode(doneText(sums))])
  } catch (error) {
    removeCheckpoint(folder, step) // half a checkpoint only takes room
    throw error
  }
  const old = completeSteps(folder).filter((other) => other <= step)
  for (const other of expired(old, keep, keepEvery)) removeCheckpoint(folder, other)
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
