// One file of the hub, into its cache: begun again where it was broken off, and checked as it comes.

import { createHash, type Hash } from "node:crypto"
import {
  closeSync,
  constants,
  fstatSync,
  fsyncSync,
  ftruncateSync,
  openSync,
  readSync,
  renameSync,
  rmSync,
  writeSync,
} from "node:fs"
import { receive } from "../data/download.ts"
import { reason, thousands, wayOut } from "../data/files.ts"
import { type Out, Progress } from "../data/progress.ts"
import { UserError } from "../errors.ts"
import { lockHandle } from "../native/lock.ts"

const PIECE = 2 ** 20 // bytes that are read at once
const AGAIN = "run it again: it goes on from there"

export interface Blob {
  url: string
  headers: Record<string, string>
  size: number
  /** SHA-256 or, of 40 digits, git's. */
  checksum: string
  /** Where it goes; beside it, what came of it so far. */
  blob: string
  /** Of the progress bar, if there is to be one. */
  title?: string
  /** What it means that the server answers so. */
  refused(status: number): UserError
}

export async function fetchBlob(file: Blob, stderr: Out): Promise<void> {
  const partial = `${file.blob}.incomplete`
  const handle = openSync(partial, constants.O_RDWR | constants.O_CREAT, 0o644)
  const progress = file.title === undefined ? undefined : new Progress(file.title, stderr)
  try {
    if (!lockHandle(handle)) {
      throw new UserError(`${partial}: another llm downloads it (wait until it is there)`)
    }
    const found = await new Download(file, handle, progress).run()
    fsyncSync(handle)
    if (found !== file.checksum) {
      rmSync(partial)
      const both = `its checksum is ${found}, not ${file.checksum}`
      throw new UserError(`${file.url}: ${both} (what came was deleted: run it again)`)
    }
    renameSync(partial, file.blob)
    progress?.finish(file.size)
  } catch (error) {
    progress?.clear()
    if (error instanceof UserError) throw error
    throw new UserError(`${partial}: cannot write: ${reason(error)} (${wayOut(error)})`)
  } finally {
    closeSync(handle)
  }
}

/** Fills an open file, from where it ends. */
class Download {
  private done = 0
  private hash: Hash

  constructor(
    private readonly file: Blob,
    private readonly handle: number,
    private readonly progress?: Progress,
  ) {
    this.hash = this.newHash()
  }

  /** The checksum of what is then in the file. */
  async run(): Promise<string> {
    const { url, size, headers } = this.file
    this.goOn()
    if (this.done < size) {
      const range = this.done > 0 ? { range: `bytes=${this.done}-` } : undefined
      await receive(url, AGAIN, {
        headers: { ...headers, ...range, "accept-encoding": "identity" },
        begin: (response) => this.begin(response),
        take: (chunk) => this.take(chunk),
      })
    }
    if (this.done < size) {
      const came = `${thousands(this.done)} of ${thousands(size)} bytes`
      throw new UserError(`${url}: broke off after ${came} (${AGAIN})`)
    }
    return this.hash.digest("hex")
  }

  private newHash(): Hash {
    const { checksum, size } = this.file
    return checksum.length === 64
      ? createHash("sha256")
      : createHash("sha1").update(`blob ${size}\0`)
  }

  /** Takes what came before as done, unless it is too much to be a part. */
  private goOn(): void {
    const { size } = fstatSync(this.handle)
    if (size > this.file.size) ftruncateSync(this.handle)
    const piece = Buffer.alloc(Math.min(PIECE, size))
    while (this.done < size) {
      const read = readSync(this.handle, piece, 0, piece.length, this.done)
      if (read === 0) break
      this.hash.update(piece.subarray(0, read))
      this.done += read
    }
  }

  private begin({ ok, status, headers }: Response): void {
    if (!ok && status !== 416) throw this.file.refused(status)
    if (status === 206 && headers.get("content-range")?.startsWith(`bytes ${this.done}-`)) return
    // All of it comes, or nothing that can go on from there.
    ftruncateSync(this.handle)
    this.done = 0
    this.hash = this.newHash()
    if (status === 200) return
    const what = `the server sends another part than was asked for (${status})`
    throw new UserError(`${this.file.url}: ${what} (what came was deleted: run it again)`)
  }

  private take(chunk: Uint8Array): void {
    const { url, size } = this.file
    if (this.done + chunk.length > size) {
      throw new UserError(`${url}: the server sends more than ${thousands(size)} bytes (${AGAIN})`)
    }
    try {
      for (let at = 0; at < chunk.length; ) {
        at += writeSync(this.handle, chunk, at, chunk.length - at, this.done + at)
      }
    } catch (error) {
      const what = `cannot write: ${reason(error)} (${wayOut(error)})`
      throw new UserError(`${this.file.blob}: ${what}`)
    }
    this.hash.update(chunk)
    this.done += chunk.length
    this.progress?.update(this.done, size)
  }
}
