// A person's own texts: which files a path stands for, and the jobs that are in them.

import { type Dirent, readdirSync, statSync } from "node:fs"
import { basename, extname, join, resolve } from "node:path"
import { UserError } from "../errors.ts"
import { chunksOf, type Meter, withoutCompression } from "./chunks.ts"
import { fileBytes, reason } from "./files.ts"
import type { Job } from "./jobs.ts"
import { elementJobs, lineJobs, textJobs } from "./readers.ts"

type Read = (path: string, field: string, meter: Meter) => AsyncIterable<Job>

const READERS: Record<string, Read> = {
  ".txt": (path, _, meter) => textJobs(path, chunksOf(path, meter)),
  ".jsonl": (path, field, meter) => lineJobs(path, field, chunksOf(path, meter)),
  ".json": (path, field, meter) => elementJobs(path, field, chunksOf(path, meter)),
  ".parquet": async function* (path, field, meter) {
    const { rowJobs } = await import("./parquet.ts")
    yield* rowJobs(path, field, meter)
  },
}

export const ENDINGS = ".txt, .jsonl, .json or .parquet (the first three also with .gz or .zst)"

function readerOf(path: string): Read | undefined {
  const content = withoutCompression(path)
  const ending = extname(content).toLowerCase()
  // Parquet is read from its end, and compressed inside.
  return ending === ".parquet" && content !== path ? undefined : READERS[ending]
}

export const isFolder = (path: string) =>
  statSync(path, { throwIfNoEntry: false })?.isDirectory() ?? false

/** Whether a path is one of a person's own text, by its name. */
export function isText(path: string): boolean {
  return readerOf(path) !== undefined || isFolder(path)
}

/** What the token files of a path are called: the path's last part, without endings. */
export function nameOf(path: string): string {
  const last = basename(resolve(path))
  if (isFolder(path)) return last
  const content = withoutCompression(last)
  return basename(content, extname(content))
}

export type Input = { path: string; bytes: number }

/** The files that paths stand for: a folder for all that lie below it, in the order of their paths. */
export function inputsOf(paths: readonly string[]): Input[] {
  const inputs = paths.flatMap((path) => {
    if (!isFolder(path)) {
      const bytes = fileBytes(path)
      if (bytes === 0) throw new UserError(`${path}: the file is empty (give a file with text)`)
      return [{ path, bytes }]
    }
    const found = filesBelow(path).filter((file) => readerOf(file) !== undefined)
    const inputs = found.sort().map((file) => ({ path: file, bytes: fileBytes(file) }))
    const withText = inputs.filter(({ bytes }) => bytes > 0)
    if (withText.length > 0) return withText
    throw new UserError(`${path}: no text lies in this folder (its files must end in ${ENDINGS})`)
  })
  const seen = new Set<string>()
  for (const { path } of inputs) {
    if (seen.has(resolve(path))) throw new UserError(`${path}: it is given twice (leave one out)`)
    seen.add(resolve(path))
  }
  return inputs
}

/** The files in folders among the paths that are no texts by their names. */
export function leftOut(paths: readonly string[]): string[] {
  return paths
    .filter(isFolder)
    .flatMap((path) => filesBelow(path).filter((file) => readerOf(file) === undefined))
    .sort()
}

/** Files below a folder, hidden ones aside, whose names tell nothing about what is in them. */
function filesBelow(folder: string): string[] {
  let entries: Dirent[]
  try {
    entries = readdirSync(folder, { withFileTypes: true })
  } catch (error) {
    throw new UserError(`${folder}: cannot read: ${reason(error)} (give another folder)`)
  }
  return entries.flatMap((entry) => {
    const path = join(folder, entry.name)
    if (entry.name.startsWith(".")) return []
    if (entry.isDirectory()) return filesBelow(path)
    const isFile = entry.isFile() || statSync(path, { throwIfNoEntry: false })?.isFile()
    return isFile ? [path] : []
  })
}

/** The jobs of all files, one after the other. */
export async function* jobsOf(
  inputs: readonly Input[],
  field: string,
  meter: Meter,
): AsyncGenerator<Job> {
  for (const { path } of inputs) yield* readerOf(path)!(path, field, meter)
}
