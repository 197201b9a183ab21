// A file of a server, onto the disk: it goes on where it was broken off, and is checked as it comes.

import { createHash } from "node:crypto"
import {
  closeSync,
  constants,
  createReadStream,
  fstatSync,
  fsyncSync,
  ftruncateSync,
  openSync,
  renameSync,
  rmSync,
  statSync,
  writeSync,
} from "node:fs"
import { UserError } from "../errors.ts"
import { lockHandle } from "../native/lock.ts"
import { bodyOf, type Fetching } from "./download.ts"
import { reason, thousands, wayOut as wayOutOf } from "./files.ts"

export type RemoteFile = {
  url: string
  bytes: number
  /** SHA-256 or, of 40 digits, git's; undefined where the server tells none. */
  checksum: string | undefined
}

/** Downloads a file to `path`, or goes on with what an earlier run left of it. */
export async function fetchFile(file: RemoteFile, path: string, fetching: Fetching): Promise<void> {
  const { url, bytes, checksum } = file
  if (sizeOf(path) === bytes) return
  const partial = `${path}.incomplete`
  let handle: number | undefined
  try {
    handle = openSync(partial, constants.O_RDWR | constants.O_CREAT, 0o644)
    if (!lockHandle(handle)) {
      throw new UserError(`${partial}: another llm downloads it (wait until it is there)`)
    }
    // Only a checksum can tell whether an older beginning belongs to what comes now.
    const there = fstatSync(handle).size
    let done = checksum !== undefined && there <= bytes ? there : 0
    ftruncateSync(handle, done)
    const hash = hashOf(file)
    if (done > 0) for await (const chunk of createReadStream(partial)) hash.update(chunk)
    for await (const chunk of done < bytes ? bodyOf(url, { ...fetching, from: done }) : []) {
      for (let put = 0; put < chunk.length; ) {
        put += writeSync(handle, chunk, put, chunk.length - put, done + put)
      }
      hash.update(chunk)
      done += chunk.length
      if (done > bytes) break
    }
    fsyncSync(handle)
    const found = hash.digest("hex")
    if (done === bytes && found === (checksum ?? found)) return renameSync(partial, path)
    rmSync(partial)
    const what =
      done === bytes
        ? `its checksum is ${found}, not ${checksum}`
        : `${thousands(done)} bytes, but ${thousands(bytes)} were promised`
    throw new UserError(`${url}: ${what} (what came was deleted: run it again)`)
  } catch (error) {
    if (error instanceof UserError || fetching.signal?.aborted) throw error
    throw new UserError(`${partial}: cannot write: ${reason(error)} (${wayOutOf(error)})`)
  } finally {
    if (handle !== undefined) closeSync(handle)
  }
}

function hashOf({ checksum, bytes }: RemoteFile) {
  return checksum?.length === 40
    ? createHash("sha1").update(`blob ${bytes}\0`)
    : createHash("sha256")
}

const sizeOf = (path: string) => statSync(path, { throwIfNoEntry: false })?.size
