// Parquet files, a row group at a time and of it the one column that is asked for.

import { brotliDecompressSync, gunzipSync } from "node:zlib"
import {
  type AsyncBuffer,
  type Compressors,
  type FileMetaData,
  parquetMetadataAsync,
  parquetReadObjects,
  parquetSchema,
} from "hyparquet"
import { UserError } from "../errors.ts"
import type { Meter } from "./chunks.ts"
import { fileBytes, thousands } from "./files.ts"
import type { Job } from "./jobs.ts"

type Opened = { path: string; file: AsyncBuffer; metadata: FileMetaData }

// Snappy is the reader's own.
const COMPRESSORS: Compressors = {
  GZIP: (bytes) => gunzipSync(bytes),
  ZSTD: (bytes) => Bun.zstdDecompressSync(bytes),
  BROTLI: (bytes) => brotliDecompressSync(bytes),
}

/** A job a row group, from row `first` on. */
export async function* rowJobs(
  path: string,
  field: string,
  meter: Meter = { bytes: 0 },
  first = 0,
): AsyncGenerator<Job> {
  const { metadata } = await open(path)
  const columns = attempt(path, () => parquetSchema(metadata).children)
  const column = columns.find(({ element }) => element.name === field)
  if (column?.element.type !== "BYTE_ARRAY") {
    const what = column ? `its column ${field} holds no text` : `it has no column ${field}`
    const names = columns.map(({ element }) => element.name).join(", ")
    throw new UserError(`${path}: ${what} (--field NAME takes one of ${names})`)
  }
  const bytes = fileBytes(path)
  const before = meter.bytes
  let start = 0
  for (const [i, group] of metadata.row_groups.entries()) {
    const end = start + Number(group.num_rows)
    if (end > first) {
      yield { kind: "rows", path, field, start: Math.max(start, first), end }
    }
    meter.bytes = before + (bytes * (i + 1)) / metadata.row_groups.length
    start = end
  }
}

/** The texts of rows [start, end). */
export async function readRows(job: Job & { kind: "rows" }): Promise<string[]> {
  const { path, field, start, end } = job
  const { file, metadata } = await open(path)
  const rows = await attempt(path, () =>
    parquetReadObjects({
      file,
      metadata,
      columns: [field],
      rowStart: start,
      rowEnd: end,
      compressors: COMPRESSORS,
    }),
  )
  const cutShort = rows.length !== end - start
  if (cutShort) throw broken(path, `${thousands(rows.length)} rows of ${thousands(end - start)}`)
  return rows.map(({ [field]: text }, i) => {
    if (typeof text === "string") return text
    throw new UserError(
      `${path}: row ${thousands(start + i + 1)} has no "${field}" that is a string (each row is one document)`,
    )
  })
}

let last: Opened | undefined

/** A file and its footer, which is read once for all jobs of a file. */
async function open(path: string): Promise<Opened> {
  if (last?.path === path) return last
  const bytes = fileBytes(path)
  const file: AsyncBuffer = {
    byteLength: bytes,
    slice: (start, end) => Bun.file(path).slice(start, end).arrayBuffer(),
  }
  const metadata = await attempt(path, () => parquetMetadataAsync(file))
  last = { path, file, metadata }
  return last
}

function attempt<T>(path: string, work: () => T): T {
  const fail = (error: unknown) => {
    throw broken(path, (error as Error).message)
  }
  try {
    const result = work()
    return result instanceof Promise ? (result.catch(fail) as T) : result
  } catch (error) {
    return fail(error)
  }
}

function broken(path: string, what: string): UserError {
  return new UserError(`${path}: not a Parquet file that can be read: ${what} (copy it again)`)
}
