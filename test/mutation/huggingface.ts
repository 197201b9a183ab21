// What a Hugging Face folder is read from: a safetensors file, config.json, and the list of shards.

import { readHubConfig } from "../../src/weights/hf-config.ts"
import { shardList } from "../../src/weights/huggingface.ts"
import { SafetensorsFile } from "../../src/weights/safetensors.ts"
import { type Entry, parts, whole, withHeader } from "../fixtures/hub.ts"
import type { Reader } from "./readers.ts"

type Fields = Record<string, unknown>

function objectOf(bytes: Uint8Array): Fields | undefined {
  try {
    const value = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes))
    return value !== null && typeof value === "object" && !Array.isArray(value) ? value : undefined
  } catch {
    return undefined
  }
}

const JSON_SNIPPETS = [
  ...'"\\{}[]:,.-+e09 \n\t\0\x7f\u{feff}é',
  ...["null", "true", "1e999", "-1", "1.5", "9".repeat(20), '"__proto__":', "[".repeat(3000)],
]

// safetensors

const bytes = (length: number) => Uint8Array.from({ length }, (_, i) => (i * 37) % 63)
const TENSORS: Record<string, Entry> = {
  a: { dtype: "F32", shape: [5, 7], data: bytes(140) },
  "b.c": { dtype: "BF16", shape: [3, 11], data: bytes(66) },
  empty: { dtype: "F32", shape: [0, 4], data: bytes(0) },
  d: { dtype: "F16", shape: [1, 31], data: bytes(62) },
  scalar: { dtype: "F32", shape: [], data: bytes(4) },
  mask: { dtype: "BOOL", shape: [2, 2, 5], data: bytes(20) },
}
const SIZES: Record<string, bigint> = {
  ...{ BOOL: 1n, U8: 1n, I8: 1n, F8_E4M3: 1n, F8_E5M2: 1n, F8_E8M0: 1n, I16: 2n, U16: 2n },
  ...{ F16: 2n, BF16: 2n, I32: 4n, U32: 4n, F32: 4n, I64: 8n, U64: 8n, F64: 8n, C64: 8n },
}

/** The number that a type's bytes stand for. */
function numberAt(file: Buffer, at: number, dtype: string): number {
  if (dtype === "F32") return file.readFloatLE(at)
  const half = file.readUInt16LE(at)
  if (dtype === "BF16") return Buffer.from([0, 0, half & 255, half >> 8]).readFloatLE(0)
  const [exponent, fraction] = [(half >> 10) & 31, (half & 1023) / 1024]
  const size = exponent === 0 ? fraction * 2 ** -14 : (1 + fraction) * 2 ** (exponent - 15)
  return exponent === 31 ? Number.NaN : half >> 15 ? -size : size
}

function tensorsOf(file: Buffer) {
  if (file.length < 8) return undefined
  const length = file.readBigUInt64LE(0)
  if (length > 100_000_000n || length > BigInt(file.length - 8)) return undefined
  const body = 8 + Number(length)
  const header = objectOf(file.subarray(8, body))
  if (!header) return undefined
  const places: [number, number][] = []
  const tensors: Record<string, unknown> = {}
  for (const [name, entry] of Object.entries(header)) {
    if (name === "__metadata__") continue
    const { dtype, shape, data_offsets: place } = (entry ?? {}) as Fields
    const isSize = (n: unknown) => Number.isSafeInteger(n) && (n as number) >= 0
    if (Array.isArray(entry) || typeof dtype !== "string" || !(dtype in SIZES)) return undefined
    if (!Object.hasOwn(SIZES, dtype)) return undefined
    if (!Array.isArray(shape) || !shape.every(isSize)) return undefined
    if (!Array.isArray(place) || place.length !== 2 || !place.every(isSize)) return undefined
    const promised = shape.reduce((n, size) => n * BigInt(size), SIZES[dtype]!)
    const [start, end] = place as [number, number]
    if (BigInt(end) - BigInt(start) !== promised || body + end > file.length) return undefined
    places.push([start, end])
    const isRead = ["F32", "BF16", "F16"].includes(dtype)
    const numbers = Array.from(
      { length: isRead ? (end - start) / Number(SIZES[dtype]) : 0 },
      (_, i) => numberAt(file, body + start + i * Number(SIZES[dtype]), dtype),
    )
    if (!numbers.every(Number.isFinite)) return undefined
    tensors[name] = { dtype, shape, numbers }
  }
  places.sort((a, b) => a[0] - b[0] || a[1] - b[1])
  let at = 0
  for (const [start, end] of places) {
    if (start !== at) return undefined
    at = end
  }
  return body + at === file.length ? Object.entries(tensors) : undefined
}

function readTensors(path: string) {
  const file = new SafetensorsFile(path)
  try {
    return [...file.tensors].map(([name, { dtype, shape }]) => {
      const count = shape.reduce((a, b) => a * b, 1)
      const numbers = new Float32Array(file.typeOf(name) ? count : 0)
      if (file.typeOf(name)) file.readNumbers(name, numbers, 0)
      return [name, { dtype, shape, numbers: [...numbers] }]
    })
  } finally {
    file.close()
  }
}

const file = whole(TENSORS)
const placed = (a: number[], b: number[]) => {
  const of = (data_offsets: number[]) => ({ dtype: "F16", shape: [2], data_offsets })
  return withHeader(JSON.stringify({ a: of(a), b: of(b) }), bytes(Math.max(...a, ...b)))
}

const SAFETENSORS: Reader = {
  name: "safetensors",
  headerBytes: 8 + Number(file.readBigUInt64LE(0)),
  words: 2, // the header's length
  floatBytes: 4,
  snippets: [...JSON_SNIPPETS, '"F16"', '"BF16"', '"I64"', '"F4"', '"constructor"', "[0,4]"],
  file: () => file,
  others: () => [
    whole({}),
    placed([0, 4], [4, 8]),
    placed([4, 8], [0, 4]),
    placed([0, 4], [3, 7]),
    placed([0, 4], [5, 9]),
    placed([1, 5], [5, 9]),
    withHeader('{"a":{"dtype":"F32","shape":[1e15,1e15],"data_offsets":[0,8]}}', bytes(8)),
    withHeader('{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,9007199254740991]}}', bytes(8)),
  ],
  read: readTensors,
  expected: tensorsOf,
}

// config.json

const CONFIG = {
  model_type: "gpt2",
  vocab_size: 97,
  n_positions: 8,
  n_embd: 16,
  n_layer: 2,
  n_head: 2,
  n_inner: null,
  activation_function: "gelu_new",
  layer_norm_epsilon: 1e-5,
  architectures: ["GPT2LMHeadModel"],
  bos_token_id: 96,
  initializer_range: 0.02,
  resid_pdrop: 0.1,
  summary_first_dropout: 0.1,
  task_specific_params: { "text-generation": { do_sample: true, max_length: 50 } },
}

function configOf(file: Buffer) {
  const fields = objectOf(file)
  if (fields?.model_type !== "gpt2") return undefined
  const size = (name: string, usual: number) => {
    const value = fields[name] === undefined ? usual : fields[name]
    return Number.isInteger(value) ? (value as number) : 0
  }
  const [V, maxT] = [size("vocab_size", 50257), size("n_positions", 1024)]
  const [C, L, NH] = [size("n_embd", 768), size("n_layer", 12), size("n_head", 12)]
  if ([V, maxT, C, L, NH].some((n) => n < 1 || n >= 2 ** 31) || C % NH !== 0) return undefined
  const isOne = (name: string, values: unknown[]) =>
    fields[name] === undefined || values.includes(fields[name])
  const isOurs =
    isOne("activation_function", ["gelu_new", "gelu_pytorch_tanh", "gelu_fast"]) &&
    isOne("layer_norm_epsilon", [1e-5]) &&
    isOne("n_inner", [null, 4 * C]) &&
    isOne("scale_attn_weights", [true]) &&
    isOne("scale_attn_by_inverse_layer_idx", [false]) &&
    isOne("add_cross_attention", [false]) &&
    isOne("tie_word_embeddings", [true])
  return isOurs ? { maxT, V, Vp: 128 * Math.ceil(V / 128), L, NH, C } : undefined
}

const json = (value: unknown) => Buffer.from(JSON.stringify(value, null, 2))

const HUB_CONFIG: Reader = {
  name: "config.json",
  headerBytes: 0,
  words: 0,
  snippets: [...JSON_SNIPPETS, '"n_layer": 3,', '"tie_word_embeddings": false,', '"n_inner": 64,'],
  file: () => json(CONFIG),
  others: () =>
    [
      { model_type: "gpt2" },
      { ...CONFIG, n_head: 3 },
      { ...CONFIG, n_inner: 64 },
      { ...CONFIG, n_inner: 63 },
      { ...CONFIG, activation_function: "gelu" },
      { ...CONFIG, layer_norm_epsilon: 1e-6 },
      { ...CONFIG, scale_attn_by_inverse_layer_idx: true },
      { ...CONFIG, vocab_size: 2 ** 31 },
      { ...CONFIG, n_layer: null },
    ].map(json),
  read: readHubConfig,
  expected: configOf,
}

// model.safetensors.index.json

const SHARDS = {
  metadata: { total_size: 123456789 },
  weight_map: Object.fromEntries(
    Object.keys(parts(file)).map((name, i) => [
      name,
      `model-0000${1 + (i % 2)}-of-00002.safetensors`,
    ]),
  ),
}

function shardsOf(file: Buffer) {
  const map = objectOf(file)?.weight_map
  if (map === null || typeof map !== "object" || Array.isArray(map)) return undefined
  const entries = Object.entries(map as Fields)
  const isPlain = (name: unknown) => {
    if (typeof name !== "string" || !name.endsWith(".safetensors")) return false
    const letters = [...name.slice(0, -".safetensors".length)]
    return (
      letters.length > 0 &&
      letters.every((c, i) => /[a-zA-Z0-9_]/.test(c) || (i > 0 && "-.".includes(c)))
    )
  }
  return entries.length > 0 && entries.every(([, name]) => isPlain(name)) ? entries : undefined
}

const INDEX: Reader = {
  name: "list of shards",
  headerBytes: 0,
  words: 0,
  snippets: [...JSON_SNIPPETS, "../", "/", "..", ".safetensors", "a", '"x": "y.safetensors",'],
  file: () => json(SHARDS),
  others: () =>
    [
      "../a.safetensors",
      "/etc/a.safetensors",
      "a/b.safetensors",
      ".safetensors",
      "a\\b.safetensors",
    ]
      .map((name) => json({ weight_map: { ...SHARDS.weight_map, a: name } }))
      .concat([json({ weight_map: {} }), json({ weight_map: [] }), json({})]),
  read: (path) => [...shardList(path)],
  expected: shardsOf,
}

export const HUGGING_FACE: Reader[] = [SAFETENSORS, HUB_CONFIG, INDEX]
