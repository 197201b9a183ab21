// HellaSwag (Zellers and others, 2019): 10,042 questions of its validation set, each the beginning of
// a text and four endings, as llm.c's hellaswag.py tokenizes and writes them.

import { join } from "node:path"
import { UserError } from "../errors.ts"
import {
  choicesFile,
  type Example,
  exampleWords,
  MAX_EXAMPLE_BYTES,
  MAX_EXAMPLES,
} from "../formats/choices.ts"
import { thousands, writeWhole } from "./files.ts"
import { decodeUtf8 } from "./jobs.ts"
import { type Encode, loadEncoder } from "./tokenizer.ts"

export const HELLASWAG_URL =
  "https://raw.githubusercontent.com/rowanz/hellaswag/master/data/hellaswag_val.jsonl"
const ENDINGS = 4
const RULE =
  'each line of HellaSwag is an object with "ctx", a text, "endings", four of them, and "label", the right one\'s number'

/** Writes FOLDER/hellaswag_val.bin from the bytes of hellaswag_val.jsonl, which came from `path`. */
export async function writeHellaSwag(
  path: string,
  bytes: Uint8Array,
  folder: string,
): Promise<{ path: string; examples: number }> {
  const encode = await loadEncoder()
  const examples: Example[] = []
  for (const [index, line] of decodeUtf8(path, bytes, 0).split("\n").entries()) {
    if (line.trim() === "") continue
    const wrong = (what: string) =>
      new UserError(`${path}: line ${thousands(index + 1)} ${what} (${RULE})`)
    if (examples.length === MAX_EXAMPLES) {
      throw wrong(`is one question more than the ${thousands(MAX_EXAMPLES)} that a file can hold`)
    }
    const example = readExample(line, encode, wrong)
    const size = 2 * exampleWords(example, 0).length
    if (size > MAX_EXAMPLE_BYTES) throw wrong(`takes ${thousands(size)} bytes, which is too long`)
    examples.push(example)
  }
  if (examples.length === 0) throw new UserError(`${path}: it holds no questions (${RULE})`)
  const written = join(folder, "hellaswag_val.bin")
  writeWhole(written, [choicesFile(examples)])
  return { path: written, examples: examples.length }
}

function readExample(line: string, encode: Encode, wrong: (what: string) => UserError): Example {
  let object: { ctx?: unknown; endings?: unknown; label?: unknown } | null
  try {
    object = JSON.parse(line)
  } catch {
    throw wrong("is not JSON")
  }
  const { ctx, endings, label } = object ?? {}
  if (typeof ctx !== "string" || ctx === "") throw wrong('has no "ctx" with text')
  const isFour = Array.isArray(endings) && endings.length === ENDINGS
  if (!isFour || !endings.every((ending) => typeof ending === "string")) {
    throw wrong(`has no "endings" that are ${ENDINGS} texts`)
  }
  // The test set has none.
  if (!Number.isInteger(label) || Number(label) < 0 || Number(label) >= ENDINGS) {
    throw wrong(`has no "label" from 0 to ${ENDINGS - 1}`)
  }
  return {
    context: Uint16Array.from(encode(ctx)),
    completions: endings.map((ending) => Uint16Array.from(encode(` ${ending}`))),
    label: Number(label),
  }
}
