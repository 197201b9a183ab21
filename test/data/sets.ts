// llm data as it is run here, and tokens computed in one line.

import { expect } from "bun:test"
import { type DataOptions, data } from "../../src/commands/data.ts"
import { END_OF_TEXT, loadEncoder, VOCABULARY } from "../../src/data/tokenizer.ts"
import { UserError } from "../../src/errors.ts"
import { readTokens } from "../../src/formats/tokens.ts"

export const encode = await loadEncoder()
export const plain = (texts: string[]) => texts.flatMap((text) => [END_OF_TEXT, ...encode(text)])
export const tokensIn = (path: string) => [...readTokens(path, VOCABULARY)]
const quiet = { write: () => true }

/** Runs llm data here. Returns its output. */
export async function run(source: string, options: Partial<DataOptions> = {}, url?: string) {
  let text = ""
  const stdout = { write: (more: string) => (text += more) }
  await data({ sources: [source], workers: 1, ...options }, { url, stdout, stderr: quiet })
  return text
}

export async function refused(source: string, options: Partial<DataOptions>, url?: string) {
  const error = await run(source, options, url).catch((e) => e)
  expect(error).toBeInstanceOf(UserError)
  expect(error.message).not.toContain("\n")
  return error.message as string
}
