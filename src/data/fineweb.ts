// FineWeb and FineWeb-Edu (Penedo and others, 2024) as llm.c's fineweb.py makes them of the samples'
// Parquet files: one stream of documents, each after an end-of-text token, cut wherever a shard is
// full; shard 0 is for validation. What is done is noted shard by shard, so that a run that was
// stopped goes on.

import { mkdirSync, readdirSync, rmSync } from "node:fs"
import { basename, join } from "node:path"
import { UserError } from "../errors.ts"
import { TokenWriter } from "../formats/tokens.ts"
import type { OnBytes } from "./download.ts"
import { fetchFile } from "./fetch-file.ts"
import { temporaryFor } from "./files.ts"
import { type HubFile, hubFiles, MIRROR_HINT } from "./hub.ts"
import { inputsOf } from "./inputs.ts"
import { rowJobs } from "./parquet.ts"
import { tokenizeJobs } from "./pool.ts"
import { shardName, type Written } from "./prepare.ts"
import { type Place, ShardLog } from "./shard-log.ts"

export const SHARD_TOKENS = 100_000_000

const FIELD = "text"

/** A Parquet file, there already or to be downloaded. */
type Source = { name: string; bytes: number; path: string; hub?: HubFile }

type Show = (name: string, work: (onBytes: OnBytes) => Promise<void>) => Promise<void>

export type FineWeb = {
  edu: boolean
  size: "10B" | "100B"
  /** A Parquet file or a folder of them, instead of a download. */
  from?: string | undefined
  folder: string
  shardTokens?: number | undefined
  /** Shows a download that is waited for. */
  showDownload?: Show
  onBytes?: OnBytes
  workers?: number
}

/** Writes the shards that FOLDER lacks. Returns all of them. */
export async function prepareFineWeb(options: FineWeb): Promise<Written[]> {
  const { edu, folder, shardTokens = SHARD_TOKENS, onBytes, workers } = options
  const name = edu ? "edu_fineweb" : "fineweb"
  const downloads = join(folder, `.${name}_downloads`)
  const sources = await sourcesOf(options, downloads)
  const log = ShardLog.open(folder, name, { shardTokens, sources: identity(sources) })
  if (log.isDone) return log.written
  for (const file of readdirSync(folder)) {
    // What a run that was killed had begun.
    if (temporaryFor(file)?.startsWith(`${name}_`)) rmSync(join(folder, file))
  }

  const start = log.end
  const total = sources.slice(start.file).reduce((sum, { bytes }) => sum + bytes, 0)
  const meter = { bytes: 0 }
  let writer: TokenWriter | undefined
  const close = (end: Place) => {
    const index = log.written.length
    writer!.finish()
    log.add({ name: shardOf(name, index), tokens: writer!.count, end })
    writer = undefined
    for (const { hub, path } of sources.slice(0, end.file)) if (hub) rmSync(path, { force: true })
  }
  if (sources[0]?.hub) mkdirSync(downloads, { recursive: true })
  const fetches = new Fetches(sources, options.showDownload)
  try {
    for (let file = start.file; file < sources.length; file++) {
      const isFirst = file === start.file
      let skip = isFirst ? start.tokens : 0
      const path = await fetches.take(file)
      const jobs = rowJobs(path, FIELD, meter, isFirst ? start.row : 0)
      for await (const { job, tokens } of tokenizeJobs(jobs, workers)) {
        const row = "start" in job ? job.start : 0
        for (let at = skip; at < tokens.length; ) {
          writer ??= new TokenWriter(join(folder, shardOf(name, log.written.length)))
          const end = Math.min(at + shardTokens - writer.count, tokens.length)
          writer.append(tokens.subarray(at, end))
          at = end
          if (writer.count === shardTokens) close({ file, row, tokens: at })
        }
        skip = 0
        onBytes?.(meter.bytes, total)
      }
    }
    if (writer) close({ file: sources.length, row: 0, tokens: 0 })
  } finally {
    fetches.stop()
    writer?.discard()
    if (log.written.length === 0) log.remove()
  }
  if (log.written.length === 0) throw new UserError(`${sources[0]!.path}: it holds no documents`)
  log.finish()
  rmSync(downloads, { recursive: true, force: true })
  return log.written
}

const shardOf = (name: string, index: number) =>
  shardName(name, index === 0 ? "val" : "train", index)

const identity = (sources: Source[]) => sources.map(({ name, bytes }) => `${name} ${bytes}`)

async function sourcesOf({ edu, size, from }: FineWeb, downloads: string): Promise<Source[]> {
  if (from !== undefined) {
    const inputs = inputsOf([from]).filter(({ path }) => path.toLowerCase().endsWith(".parquet"))
    if (inputs.length === 0) {
      throw new UserError(`--from ${from}: no .parquet file (give one, or a folder of them)`)
    }
    return inputs.map(({ path, bytes }) => ({ name: basename(path), bytes, path }))
  }
  const dataset = `HuggingFaceFW/${edu ? "fineweb-edu" : "fineweb"}`
  const files = await hubFiles(dataset, `sample/${size}T`, { wayOut: MIRROR_HINT })
  const parquet = files.filter(({ name }) => name.endsWith(".parquet"))
  if (parquet.length === 0) {
    throw new UserError(`${dataset}: no .parquet file in sample/${size}T (${MIRROR_HINT})`)
  }
  parquet.sort((a, b) => (a.name < b.name ? -1 : 1))
  return parquet.map((hub) => ({
    name: hub.name,
    bytes: hub.bytes,
    path: join(downloads, hub.name),
    hub,
  }))
}

/** Downloads a file while the one before it is tokenized. */
class Fetches {
  private readonly abort = new AbortController()
  private readonly started: Promise<void>[] = []
  private shown: { file: number; onBytes: OnBytes } | undefined

  constructor(
    private readonly sources: Source[],
    private readonly show: Show = (_, work) => work(() => {}),
  ) {}

  /** A file's path, once the file is there. */
  async take(file: number): Promise<string> {
    const { name, path } = this.sources[file]!
    await this.show(name, (onBytes) => {
      this.shown = { file, onBytes }
      return this.start(file)
    })
    if (file + 1 < this.sources.length) this.start(file + 1)
    return path
  }

  stop(): void {
    this.abort.abort()
  }

  private start(file: number): Promise<void> {
    const started = this.started[file] ?? this.fetch(file)
    started.catch(() => {}) // reported when its turn comes
    this.started[file] = started
    return started
  }

  private async fetch(file: number): Promise<void> {
    const { hub, path } = this.sources[file]!
    if (!hub) return
    await fetchFile(hub, path, {
      wayOut: MIRROR_HINT,
      signal: this.abort.signal,
      onBytes: (done, total) => {
        if (this.shown?.file === file) this.shown.onBytes(done, total)
      },
    })
  }
}
