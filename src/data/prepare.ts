// From text to a training and a validation file.

import { existsSync, rmSync } from "node:fs"
import { extname, join } from "node:path"
import { UserError } from "../errors.ts"
import { writeTokens } from "../formats/tokens.ts"
import type { OnBytes } from "./download.ts"
import { fileBytes, makeFolder, thousands } from "./files.ts"
import { documentJobs, lineJobs, textJobs } from "./jobs.ts"
import { tokenizeJobs } from "./pool.ts"
import { END_OF_TEXT } from "./tokenizer.ts"

/** An empty `val` means that there is no validation file. */
export type Split = { train: Uint16Array; val: Uint16Array }
export type Written = { path: string; tokens: number }

const TINY_SHAKESPEARE_VAL_TOKENS = 32_768
// One input and one target.
const LEAST_TOKENS = 2

/** Tiny Shakespeare as llm.c cuts it: each section a document, the first tokens for validation. */
export async function prepareTinyShakespeare(text: string, workers?: number): Promise<Split> {
  const tokens = await tokenizeJobs(documentJobs(sections(text)), workers)
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

/** A person's own text: a .txt file is one document, a .jsonl file one document a line. The last
 * `valFraction` of the tokens is for validation. */
export async function prepareFile(
  path: string,
  valFraction: number,
  workers?: number,
  onBytes?: OnBytes,
): Promise<Split> {
  const type = extname(path).toLowerCase()
  const bytes = fileBytes(path)
  if (bytes === 0) throw new UserError(`${path}: the file is empty (give a file with text)`)
  const jobs = type === ".jsonl" ? lineJobs(path) : textJobs(path)
  const tokens = await tokenizeJobs(jobs, workers, (done) => onBytes?.(done, bytes))
  if (tokens.every((token) => token === END_OF_TEXT)) {
    throw new UserError(`${path}: it holds no text (give a file with text)`)
  }
  return holdOut(path, tokens, valFraction)
}

/** Cuts off the last part, at the start of a document where one is near. */
export function holdOut(name: string, tokens: Uint16Array, valFraction: number): Split {
  if (valFraction === 0) return { train: tokens, val: new Uint16Array(0) }
  const wanted = Math.round(tokens.length * (1 - valFraction))
  if (wanted < LEAST_TOKENS || tokens.length - wanted < LEAST_TOKENS) {
    throw new UserError(
      `${name}: ${thousands(tokens.length)} tokens are too few to hold out ${valFraction} of them for validation (give more text, or --val-fraction 0)`,
    )
  }
  const cut = nearestDocument(tokens, wanted) ?? wanted
  return { train: tokens.slice(0, cut), val: tokens.slice(cut) }
}

/** The start of a document that is closest to `wanted`, if cutting there changes neither part by
 * more than half. */
function nearestDocument(tokens: Uint16Array, wanted: number): number | undefined {
  const limit = Math.min(wanted, tokens.length - wanted) / 2
  const distance = (start: number) => Math.abs(start - wanted)
  const before = tokens.lastIndexOf(END_OF_TEXT, wanted)
  const after = tokens.indexOf(END_OF_TEXT, wanted)
  const near = [before, after].filter((start) => start >= 0 && distance(start) <= limit)
  return near.sort((a, b) => distance(a) - distance(b))[0]
}

/** Writes FOLDER/NAME_train.bin and, when there are validation tokens, FOLDER/NAME_val.bin. */
export function writeSplit(folder: string, name: string, split: Split): Written[] {
  const train = join(folder, `${name}_train.bin`)
  const val = join(folder, `${name}_val.bin`)
  if (split.val.length === 0 && existsSync(val)) {
    throw new UserError(
      `${val}: it is from an earlier run, and training would validate on it (delete it, or choose another --out-dir)`,
    )
  }
  const removeFolder = makeFolder("--out-dir", folder)
  const written: Written[] = []
  try {
    for (const [path, tokens] of [
      [train, split.train],
      [val, split.val],
    ] as const) {
      if (tokens.length === 0) continue
      writeTokens(path, tokens)
      written.push({ path, tokens: tokens.length })
    }
  } catch (error) {
    // One file without the other would be trained on without validation.
    for (const { path } of written) rmSync(path, { force: true })
    removeFolder()
    throw error
  }
  return written
}
