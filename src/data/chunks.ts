// A file's content in pieces, decompressed when its name ends in .gz or .zst.

import { closeSync, openSync, readSync } from "node:fs"
import { extname } from "node:path"
import { pipeline, Readable, type Transform } from "node:stream"
import { createGunzip, createZstdDecompress } from "node:zlib"
import { UserError } from "../errors.ts"
import { fileBytes, reason } from "./files.ts"
import { checkFrames } from "./zstd.ts"

export type Chunks = AsyncIterable<Uint8Array>
/** Counts the bytes that were read, as they lie on the disk. */
export type Meter = { bytes: number }

const CHUNK_BYTES = 2 ** 19
const COMPRESSIONS: Record<
  string,
  { name: string; check?: (chunks: Chunks) => Chunks; decompress: () => Transform }
> = {
  ".gz": { name: "gzip", decompress: createGunzip },
  ".zst": { name: "Zstandard", check: checkFrames, decompress: createZstdDecompress },
}

/** A path without the ending of its compression. */
export function withoutCompression(path: string): string {
  const ending = extname(path)
  return ending.toLowerCase() in COMPRESSIONS ? path.slice(0, -ending.length) : path
}

export async function* chunksOf(path: string, meter?: Meter): AsyncGenerator<Uint8Array> {
  const compression = COMPRESSIONS[extname(path).toLowerCase()]
  if (!compression) {
    yield* fileChunks(path, meter)
    return
  }
  const { check = (chunks: Chunks) => chunks } = compression
  const source = Readable.from(check(fileChunks(path, meter)), { objectMode: false })
  const decompressed = pipeline(source, compression.decompress(), () => {})
  try {
    for await (const chunk of decompressed) yield chunk
  } catch (error) {
    if (error instanceof UserError) throw error
    throw new UserError(
      `${path}: not ${compression.name}, or cut short: ${(error as Error).message} (copy it again)`,
    )
  }
}

async function* fileChunks(path: string, meter: Meter = { bytes: 0 }): AsyncGenerator<Uint8Array> {
  const size = fileBytes(path)
  let file: number
  try {
    file = openSync(path, "r")
  } catch (error) {
    throw new UserError(`${path}: cannot read: ${reason(error)} (give the path of a file)`)
  }
  try {
    for (let offset = 0; offset < size; ) {
      const chunk = new Uint8Array(Math.min(CHUNK_BYTES, size - offset))
      let got: number
      try {
        got = readSync(file, chunk, 0, chunk.length, offset)
      } catch (error) {
        throw new UserError(`${path}: cannot read: ${reason(error)}`)
      }
      if (got === 0) throw new UserError(`${path}: it got shorter while it was read (try again)`)
      offset += got
      meter.bytes += got
      yield chunk.subarray(0, got)
    }
  } finally {
    closeSync(file)
  }
}
