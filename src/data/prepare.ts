// From text to a training and a validation file.

import { existsSync, readdirSync, rmSync } from "node:fs"
import { join } from "node:path"
import { UserError } from "../errors.ts"
import { TokenWriter } from "../formats/tokens.ts"
import type { OnBytes } from "./download.ts"
import { makeFolder, thousands } from "./files.ts"
import { inputsOf, jobsOf } from "./inputs.ts"
import { tokenizeJobs } from "./pool.ts"
import { documentJobs } from "./readers.ts"
import { part, Spool, type TokenRun } from "./spool.ts"
import { END_OF_TEXT } from "./tokenizer.ts"

/** An empty `val` means that there is no validation file. */
export type Split<Run extends TokenRun = TokenRun> = { train: Run; val: Run }
export type Written = {
  path: string
  tokens: number
  /** Whether it took the place of an older file. */
  isReplaced?: boolean
}

const TINY_SHAKESPEARE_VAL_TOKENS = 32_768
// One input and one target.
const LEAST_TOKENS = 2
const PIECE = 2 ** 20 // tokens in memory at once
const SHARD_DIGITS = 6 // in llm.c's names

/** Tiny Shakespeare as llm.c cuts it: each section a document, the first tokens for validation. */
export async function prepareTinyShakespeare(
  text: string,
  workers?: number,
): Promise<Split<Uint16Array>> {
  const parts: Uint16Array[] = []
  for await (const { tokens } of tokenizeJobs(documentJobs(sections(text)), workers)) {
    parts.push(tokens)
  }
  const tokens = Uint16Array.from(parts.flatMap((piece) => [...piece]))
  return {
    val: tokens.slice(0, TINY_SHAKESPEARE_VAL_TOKENS),
    train: tokens.slice(TINY_SHAKESPEARE_VAL_TOKENS),
  }
}

/** The parts between blank lines, each with the blank line after it. */
export function sections(text: string): string[] {
  const parts = text.split("\n\n")
  return parts.map((part, i) => (i < parts.length - 1 ? `${part}\n\n` : part))
}

export type Texts = {
  paths: readonly string[]
  /** What holds the text of a JSON object or of a Parquet row. */
  field: string
  valFraction: number
  folder: string
  name: string
  /** Tokens of a file; undefined: one file for training, one for validation. */
  shardTokens?: number | undefined
  workers?: number
  onBytes?: OnBytes
}

/** A person's own texts. The last `valFraction` of the tokens is for validation. Where that begins is
 * known when all are there, so they wait on the disk. */
export async function prepareTexts(texts: Texts): Promise<Written[]> {
  const { paths, field, valFraction, folder, name, shardTokens, workers, onBytes } = texts
  const inputs = inputsOf(paths)
  const label = paths.join(", ")
  const total = inputs.reduce((sum, { bytes }) => sum + bytes, 0)
  const meter = { bytes: 0 }
  const removeFolder = makeFolder("--out-dir", folder)
  try {
    refuseOlder(folder, name, valFraction > 0, shardTokens)
    const spool = new Spool(folder)
    try {
      let hasText = false
      for await (const { tokens } of tokenizeJobs(jobsOf(inputs, field, meter), workers)) {
        hasText ||= tokens.some((token) => token !== END_OF_TEXT)
        spool.append(tokens)
        onBytes?.(meter.bytes, total)
      }
      if (!hasText) throw new UserError(`${label}: it holds no text (give a file with text)`)
      const cut = cutFor(label, spool, valFraction)
      const split = { train: part(spool, 0, cut), val: part(spool, cut, spool.length) }
      return writeSplit(folder, name, split, shardTokens)
    } finally {
      spool.close()
    }
  } catch (error) {
    removeFolder()
    throw error
  }
}

/** Where the last part begins, at the start of a document where one is near. */
export function cutFor(name: string, tokens: TokenRun, valFraction: number): number {
  if (valFraction === 0) return tokens.length
  const wanted = Math.round(tokens.length * (1 - valFraction))
  if (wanted < LEAST_TOKENS || tokens.length - wanted < LEAST_TOKENS) {
    throw new UserError(
      `${name}: ${thousands(tokens.length)} tokens are too few to hold out ${valFraction} of them for validation (give more text, or --val-fraction 0)`,
    )
  }
  return nearestDocument(tokens, wanted) ?? wanted
}

/** The start of a document that is closest to `wanted`, if cutting there changes neither part by
 * more than half. */
function nearestDocument(tokens: TokenRun, wanted: number): number | undefined {
  const limit = Math.floor(Math.min(wanted, tokens.length - wanted) / 2)
  for (let near = 0; near <= limit; near += PIECE) {
    const far = Math.min(near + PIECE - 1, limit)
    const before = tokens.slice(wanted - far, wanted - near + 1)
    const after = tokens.slice(wanted + near, Math.min(wanted + far + 1, tokens.length))
    const starts = [
      [before.lastIndexOf(END_OF_TEXT), wanted - far],
      [after.indexOf(END_OF_TEXT), wanted + near],
    ].flatMap(([index = 0, first = 0]) => (index < 0 ? [] : [first + index]))
    const distance = (start: number) => Math.abs(start - wanted)
    const [nearest] = starts.sort((a, b) => distance(a) - distance(b))
    if (nearest !== undefined) return nearest
  }
  return undefined
}

/** A file's name: NAME_train.bin, or of shards NAME_train_000000.bin. */
export function shardName(name: string, split: string, index?: number): string {
  return `${name}_${split}${index === undefined ? "" : `_${`${index}`.padStart(SHARD_DIGITS, "0")}`}.bin`
}

export function isShard(name: string, file: string): boolean {
  return file.startsWith(`${name}_`) && /^(train|val)_\d{6}\.bin$/.test(file.slice(name.length + 1))
}

/** Refuses a folder whose files would be taken for a part of what is written. */
function refuseOlder(folder: string, name: string, hasVal: boolean, shardTokens?: number): void {
  const refuse = (file: string, why: string) => {
    throw new UserError(
      `${join(folder, file)}: it is from an earlier run, and ${why} (delete it, or choose another --out-dir)`,
    )
  }
  const val = shardName(name, "val")
  if (!hasVal && existsSync(join(folder, val))) refuse(val, "training would validate on it")
  if (shardTokens === undefined) return
  const [shard] = readdirSync(folder)
    .sort()
    .filter((file) => isShard(name, file))
  if (shard) refuse(shard, "would be mixed with the new ones")
}

/** Writes FOLDER/NAME_train.bin and, when there are validation tokens, FOLDER/NAME_val.bin; or shards
 * of each. */
export function writeSplit(
  folder: string,
  name: string,
  { train, val }: Split,
  shardTokens?: number,
): Written[] {
  refuseOlder(folder, name, val.length > 0, shardTokens)
  const shards = Math.ceil(Math.max(train.length, val.length) / (shardTokens ?? Infinity))
  if (shards > 10 ** SHARD_DIGITS) {
    const limit = `more than names of ${SHARD_DIGITS} digits`
    throw new UserError(
      `--shard-tokens ${shardTokens} makes ${thousands(shards)} files, ${limit} (try 100000000)`,
    )
  }
  const removeFolder = makeFolder("--out-dir", folder)
  const written: Written[] = []
  try {
    for (const [split, tokens] of Object.entries({ train, val })) {
      const size = shardTokens ?? tokens.length
      for (let first = 0; first < tokens.length; first += size) {
        const index = shardTokens === undefined ? undefined : first / size
        const path = join(folder, shardName(name, split, index))
        const shard = part(tokens, first, Math.min(first + size, tokens.length))
        const isReplaced = existsSync(path)
        writeRun(path, shard)
        written.push({ path, tokens: shard.length, isReplaced })
      }
    }
  } catch (error) {
    // One file without the other would be trained on without validation.
    for (const { path } of written) rmSync(path, { force: true })
    removeFolder()
    throw error
  }
  return written
}

function writeRun(path: string, tokens: TokenRun): void {
  const writer = new TokenWriter(path)
  try {
    for (let first = 0; first < tokens.length; first += PIECE) {
      writer.append(tokens.slice(first, Math.min(first + PIECE, tokens.length)))
    }
  } catch (error) {
    writer.discard()
    throw error
  }
  writer.finish()
}
