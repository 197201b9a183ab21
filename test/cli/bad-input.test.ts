// Every mistake that a user can make is a row: arguments → one line on stderr, exit code 2, nothing
// on stdout, and no file made or left half-written.

import { afterAll, beforeAll, describe, expect, test } from "bun:test"
import {
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { choicesFile } from "../../src/formats/choices.ts"
import { countParameters, writeModel } from "../../src/formats/model.ts"
import { writeTokens } from "../../src/formats/tokens.ts"
import { type HubFiles, hubFixture } from "../fixtures/hub.ts"
import {
  COMMANDS,
  CONTRADICTIONS,
  FILES,
  hasBf16,
  MISSING_INSTRUCTIONS,
  NO_HUB,
  optionRows,
  PLACES,
  type Row,
} from "./bad-rows.ts"
import { buildExecutable, LLM, run } from "./executable.ts"

const dir = mkdtempSync(join(tmpdir(), "llm-bad-"))
const TIMEOUT_MS = 300_000 // for some hundred runs of the executable

function tokenFile(name: string, change: (words: Int32Array) => void, bytes = 1064): void {
  const content = new Uint8Array(2048)
  const words = new Int32Array(content.buffer)
  words.set([20240520, 1, 20])
  change(words)
  writeFileSync(join(dir, name), content.subarray(0, bytes))
}

function modelFile(name: string, change: (bytes: Buffer) => Buffer): void {
  const config = { maxT: 8, V: 13, Vp: 128, L: 1, NH: 2, C: 8 }
  const weights = [{ name: "all", data: new Float32Array(countParameters(config)) }]
  const path = join(dir, name)
  writeModel(path, config, weights)
  writeFileSync(path, change(readFileSync(path)))
}

function hubFolder(name: string, files: HubFiles): void {
  mkdirSync(join(dir, name))
  for (const [file, content] of Object.entries(files)) writeFileSync(join(dir, name, file), content)
}

beforeAll(async () => {
  await buildExecutable()
  writeTokens(
    join(dir, "toks.bin"),
    new Uint16Array(20).map((_, i) => i),
  )
  writeTokens(join(dir, "toks_low.bin"), new Uint16Array(20))
  tokenFile("toks_short.bin", () => {}, 1062)
  tokenFile("toks_long.bin", () => {}, 1066)
  tokenFile("toks_head.bin", () => {}, 500)
  // Token 1, the upper half of the body's first word.
  tokenFile("toks_high.bin", (words) => words.set([30 << 16], 256))
  tokenFile("toks_version.bin", (words) => words.set([2], 1))
  const word = (index: number, value: number) => (bytes: Buffer) => {
    bytes.writeInt32LE(value, 4 * index)
    return bytes
  }
  const question = (tokens: number[], label: number) => ({
    context: Uint16Array.of(1, 2),
    completions: [[3], [4], tokens].map((list) => Uint16Array.from(list)),
    label,
  })
  const choices = choicesFile([question([5], 0), question([6, 7, 8], 2)])
  writeFileSync(join(dir, "choices.bin"), choices)
  writeFileSync(join(dir, "choices_cut.bin"), choices.subarray(0, -2))
  writeFileSync(join(dir, "choices_high.bin"), choicesFile([question([13], 0)]))
  modelFile("model.bin", (bytes) => bytes)
  modelFile("model_short.bin", (bytes) => bytes.subarray(0, bytes.length - 4))
  modelFile("model_long.bin", (bytes) => Buffer.concat([bytes, bytes.subarray(0, 4)]))
  modelFile("model_magic.bin", word(0, 7))
  modelFile("model_version.bin", word(1, 9))
  modelFile("model_heads.bin", word(5, 3))
  const hub = hubFixture()
  const model = hub["model.safetensors"]!
  hubFolder("hub", hub)
  hubFolder("hub_config", { ...hub, "config.json": Buffer.from('{"model_type":"bert"}') })
  hubFolder("hub_shape", { ...hub, "config.json": Buffer.from('{"model_type":"gpt2"}') })
  hubFolder("hub_cut", { ...hub, "model.safetensors": model.subarray(0, -1) })
  hubFolder("hub_none", { "config.json": hub["config.json"]! })
  hubFolder("hub_index", {
    "config.json": hub["config.json"]!,
    "model.safetensors.index.json": Buffer.from('{"weight_map":{"a":"../x"}}'),
  })
  writeFileSync(join(dir, "alone.safetensors"), model)
  const texts = {
    "empty.bin": "",
    "empty.txt": "",
    "text.txt": "A text.\n",
    "nofield.jsonl": '{"story":"a"}\n',
    "object.json": '{"text":"a"}',
    "text.parquet": "A text.\n",
    "text.txt.gz": "A text.\n",
    "text.txt.zst": "A text.\n",
    "invalid.txt": Buffer.from([97, 98, 99, 0xff, 97]),
    "broken.jsonl": '{"text":"a"}\n{"text":\n',
    "broken.toml": "batch = = 3\n",
    "unknown.toml": "bacth = 3\n",
    "type.toml": "batch = [1]\n",
    "range.toml": "batch = 0\n",
    "flag.toml": "shuffle = 1\n",
  }
  for (const [name, text] of Object.entries(texts)) writeFileSync(join(dir, name), text)
  mkdirSync(join(dir, "old"))
  writeFileSync(join(dir, "old", "main.log"), "s:0 tel:1.0000\n")
}, TIMEOUT_MS)

afterAll(() => rmSync(dir, { recursive: true }))

/** Every path below the folder, with sizes. */
function listing(path = dir): string[] {
  return readdirSync(path, { recursive: true })
    .map((name) => `${name} ${statSync(join(path, `${name}`)).size}`)
    .sort()
}

async function refuse([args, message]: Row): Promise<void> {
  const env = { ...process.env, HF_ENDPOINT: "http://127.0.0.1:1", HF_HUB_CACHE: "cache" }
  const { code, stdout, stderr } = await run([LLM, ...args.split(" ")], { cwd: dir, env })
  const lines = stderr.split("\n").slice(0, -1)
  const shown = `llm ${args}: ${stderr}`
  expect({ shown, code, stdout, lines: lines.length }).toEqual({
    shown,
    code: 2,
    stdout: "",
    lines: 1,
  })
  expect(stderr).toStartWith("llm: ")
  if (typeof message === "string") expect(stderr).toContain(message)
  else expect(stderr.trimEnd()).toMatch(message)
}

describe.each([
  ["of the option tables", optionRows()],
  ["in commands", COMMANDS],
  ["in options that contradict each other", CONTRADICTIONS],
  ["in a precision that the CPU lacks", hasBf16 ? [] : MISSING_INSTRUCTIONS],
  ["in files", FILES],
  ["in where results go", PLACES],
  ["in names of the hub", NO_HUB],
] as [string, Row[]][])("mistakes %s", (_, rows) => {
  test(
    `all ${rows.length} are answered by one line, and leave no file`,
    async () => {
      const before = listing()
      // Two at a time, but of `llm data` one: a folder that two of them make, neither takes away.
      const { data = [], others = [] } = Object.groupBy(rows, ([args]) =>
        args.startsWith("data ") ? "data" : "others",
      )
      const inTurn = async (some: Row[]) => {
        for (const row of some) await refuse(row)
      }
      await Promise.all([inTurn(data), inTurn(others)])
      expect(listing()).toEqual(before)
    },
    TIMEOUT_MS,
  )
})
