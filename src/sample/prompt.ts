// What a text goes on from: the command line's words, a file's, or those that come through a pipe.

import { fstatSync, readFileSync, type Stats } from "node:fs"
import { reason, thousands } from "../data/files.ts"
import { END_OF_TEXT, type Encode } from "../data/tokenizer.ts"
import { UserError } from "../errors.ts"

export interface Prompt {
  /** As messages name it. */
  source: string
  text: string
}

/** The prompt; undefined where nothing is said. */
export async function readPrompt(
  text: string | undefined,
  file: string | undefined,
  canPipe: boolean,
): Promise<Prompt | undefined> {
  if (text !== undefined && file !== undefined) {
    throw new UserError("--file contradicts --prompt (leave one out)")
  }
  if (text !== undefined) return { source: "--prompt", text }
  if (file !== undefined) return readFile(file)
  if (!canPipe || !isPiped()) return undefined
  const piped = decodeText("stdin", await Bun.stdin.bytes())
  return piped === "" ? undefined : { source: "stdin", text: piped }
}

function readFile(path: string): Prompt {
  const source = `--file ${path}`
  let bytes: Uint8Array
  try {
    bytes = readFileSync(path)
  } catch (error) {
    throw new UserError(`${source}: cannot read: ${reason(error)} (give a text file)`)
  }
  const text = decodeText(source, bytes)
  if (text === "") throw new UserError(`${source} is empty (leave it out to begin a document)`)
  return { source, text }
}

function decodeText(source: string, bytes: Uint8Array): string {
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes)
  } catch {
    throw new UserError(`${source}: not UTF-8 (give a text file)`)
  }
}

/** Whether stdin is a pipe or a file, and neither a terminal nor /dev/null. */
function isPiped(): boolean {
  let stats: Stats
  try {
    stats = fstatSync(0)
  } catch {
    return false // it is closed
  }
  return stats.isFIFO() || stats.isFile() || stats.isSocket()
}

/** The prompt's tokens; without one, those of a document's beginning. */
export function promptTokens(prompt: Prompt | undefined, encode: Encode, V: number): number[] {
  if (!prompt) return [END_OF_TEXT < V ? END_OF_TEXT : 0]
  const tokens = encode(prompt.text)
  const unknown = tokens.find((token) => token >= V)
  if (unknown !== undefined) {
    throw new UserError(
      `${prompt.source}: token ${unknown} is outside the model's vocabulary of ${thousands(V)} (try other words)`,
    )
  }
  return tokens
}
