// A GGUF file of a GPT-2 that llama.cpp loads as it is.

import { basename } from "node:path"
import { loadBpeFiles } from "../data/bpe-files.ts"
import { writeWhole } from "../data/files.ts"
import { END_OF_TEXT } from "../data/tokenizer.ts"
import { UserError } from "../errors.ts"
import { GPT2_VOCABULARY } from "../model/config.ts"
import { ALIGNMENT, MAGIC, TENSOR_TYPES, VALUE } from "./gguf-file.ts"
import { type GgufParameter, ggufTable } from "./gguf-tensors.ts"
import { NUMBERS } from "./numbers.ts"
import type { NumberType, WeightSource } from "./source.ts"

const VERSION = 3
const PIECE = 2 ** 18 // numbers written at once: whole blocks
/** llama.cpp's numbers for what most of a file's tensors hold (llama.h, llama_ftype). */
const FILE_TYPES: Record<NumberType, number> = { f32: 0, f16: 1, q8_0: 7, bf16: 32 }
const QUANTIZATION_VERSION = 2 // of ggml's blocks
const NORMAL = 1 // kinds of tokens
const CONTROL = 3

/** Writes the weights with their matrices in this type. A model of GPT-2's vocabulary gets GPT-2's
 * tokenizer; another one none. */
export async function writeGguf(
  path: string,
  source: WeightSource,
  type: NumberType,
): Promise<{ hasTokenizer: boolean }> {
  const { V, C } = source.config
  const { block } = NUMBERS[type]
  if (C % block !== 0) {
    const rule = `${type} stores numbers in blocks of ${block}`
    throw new UserError(
      `${path}: ${rule}, which do not divide ${C} channels (try --type f16 or bf16)`,
    )
  }
  const hasTokenizer = V === GPT2_VOCABULARY
  const metadata = [
    ...modelMetadata(source, type),
    ...(hasTokenizer
      ? await tokenizerMetadata()
      : [entry("tokenizer.ggml.model", VALUE.string, text("no_vocab"))]),
  ]
  const table = ggufTable(source.config)
  writeWhole(path, chunks(path, source, table, metadata, type))
  return { hasTokenizer }
}

function* chunks(
  path: string,
  source: WeightSource,
  table: GgufParameter[],
  metadata: Buffer[],
  type: NumberType,
): Generator<Uint8Array> {
  const infos: Buffer[] = []
  let offset = 0
  for (const { tensors, dims, isWide } of table) {
    const stored = isWide ? "f32" : type
    for (const name of tensors) {
      infos.push(text(name), u32(dims.length), ...dims.map(u64))
      infos.push(u32(TENSOR_TYPES[stored]), u64(offset))
      const bytes = (product(dims) / NUMBERS[stored].block) * NUMBERS[stored].bytes
      offset += bytes + padding(bytes)
    }
  }
  const counts = [u64(table.flatMap(({ tensors }) => tensors).length), u64(metadata.length)]
  const head = Buffer.concat([u32(MAGIC), u32(VERSION), ...counts, ...metadata, ...infos])
  yield head
  yield new Uint8Array(padding(head.length))

  const numbers = new Float32Array(PIECE)
  for (const { name, tensors, dims, isWide } of table) {
    const { block, bytes, encode } = NUMBERS[isWide ? "f32" : type]
    const size = product(dims)
    for (const [layer, tensor] of tensors.entries()) {
      for (let start = 0; start < size; start += PIECE) {
        const piece = numbers.subarray(0, Math.min(PIECE, size - start))
        source.read(name, piece, layer * size + start)
        const stored = new Uint8Array((piece.length / block) * bytes)
        const place = encode(stored, piece)
        if (place >= 0) {
          const what = `number ${start + place} is ${piece[place]}, too large for ${type}`
          throw new UserError(`${path}: ${tensor}: ${what} (try --type fp32)`)
        }
        yield stored
      }
      yield new Uint8Array(padding((size / block) * bytes))
    }
  }
}

function modelMetadata({ path, config }: WeightSource, type: NumberType): Buffer[] {
  const { maxT, V, L, NH, C } = config
  const count = (key: string, value: number) => entry(key, VALUE.u32, u32(value))
  return [
    entry("general.architecture", VALUE.string, text("gpt2")),
    entry("general.name", VALUE.string, text(basename(path).replace(/\.\w+$/, ""))),
    count("general.file_type", FILE_TYPES[type]),
    ...(type === "q8_0" ? [count("general.quantization_version", QUANTIZATION_VERSION)] : []),
    count("gpt2.context_length", maxT),
    count("gpt2.embedding_length", C),
    count("gpt2.feed_forward_length", 4 * C),
    count("gpt2.block_count", L),
    count("gpt2.vocab_size", V),
    count("gpt2.attention.head_count", NH),
    entry("gpt2.attention.layer_norm_epsilon", VALUE.f32, f32(1e-5)),
  ]
}

async function tokenizerMetadata(): Promise<Buffer[]> {
  const { tokens, merges } = await loadBpeFiles()
  const kinds = tokens.map((_, token) => u32(token === END_OF_TEXT ? CONTROL : NORMAL))
  const array = (kind: number, elements: Buffer[]) =>
    Buffer.concat([u32(kind), u64(elements.length), ...elements])
  return [
    entry("tokenizer.ggml.model", VALUE.string, text("gpt2")),
    entry("tokenizer.ggml.pre", VALUE.string, text("gpt-2")),
    entry("tokenizer.ggml.tokens", VALUE.array, array(VALUE.string, tokens.map(text))),
    entry("tokenizer.ggml.token_type", VALUE.array, array(VALUE.i32, kinds)),
    entry("tokenizer.ggml.merges", VALUE.array, array(VALUE.string, merges.map(text))),
    entry("tokenizer.ggml.bos_token_id", VALUE.u32, u32(END_OF_TEXT)),
    entry("tokenizer.ggml.eos_token_id", VALUE.u32, u32(END_OF_TEXT)),
  ]
}

const entry = (key: string, kind: number, value: Buffer) =>
  Buffer.concat([text(key), u32(kind), value])
const u32 = (n: number) => Buffer.from(Uint32Array.of(n).buffer)
const u64 = (n: number) => Buffer.from(BigUint64Array.of(BigInt(n)).buffer)
const f32 = (x: number) => Buffer.from(Float32Array.of(x).buffer)
function text(value: string): Buffer {
  const bytes = Buffer.from(value, "utf8")
  return Buffer.concat([u64(bytes.length), bytes])
}

const product = (dims: number[]) => dims.reduce((a, b) => a * b)
const padding = (bytes: number) => (ALIGNMENT - (bytes % ALIGNMENT)) % ALIGNMENT
