// A GGUF file of a small GPT-2, its matrices in all the types of numbers.

import { openGguf } from "../../src/weights/gguf.ts"
import type { NumberType } from "../../src/weights/source.ts"
import {
  f32,
  ggufFile,
  type Tensor,
  text,
  tinyGguf,
  u32,
  u64,
  type Value,
} from "../fixtures/gguf.ts"
import type { Reader } from "./readers.ts"

const SHAPE = { maxT: 2, V: 3, Vp: 128, L: 1, NH: 2, C: 32 }
const TYPES: Record<number, { type: NumberType; block: number; bytes: number }> = {
  0: { type: "f32", block: 1, bytes: 4 },
  1: { type: "f16", block: 1, bytes: 2 },
  8: { type: "q8_0", block: 32, bytes: 34 },
  30: { type: "bf16", block: 1, bytes: 2 },
}
const SIZES = [1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8] // of the metadata's kinds

const EXTRA: Value[] = [
  ["general.alignment", 4, u32(16)],
  ["tokenizer.ggml.tokens", 9, Buffer.concat([u32(8), u64(3), ...["a", "", "bc"].map(text)])],
  ["tokenizer.ggml.scores", 9, Buffer.concat([u32(6), u64(2), f32(1, 2)])],
]

/** ggml's numbers of the types; all else is f32. */
const NARROW: Record<string, number> = {
  "blk.0.attn_qkv.weight": 1,
  "blk.0.attn_output.weight": 30,
  "blk.0.ffn_up.weight": 30,
  "blk.0.ffn_down.weight": 8,
}

function make(change: Partial<Parameters<typeof ggufFile>[0]> = {}): Buffer {
  const { values, tensors } = tinyGguf(SHAPE)
  const mixed = tensors.map((tensor): Tensor => {
    const code = NARROW[tensor.name]
    if (code === undefined) return tensor
    const { block, bytes } = TYPES[code]!
    const length = (tensor.data.length / 4 / block) * bytes
    // No two of these bytes make a number that is not finite.
    return { ...tensor, type: code, data: Uint8Array.from({ length }, (_, i) => i % 0x3c) }
  })
  return ggufFile({ values: [...EXTRA, ...values], tensors: mixed, alignment: 16, ...change })
}

function read(path: string) {
  const model = openGguf(path)
  try {
    const { V, C, maxT, L } = model.config
    const sizes = {
      ...{ wte: (V + 1) * C, wpe: maxT * C, qkvw: 3 * C * C * L, qkvb: 3 * C * L },
      ...{ ln1w: C * L, ln1b: C * L, attprojw: C * C * L, attprojb: C * L, ln2w: C * L },
      ...{ ln2b: C * L, fcw: 4 * C * C * L, fcb: 4 * C * L, fcprojw: 4 * C * C * L },
      ...{ fcprojb: C * L, lnfw: C, lnfb: C },
    }
    const numbers = Object.entries(sizes).map(([name, size]) => {
      const data = new Float32Array(size)
      model.read(name, data, 0)
      return hash(data)
    })
    return { config: model.config, type: model.type, numbers }
  } finally {
    model.close()
  }
}
const hash = (data: Float32Array) => Bun.hash(new Uint8Array(data.buffer)).toString(16)

/** Reads on to the end of what there is; undefined where the file ends first. */
class Bytes {
  at = 0
  constructor(readonly all: Buffer) {}
  take(count: number | bigint): Buffer | undefined {
    if (BigInt(this.at) + BigInt(count) > BigInt(this.all.length)) return undefined
    this.at += Number(count)
    return this.all.subarray(this.at - Number(count), this.at)
  }
  u32 = () => this.take(4)?.readUInt32LE()
  u64 = () => this.take(8)?.readBigUInt64LE()
  text() {
    const length = this.u64()
    return length === undefined || length > 2n ** 24n
      ? undefined
      : this.take(length)?.toString("utf8")
  }
}

/** A value, null for an array; undefined where it is broken. */
function anyValue(from: Bytes): number | string | null | undefined {
  const kind = from.u32()
  if (kind === 8) return from.text()
  if (kind === 9) {
    const element = from.u32()
    const count = from.u64()
    if (element === undefined || count === undefined) return undefined
    if (element !== 8) {
      const size = SIZES[element]
      return size && from.take(BigInt(size) * count) ? null : undefined
    }
    for (let i = 0n; i < count; i++) {
      const length = from.u64()
      if (length === undefined || !from.take(length)) return undefined
    }
    return null
  }
  const bytes = from.take(SIZES[kind ?? 99] || 2 ** 40)
  if (bytes === undefined) return undefined
  const readers: Record<number, () => number> = {
    1: () => bytes.readInt8(),
    3: () => bytes.readInt16LE(),
    5: () => bytes.readInt32LE(),
    6: () => bytes.readFloatLE(),
    11: () => Number(bytes.readBigInt64LE()),
    12: () => bytes.readDoubleLE(),
    10: () => Number(bytes.readBigUInt64LE()),
  }
  return readers[kind!]?.() ?? bytes.readUIntLE(0, bytes.length)
}

type Found = { dims: bigint[]; code: number; offset: bigint }

function expected(all: Buffer) {
  const from = new Bytes(all)
  if (from.take(4)?.toString("latin1") !== "GGUF") return undefined
  if (![2, 3].includes(from.u32() ?? 0)) return undefined
  const [tensorCount, valueCount] = [from.u64(), from.u64()]
  if (tensorCount === undefined || valueCount === undefined) return undefined
  const values = new Map<string, number | string | null>()
  for (let i = 0n; i < valueCount; i++) {
    const key = from.text()
    const value = key === undefined || values.has(key) ? undefined : anyValue(from)
    if (value === undefined) return undefined
    values.set(key!, value)
  }
  const tensors = new Map<string, Found>()
  for (let i = 0n; i < tensorCount; i++) {
    const name = from.text()
    const rank = from.u32()
    if (name === undefined || tensors.has(name) || rank === undefined) return undefined
    if (rank < 1 || rank > 4) return undefined
    const dims = Array.from({ length: rank }, () => from.u64())
    const [code, offset] = [from.u32(), from.u64()]
    if (offset === undefined || !TYPES[code!]) return undefined
    tensors.set(name, { dims: dims as bigint[], code: code!, offset })
  }
  const alignment = values.has("general.alignment") ? values.get("general.alignment") : 32
  if (![...Array(32).keys()].some((bit) => 2 ** bit === alignment)) return undefined
  const step = BigInt(alignment as number)
  const start = ((BigInt(from.at) + step - 1n) / step) * step
  const taken: [bigint, bigint][] = []
  for (const { dims, code, offset } of tensors.values()) {
    const { block, bytes } = TYPES[code]!
    const count = dims.reduce((a, b) => a * b)
    if (count < 1n || dims[0]! % BigInt(block) !== 0n || offset % step !== 0n) return undefined
    taken.push([start + offset, start + offset + (count / BigInt(block)) * BigInt(bytes)])
  }
  taken.sort(([a], [b]) => (a < b ? -1 : 1))
  if (taken.some(([at, end], i) => end > all.length || at < (taken[i - 1]?.[1] ?? 0n)))
    return undefined
  const end = taken.at(-1)?.[1] ?? 0n
  if (all.length > ((end + step - 1n) / step) * step) return undefined

  const key = (name: string) => values.get(`gpt2.${name}`)
  const names = ["context_length", "embedding_length", "block_count", "attention.head_count"]
  const counts = [...names, "feed_forward_length"].map(key)
  if (!counts.every((n) => Number.isInteger(n) && (n as number) >= 1)) return undefined
  const [maxT, C, L, NH, width] = counts as number[]
  const epsilon = key("attention.layer_norm_epsilon")
  if (values.get("general.architecture") !== "gpt2" || C! % NH! !== 0 || width !== 4 * C!)
    return undefined
  if (typeof epsilon !== "number" || Math.fround(epsilon) !== Math.fround(1e-5)) return undefined
  if (L !== 1 || tensors.size !== 16) return undefined // no change adds the tensors of a layer
  const V = Number(tensors.get("token_embd.weight")?.dims[1] ?? 0n)
  const numbersOf = (name: string, ...shape: number[]) => {
    const tensor = tensors.get(name)
    if (!tensor || `${tensor.dims}` !== `${shape}`) return undefined
    const size = shape.reduce((a, b) => a * b)
    return decoded(all.subarray(Number(start + tensor.offset)), tensor.code, size)
  }
  const block = (name: string, ...shape: number[]) => numbersOf(`blk.0.${name}`, ...shape)
  const wte = numbersOf("token_embd.weight", C!, V)
  const all16 = [
    wte && Float32Array.of(...wte, ...new Float32Array(C!)),
    numbersOf("position_embd.weight", C!, maxT!),
    block("attn_qkv.weight", C!, 3 * C!),
    block("attn_qkv.bias", 3 * C!),
    block("attn_norm.weight", C!),
    block("attn_norm.bias", C!),
    block("attn_output.weight", C!, C!),
    block("attn_output.bias", C!),
    block("ffn_norm.weight", C!),
    block("ffn_norm.bias", C!),
    block("ffn_up.weight", C!, 4 * C!),
    block("ffn_up.bias", 4 * C!),
    block("ffn_down.weight", 4 * C!, C!),
    block("ffn_down.bias", C!),
    numbersOf("output_norm.weight", C!),
    numbersOf("output_norm.bias", C!),
  ]
  if (!all16.every((numbers) => numbers?.every(Number.isFinite))) return undefined
  const { type } = TYPES[tensors.get("blk.0.attn_qkv.weight")!.code]!
  const config = { maxT: maxT!, V, Vp: Math.ceil(V / 128) * 128, L, NH: NH!, C: C! }
  return { config, type, numbers: all16.map((numbers) => hash(numbers!)) }
}

function decoded(bytes: Buffer, code: number, count: number): Float32Array {
  const half = new Float16Array(1)
  const bits = new Uint16Array(half.buffer)
  const f16 = (at: number) => {
    bits[0] = bytes.readUInt16LE(at)
    return half[0]!
  }
  const upper = Buffer.alloc(4)
  const bf16 = (at: number) => {
    upper.writeUInt16LE(bytes.readUInt16LE(at), 2)
    return upper.readFloatLE()
  }
  const out = new Float32Array(count)
  for (let i = 0; i < count; i++) {
    if (code === 0) out[i] = bytes.readFloatLE(4 * i)
    if (code === 1) out[i] = f16(2 * i)
    if (code === 30) out[i] = bf16(2 * i)
    if (code !== 8) continue
    const block = 34 * Math.floor(i / 32)
    out[i] = f16(block) * bytes.readInt8(block + 2 + (i % 32))
  }
  return out
}

export const GGUF: Reader = {
  name: "GGUF",
  headerBytes: 1000, // metadata, and the first tensors: every count, length, kind and offset
  words: 250,
  floatBytes: 2,
  file: () => make(),
  others: () => {
    const { values, tensors } = tinyGguf(SHAPE)
    return [
      make({ values }), // 16 is no multiple of 32
      make({ values, alignment: 32 }),
      make({ values: values.slice(1) }),
      make({ tensors }),
      make({ tensors: tensors.slice(1) }),
      make({ version: 2 }),
      make({ version: 1 }),
      make({ counts: [1n << 63n, 1n] }),
      make({ counts: [1n, 1n << 63n] }),
    ]
  },
  read,
  expected,
  spareBytes: 4 * 65536 + 32 * 1024, // f16's table, which is made once; the tensors' names
}
