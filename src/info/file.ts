// What a file holds, and whether it is sound: whatever the readers refuse, they refuse here.

import { statSync } from "node:fs"
import { basename, dirname } from "node:path"
import { table } from "../bench/table.ts"
import { fileBytes, thousands } from "../data/files.ts"
import { isPrefixOfText } from "../data/jobs.ts"
import { VOCABULARY } from "../data/tokenizer.ts"
import { UserError } from "../errors.ts"
import { readChoices } from "../formats/choices.ts"
import { verifyDone } from "../formats/done.ts"
import { InputFile } from "../formats/file.ts"
import { readTokenizer } from "../formats/tokenizer.ts"
import { TokenFile } from "../formats/tokens.ts"
import { parameterTable } from "../model/gpt2.ts"
import { describeConfig } from "../model/program.ts"
import { completeSteps, doneName, filesOf, ownSteps } from "../train/checkpoint.ts"
import { NUMBERS, typeName } from "../weights/numbers.ts"
import { openWeights } from "../weights/open.ts"
import type { WeightSource } from "../weights/source.ts"

const START = 512 // bytes that tell what a file is
const PIECE = 2 ** 20 // numbers looked at at once
const HALF_WORDS = 65536 // whatever vocabulary the tokens are of
const WORDS = 2 ** 31

export type Description = {
  text: string
  /** What is not sound, where that is a part. */
  damage?: UserError | undefined
}

/** Lines about a file or folder. Throws a UserError for one that is not sound. */
export async function describeFile(path: string): Promise<Description> {
  if (statSync(path, { throwIfNoEntry: false })?.isDirectory()) return await describeFolder(path)
  const start = startOf(path)
  const describe = BY_MAGIC[start.length < 4 ? 0 : start.readInt32LE()]
  if (start.length > 0 && !start.includes(0) && isPrefixOfText(start)) {
    return { text: rows([["text", `${thousands(fileBytes(path))} bytes: no model, no tokens`]]) }
  }
  return { text: describe ? describe(path) : await describeWeights(path) }
}

const BY_MAGIC: Record<number, (path: string) => string> = {
  20240328: describeTokenizer,
  20240520: (path) => describeTokens(path, "GPT-2", HALF_WORDS),
  20240522: describeChoices,
  20240527: describeState,
  20240801: (path) => describeTokens(path, "Llama 3", WORDS),
}

function startOf(path: string): Buffer {
  const file = new InputFile(path, "give the path of a file")
  try {
    const bytes = Buffer.alloc(Math.min(START, file.bytes))
    file.read(bytes, 0)
    return bytes
  } finally {
    file.close()
  }
}

const rows = (pairs: [string, string][]) =>
  pairs.map(([name, value]) => `${name.padEnd(12)}${value}\n`).join("")

async function describeFolder(path: string): Promise<Description> {
  const steps = completeSteps(path)
  if (steps.length === 0) return { text: await describeWeights(path) }
  const found = steps.map((step) => ({ step, damage: damageOf(path, step) }))
  const list = found.map(({ step, damage }) => [
    `${step}`,
    ...filesOf(step),
    damage === undefined ? "yes" : "no",
  ])
  const { damage } = found.find(({ damage }) => damage) ?? {}
  return { text: table(["step:", "model", "state", "sound"], list), damage }
}

function damageOf(path: string, step: number): UserError | undefined {
  try {
    verifyDone(path, doneName(step), filesOf(step))
  } catch (error) {
    if (error instanceof UserError) return error
    throw error
  }
}

/** Compares a checkpoint's file with the checksum that its folder has of it, if there is one. */
function hasChecksum(path: string): boolean {
  const [name, folder] = [basename(path), dirname(path)]
  const step = Number(/^(?:model|state)_(\d{8,10})/.exec(name)?.[1])
  if (!ownSteps(folder).includes(step)) return false
  verifyDone(folder, doneName(step), filesOf(step), [name])
  return true
}

async function describeWeights(path: string): Promise<string> {
  const source = await openWeights(path)
  try {
    const list = parameterTable(source.config).map(({ name, shape }) => {
      const count = shape.reduce((a, b) => a * b, 1)
      look(source, name, count)
      return [name, shape.join(" × "), typeName(source.typeOf(name)), thousands(count)]
    })
    const isChecked = hasChecksum(source.path)
    const { bytes, block } = NUMBERS[source.type]
    const type = `${typeName(source.type)}, ${(8 * bytes) / block} bits a number`
    const head = rows([
      ["file", source.path],
      ["model", describeConfig(source.config)],
      ["matrices", type],
      ["sound", `yes: ${isChecked ? "its checksum is right, " : ""}every number is finite`],
    ])
    return `${head}\n${table(["tensor", "shape", "type", "numbers:"], list)}`
  } finally {
    source.close()
  }
}

/** Reads all of a parameter, which refuses numbers that are not finite. */
function look(source: WeightSource, name: string, count: number): void {
  for (let first = 0; first < count; first += PIECE) {
    source.read(name, new Float32Array(Math.min(PIECE, count - first)), first)
  }
}

function describeTokens(path: string, whose: string, vocabulary: number): string {
  const file = TokenFile.open(path, vocabulary)
  const piece = new Int32Array(Math.min(PIECE, file.length))
  let largest = 0
  for (let first = 0; first < file.length; first += PIECE) {
    const tokens = piece.subarray(0, Math.min(PIECE, file.length - first))
    file.read(tokens, first)
    for (const token of tokens) largest = Math.max(largest, token)
  }
  file.close()
  const isForeign = vocabulary === HALF_WORDS && largest >= VOCABULARY
  return rows([
    ["tokens", `${thousands(file.length)}, ${whose}'s format`],
    ["largest", `${thousands(largest)}${isForeign ? ", which GPT-2's vocabulary lacks" : ""}`],
    ["sound", "yes: as long as its header says"],
  ])
}

function describeTokenizer(path: string): string {
  const { tokens, endOfText } = readTokenizer(path)
  return rows([
    ["tokenizer", `${thousands(tokens.length)} tokens, end of text ${endOfText}`],
    ["sound", "yes: every token has its bytes"],
  ])
}

function describeChoices(path: string): string {
  const examples = readChoices(path, HALF_WORDS)
  const completions = new Set(examples.map((example) => example.completions.length))
  return rows([
    ["choices", `${thousands(examples.length)} questions of ${[...completions].join(" or ")}`],
    ["sound", "yes: every question is whole"],
  ])
}

/** Of a run's state, what its header says: its numbers are checked beside its model, by its folder. */
function describeState(path: string): string {
  const file = new InputFile(path, "give a state that llm wrote")
  try {
    const header = new Int32Array(256)
    file.read(new Uint8Array(header.buffer), 0)
    const long = (at: number) => (header[at]! >>> 0) + 2 ** 32 * (header[at + 1]! >>> 0)
    return rows([
      ["state", `after step ${header[10]}, seed ${long(20)}`],
      ["masters", header[4] === 1 ? "yes" : "no"],
      ["data", `epoch ${long(34)}, shard ${long(30)}, sequence ${long(36)} of ${long(38)} tokens`],
      ["order", header[5] === 1 ? "shuffled" : "as they stand"],
      ["sound", hasChecksum(path) ? "yes: its checksum is right" : "no DONE beside it tells"],
    ])
  } finally {
    file.close()
  }
}
