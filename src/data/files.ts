// Reading and writing whole files with a user's mistakes worded, and never half a file left behind.

import {
  closeSync,
  fsyncSync,
  mkdirSync,
  openSync,
  renameSync,
  rmdirSync,
  rmSync,
  type Stats,
  statSync,
  writeSync,
} from "node:fs"
import { basename, dirname, join, resolve } from "node:path"
import { UserError } from "../errors.ts"

const REASONS: Record<string, string> = {
  ENOENT: "no such file or folder",
  ENOTDIR: "a part of the path is not a folder",
  EISDIR: "it is a folder",
  EEXIST: "a file of that name is in the way",
  EACCES: "permission denied",
  EPERM: "permission denied",
  EROFS: "the file system is read-only",
  ENOSPC: "the disk is full",
  EDQUOT: "the disk quota is used up",
  EFBIG: "the file would pass the size limit",
  ENAMETOOLONG: "the name is too long",
  ELOOP: "the symbolic links form a loop",
  EMFILE: "too many open files",
  EIO: "the device reports an error",
}

/** 1234567 → "1,234,567" */
export const thousands = (n: number): string => n.toLocaleString("en-US")

/** A system error in words. */
export function reason(error: unknown): string {
  const { code, message } = error as NodeJS.ErrnoException
  return REASONS[code ?? ""] ?? message
}

const ROOM = ["ENOSPC", "EDQUOT", "EFBIG"]

/** Whether more room would have helped. */
export function isOutOfRoom(error: unknown): boolean {
  return ROOM.includes((error as NodeJS.ErrnoException).code ?? "")
}

/** What can be done about a file that cannot be written. */
export function wayOut(error: unknown, another = "another folder"): string {
  return isOutOfRoom(error) ? `free some space or choose ${another}` : `choose ${another}`
}

/** Makes a folder that an option names. Returns what takes it away again, and those above it that it
 * made, as far as they are empty. */
export function makeFolder(option: string, path: string): () => void {
  let made: string | undefined // the first folder of the path that was not there
  try {
    made = mkdirSync(path, { recursive: true })
  } catch (error) {
    throw new UserError(
      `${option} ${path}: cannot make the folder: ${reason(error)} (choose another)`,
    )
  }
  return () => {
    if (made === undefined) return
    const first = resolve(made)
    try {
      for (let folder = resolve(path); folder.startsWith(first); folder = dirname(folder)) {
        rmdirSync(folder)
      }
    } catch {
      // Something else lies there by now.
    }
  }
}

/** Refuses a folder that takes no files, before the work whose results go there; leaves nothing. */
export function checkFolder(option: string, path: string): void {
  const remove = makeFolder(option, path)
  const file = temporaryName(join(path, "check"))
  try {
    closeSync(openSync(file, "wx"))
    rmSync(file)
  } catch (error) {
    throw new UserError(
      `${option} ${path}: cannot write there: ${reason(error)} (${wayOut(error, "another")})`,
    )
  } finally {
    remove()
  }
}

function temporaryName(path: string): string {
  return join(dirname(path), `.${basename(path)}.${crypto.randomUUID().slice(0, 8)}.tmp`)
}

/** The file that a temporary name stands for; undefined for other names. */
export function temporaryFor(name: string): string | undefined {
  return /^\.(.+)\.[0-9a-f]{8}\.tmp$/.exec(name)?.[1]
}

/** The size of a regular file that exists. `hint` is the way out, in brackets. */
export function fileBytes(path: string, hint = "give the path of a file"): number {
  let stats: Stats
  try {
    stats = statSync(path)
  } catch (error) {
    throw new UserError(`${path}: cannot read: ${reason(error)} (${hint})`)
  }
  if (stats.isDirectory()) throw new UserError(`${path}: it is a folder (${hint})`)
  if (!stats.isFile()) throw new UserError(`${path}: not a regular file (${hint})`)
  return stats.size
}

/** A file that gets its name when it is whole: it is written under a temporary one in the same folder,
 * synced, renamed. */
export class NewFile {
  private readonly temporary: string
  private handle: number | undefined

  constructor(readonly path: string) {
    this.temporary = temporaryName(path)
    this.attempt(() => {
      this.handle = openSync(this.temporary, "wx")
    })
  }

  /** Writes at the end, or from byte `position` on. */
  write(chunk: Uint8Array, position?: number): void {
    this.attempt((handle) => {
      for (let done = 0; done < chunk.length; ) {
        const at = position === undefined ? null : position + done
        done += writeSync(handle!, chunk, done, chunk.length - done, at)
      }
    })
  }

  commit(): void {
    this.attempt((handle) => {
      fsyncSync(handle!)
      this.handle = undefined
      closeSync(handle!)
      renameSync(this.temporary, this.path)
      syncFolder(dirname(this.path))
    })
  }

  /** Takes away what was written. */
  discard(): void {
    if (this.handle !== undefined) closeSync(this.handle)
    this.handle = undefined
    rmSync(this.temporary, { force: true })
  }

  private attempt(work: (handle: number | undefined) => void): void {
    try {
      work(this.handle)
    } catch (error) {
      // A name that is too long, say, cannot be taken away either.
      if ((error as NodeJS.ErrnoException).syscall !== "open") this.discard()
      throw new UserError(`${this.path}: cannot write: ${reason(error)} (${wayOut(error)})`)
    }
  }
}

/** Writes a file of these chunks. */
export function writeWhole(path: string, chunks: Iterable<Uint8Array>): void {
  const file = new NewFile(path)
  try {
    for (const chunk of chunks) file.write(chunk)
  } catch (error) {
    file.discard()
    throw error
  }
  file.commit()
}

/** Makes names that were given or taken in a folder last. The files are whole already, so a system that
 * does not sync folders, or a folder that may not be read, is no failure. */
export function syncFolder(folder: string): void {
  let handle: number | undefined
  try {
    handle = openSync(folder, "r")
    fsyncSync(handle)
  } catch {
  } finally {
    if (handle !== undefined) closeSync(handle)
  }
}
