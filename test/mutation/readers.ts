// Every reader of files that others may have made: a small valid file, how it is read, and what the
// bytes say, parsed here a second time, plainly. To add a reader, add a row.

import { TRAIN } from "../../src/commands/train-spec.ts"
import { Loader } from "../../src/data/loader.ts"
import { readDebugState } from "../../src/formats/debug-state.ts"
import { loadModel, readModelHeader } from "../../src/formats/model.ts"
import { readTokenizer } from "../../src/formats/tokenizer.ts"
import type { Config } from "../../src/model/config.ts"
import { parseOptions, type Value } from "../../src/options.ts"
import { CHOICES } from "./choices.ts"
import { GGUF } from "./gguf.ts"
import { HUGGING_FACE } from "./huggingface.ts"
import type { Layout } from "./mutate.ts"
import { runStateReader } from "./run-state.ts"

export interface Reader extends Layout {
  name: string
  file(): Buffer
  /** Files that hold together but for one thing, which no chance finds; they are mutated too. */
  others?(): Buffer[]
  /** What a caller gets, as plain values and Buffers. Throws UserError when the file is refused. */
  read(path: string): unknown
  /** The same from the bytes; undefined where the file must be refused. */
  expected(bytes: Buffer): unknown
  /** Bytes that it may ask for beside what the file justifies. */
  spareBytes?: number
  /** Whether it would wait for a writer where the path is a pipe. */
  readsPipes?: boolean
}

const VOCABULARY = 50257

function header(...words: number[]): Buffer {
  const bytes = Buffer.alloc(1024)
  for (const [i, word] of words.entries()) bytes.writeInt32LE(word, 4 * i)
  return bytes
}
const int32s = (...numbers: number[]) => Buffer.from(Int32Array.from(numbers).buffer)
const float32s = (length: number) =>
  Buffer.from(Float32Array.from({ length }, (_, i) => Math.sin(i) * 10 ** ((i % 9) - 4)).buffer)
const upperHalves = (floats: Buffer) =>
  Buffer.concat(
    Array.from({ length: floats.length / 4 }, (_, i) => floats.subarray(4 * i + 2, 4 * i + 4)),
  )
const isFinite32 = (floats: Buffer) => {
  for (let at = 0; at < floats.length; at += 4) {
    if (!Number.isFinite(floats.readFloatLE(at))) return false
  }
  return true
}

// Tokens. Read one by one, the loader gives each token once as an input or a target.

function readTokens(path: string): number[] {
  const loader = Loader.open(path, { B: 1, T: 1, vocabulary: VOCABULARY })
  const [input, target] = [new Int32Array(1), new Int32Array(1)]
  const tokens: number[] = []
  for (let i = 0; i < loader.batchesPerEpoch; i++) {
    loader.next(input, target)
    tokens.push(input[0]!)
  }
  return [...tokens, target[0]!]
}

function tokensOf(bytes: Buffer): number[] | undefined {
  if (bytes.length < 4) return undefined
  const magic = bytes.readInt32LE(0)
  const tokens: number[] = []
  if (magic === 20240520 || magic === 20240801) {
    const [version, size] = magic === 20240520 ? [1, 2] : [7, 4]
    if (bytes.length < 1024 || bytes.readInt32LE(4) !== version) return undefined
    if (1024 + bytes.readInt32LE(8) * size !== bytes.length) return undefined
    for (let at = 1024; at < bytes.length; at += size) tokens.push(bytes.readUIntLE(at, size))
  } else {
    if (bytes.length % 4 !== 0) return undefined
    for (let at = 0; at < bytes.length; at += 4) tokens.push(bytes.readInt32LE(at))
  }
  const areTokens = tokens.every((token) => token >= 0 && token < VOCABULARY)
  return areTokens && tokens.length >= 2 ? tokens : undefined
}

const TOKENS = Array.from({ length: 301 }, (_, i) => (i * 7919) % VOCABULARY)
type TokenFile = (tokens: number[]) => Buffer
const tokenReader = (name: string, words: number, make: TokenFile): Reader => ({
  name: `tokens, ${name}`,
  headerBytes: words > 0 ? 1024 : 0,
  words,
  file: () => make(TOKENS),
  others: () => [[], [1], [1, 2], [1, VOCABULARY], [VOCABULARY - 1, 0]].map(make),
  read: readTokens,
  expected: tokensOf,
})

// Models, read into either type.

const TINY: Config = { maxT: 3, V: 5, Vp: 8, L: 2, NH: 2, C: 4 }
const TINY_PARAMETERS = 8 * 4 + 3 * 4 + 2 * (12 * 16 + 13 * 4) + 2 * 4
/** A whole file of this shape, whether there is such a model or not. */
function modelFile(version: 3 | 5, shape: Partial<Config> = {}): Buffer {
  const { maxT, V, L, NH, C, Vp } = { ...TINY, ...shape }
  const floats = float32s(Vp * C + maxT * C + L * (12 * C * C + 13 * C) + 2 * C)
  const body = version === 3 ? floats : upperHalves(floats)
  return Buffer.concat([header(20240326, version, maxT, V, L, NH, C, Vp), body])
}

function readModel(path: string, isNarrow: boolean) {
  const header = readModelHeader(path)
  const data = isNarrow ? new Uint16Array(header.parameters) : new Float32Array(header.parameters)
  loadModel(path, [{ name: "all", data }])
  return { ...header, numbers: Buffer.from(data.buffer) }
}

function modelOf(bytes: Buffer, isNarrow: boolean) {
  if (bytes.length < 1024 || bytes.readInt32LE(0) !== 20240326) return undefined
  const [version, maxT, V, L, NH, C, Vp] = [1, 2, 3, 4, 5, 6, 7].map((i) =>
    bytes.readInt32LE(4 * i),
  )
  if (version !== 3 && version !== 5) return undefined
  const config = { maxT: maxT!, V: V!, Vp: Vp!, L: L!, NH: NH!, C: C! }
  if (Object.values(config).some((n) => n < 1) || Vp! < V! || C! % NH! !== 0) return undefined
  const [t, l, c, v] = [maxT!, L!, C!, Vp!].map(BigInt)
  const parameters = v! * c! + t! * c! + l! * (12n * c! * c! + 13n * c!) + 2n * c!
  if (1024n + parameters * (version === 3 ? 4n : 2n) !== BigInt(bytes.length)) return undefined

  const body = bytes.subarray(1024)
  const wide = version === 3 ? body : widened(body)
  const narrow = version === 5 ? body : rounded(body)
  if (!isFinite32(isNarrow ? widened(narrow) : wide)) return undefined
  const dtype = version === 3 ? "fp32" : "bf16"
  const numbers = isNarrow ? narrow : wide
  return { config, dtype, parameters: Number(parameters), numbers: Buffer.from(numbers) }
}

function widened(halves: Buffer): Buffer {
  const wide = Buffer.alloc(2 * halves.length)
  for (let at = 0; at < halves.length; at += 2) halves.copy(wide, 2 * at + 2, at, at + 2)
  return wide
}

/** To the nearest, a tie to the even one; a NaN stays one. */
function rounded(floats: Buffer): Buffer {
  const halves = Buffer.alloc(floats.length / 2)
  for (let at = 0; at < floats.length; at += 4) {
    const [low, high] = [floats.readUInt16LE(at), floats.readUInt16LE(at + 2)]
    const isUp = low > 0x8000 || (low === 0x8000 && high % 2 === 1)
    const isNaN32 = Number.isNaN(floats.readFloatLE(at))
    halves.writeUInt16LE(isNaN32 ? 0x7fc0 : high + (isUp ? 1 : 0), at / 2)
  }
  return halves
}

const modelReader = (version: 3 | 5, isNarrow: boolean): Reader => ({
  name: `model in ${version === 3 ? "fp32" : "bf16"}, into ${isNarrow ? "bf16" : "f32"}`,
  headerBytes: 1024,
  words: 8,
  floatBytes: version === 3 ? 4 : 2,
  file: () => modelFile(version),
  others: () => [
    modelFile(version, { Vp: 5 }),
    modelFile(version, { Vp: 4 }),
    modelFile(version, { NH: 3 }),
    modelFile(version, { L: 0 }),
    modelFile(version, { L: 1, C: 1, NH: 1 }),
    modelFile(version, { maxT: 0 }),
    modelFile(version, { V: 0 }),
  ],
  read: (path) => readModel(path, isNarrow),
  expected: (bytes) => modelOf(bytes, isNarrow),
})

// A debug state of that model.

function stateFile(B: number, T: number, highest = TINY.V - 1): Buffer {
  const tokens = Array.from({ length: 2 * B * T }, (_, i) => highest - (i % TINY.V))
  const floats = float32s(B * T * TINY.V + 1 + TINY_PARAMETERS)
  return Buffer.concat([header(20240327, 2, B, T), int32s(...tokens), floats])
}

function stateOf(bytes: Buffer) {
  if (bytes.length < 1024) return undefined
  const [magic, version, B, T] = [0, 1, 2, 3].map((i) => bytes.readInt32LE(4 * i))
  if (magic !== 20240327 || version !== 2 || B! < 1 || T! < 1 || T! > TINY.maxT) return undefined
  const rows = BigInt(B!) * BigInt(T!)
  const words = rows * BigInt(2 + TINY.V) + 1n + BigInt(TINY_PARAMETERS)
  if (1024n + 4n * words !== BigInt(bytes.length)) return undefined
  const end = 1024 + 8 * Number(rows)
  for (let at = 1024; at < end; at += 4) {
    const token = bytes.readInt32LE(at)
    if (token < 0 || token >= TINY.V) return undefined
  }
  return isFinite32(bytes.subarray(end)) ? Buffer.from(bytes.subarray(1024)) : undefined
}

function readState(path: string): Buffer {
  const { x, y, logits, loss, gradients } = readDebugState(path, TINY)
  const parts = [x, y, logits, Float32Array.of(loss), gradients]
  return Buffer.concat(parts.map((part) => Buffer.from(part.buffer)))
}

// A tokenizer.

function tokenizerOf(bytes: Buffer) {
  if (bytes.length < 1024 || bytes.readInt32LE(0) !== 20240328) return undefined
  const [version, count, field] = [1, 2, 3].map((i) => bytes.readInt32LE(4 * i))
  const endOfText = version === 1 ? 50256 : field!
  if (version !== 1 && version !== 2) return undefined
  if (version === 1 && count !== VOCABULARY) return undefined
  const tokens: string[] = []
  let at = 1024
  while (at < bytes.length) {
    const length = bytes[at]!
    if (length === 0 || at + 1 + length > bytes.length) return undefined
    tokens.push(bytes.toString("hex", at + 1, at + 1 + length))
    at += 1 + length
  }
  if (tokens.length !== count || endOfText < 0 || endOfText >= count) return undefined
  return { tokens, endOfText }
}

function tokenizerFile(count: number, endOfText: number, version = 2): Buffer {
  const lengths = Array.from({ length: count }, (_, i) => 1 + ((i * i) % 23))
  const tokens = lengths.flatMap((length, i) => [Buffer.from([length]), Buffer.alloc(length, i)])
  return Buffer.concat([header(20240328, version, count, endOfText), ...tokens])
}

// The config file. TOML's grammar is Bun's to know; what its values mean for the table is checked.

const CONFIG = `# a run
version = "0.1.0"
tokens = "data/x_train.bin"
batch = 4
context = 64
lr = 0.0003
beta2 = 0.95
eps = 1e-8
schedule = "cosine"
shuffle = true
overfit-batch = false
out = "runs/a \\"b\\""
seed = 4294967295
`

function optionsOf(bytes: Buffer): Record<string, Value> | undefined {
  let table: Record<string, unknown>
  try {
    table = Bun.TOML.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes)) as typeof table
  } catch {
    return undefined
  }
  const values: Record<string, Value> = {}
  for (const option of TRAIN.options) {
    if ("default" in option && option.default !== undefined) values[option.name] = option.default
  }
  for (const [key, value] of Object.entries(table)) {
    if (key === "version" || key === "command") continue
    const option = TRAIN.options.find(({ name }) => name === key && name !== "config")
    const kind = option?.kind ?? (key === "tokens" ? "text" : undefined)
    if (kind === "flag" ? typeof value !== "boolean" : kind === undefined) return undefined
    const choices = option?.kind === "text" ? option.choices : undefined
    const text = choices && typeof value === "number" ? `${value}` : value
    if (kind === "text") {
      if (typeof text !== "string" || text === "") return undefined
      if (choices && !choices.includes(text)) return undefined
    }
    if (option?.kind === "int" || option?.kind === "float") {
      const { min, max = Number.MAX_VALUE, open } = option
      if (typeof value !== "number" || !(value >= min && value <= max)) return undefined
      if ((open === "min" && value === min) || (open === "max" && value === max)) return undefined
      if (option.kind === "int" && !Number.isInteger(value)) return undefined
    }
    values[key] = text as Value
  }
  return values
}

export const READERS: Reader[] = [
  tokenReader("GPT-2", 3, (tokens) => {
    const body = Buffer.from(Uint16Array.from(tokens).buffer)
    return Buffer.concat([header(20240520, 1, tokens.length), body])
  }),
  tokenReader("Llama 3", 3, (tokens) => {
    return Buffer.concat([header(20240801, 7, tokens.length), int32s(...tokens)])
  }),
  tokenReader("without a header", 0, (tokens) => int32s(...tokens)),
  modelReader(3, false),
  modelReader(5, false),
  modelReader(3, true),
  modelReader(5, true),
  {
    name: "debug state",
    headerBytes: 1024,
    words: 4,
    floatBytes: 4,
    file: () => stateFile(2, 3),
    others: () => [
      stateFile(1, 4),
      stateFile(0, 3),
      stateFile(1, 0),
      stateFile(-1, -3),
      stateFile(1, 1),
      stateFile(1, 3, TINY.V),
      stateFile(1, 3, TINY.V - 2),
    ],
    read: readState,
    expected: stateOf,
  },
  CHOICES,
  ...HUGGING_FACE,
  runStateReader(TINY, TINY_PARAMETERS, false),
  runStateReader(TINY, TINY_PARAMETERS, true),
  GGUF,
  {
    name: "tokenizer",
    headerBytes: 1024,
    words: 4,
    file: () => tokenizerFile(40, 39),
    others: () => [
      tokenizerFile(0, 0),
      tokenizerFile(1, 0),
      tokenizerFile(40, 40),
      tokenizerFile(40, -1),
      tokenizerFile(40, 39, 1),
    ],
    read: (path) => {
      const { tokens, endOfText } = readTokenizer(path)
      return { tokens: tokens.map((bytes) => Buffer.from(bytes).toString("hex")), endOfText }
    },
    expected: tokenizerOf,
  },
  {
    name: "config file",
    headerBytes: 0,
    words: 0,
    snippets: [
      ..."\"'=[]{}#,.-+_\n\t\r\0\x7f\u{feff}é",
      ...[
        '"""',
        "'''",
        "[[",
        "\\u",
        "\\n",
        "nan",
        "inf",
        "true",
        "0x",
        "1e999",
        "e",
        "9".repeat(20),
      ],
      ...["1979-05-27", "__proto__", "config", "steps = 3\n", "\nlr = 1\n", "[a]\n", "zero = 3\n"],
    ],
    file: () => Buffer.from(CONFIG),
    others: () =>
      [
        'tokens = ""',
        'out = ""',
        '"a\\nb" = 1',
        'schedule = "\\u0007"',
        "lr = nan",
        "beta1 = 1",
      ].map((text) => Buffer.from(`${text}\nsteps = 3\n`)),
    read: (path) => parseOptions(TRAIN, ["--config", path]).resolved(),
    expected: optionsOf,
    readsPipes: true,
    spareBytes: 64 * 1024, // to find the name that a wrong one is nearest to
  },
]
