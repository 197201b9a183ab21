// A Hugging Face folder, which transformers loads as it is.

import { rmSync } from "node:fs"
import { join } from "node:path"
import { loadBpeFiles } from "../data/bpe-files.ts"
import { makeFolder, writeWhole } from "../data/files.ts"
import { END_OF_TEXT, VOCABULARY } from "../data/tokenizer.ts"
import type { Config } from "../model/config.ts"
import { encode, type FloatType, PIECE } from "./encode.ts"
import { type HubTensor, hubTensors, PREFIX } from "./hf-names.ts"
import { CONFIG_FILE, MODEL_FILE } from "./huggingface.ts"
import { NUMBERS } from "./numbers.ts"
import type { WeightSource } from "./source.ts"

const DTYPE = { f32: "F32", bf16: "BF16", f16: "F16" }
const TORCH = { f32: "float32", bf16: "bfloat16", f16: "float16" }
const HEADER_ALIGN = 8 // bytes, so that a program which maps the file finds numbers aligned
const count = (shape: number[]) => shape.reduce((a, b) => a * b, 1)
const json = (value: unknown) => Buffer.from(`${JSON.stringify(value, null, 2)}\n`)

/** Writes the folder, config.json last: without it, it is none. Returns the files' paths. */
export async function writeHub(
  folder: string,
  source: WeightSource,
  type: FloatType,
): Promise<string[]> {
  const { config } = source
  const remove = makeFolder("TO", folder)
  const paths: string[] = []
  const write = (name: string, chunks: Iterable<Uint8Array>) => {
    writeWhole(join(folder, name), chunks)
    paths.push(join(folder, name))
  }
  try {
    write(MODEL_FILE, safetensors(source, type))
    for (const [name, content] of await tokenizerFiles(config)) write(name, [content])
    const ends = endTokens(config)
    write("generation_config.json", [json(ends)])
    write(CONFIG_FILE, [json({ ...configJson(config), ...ends, torch_dtype: TORCH[type] })])
    return paths
  } catch (error) {
    for (const path of paths) rmSync(path, { force: true })
    remove()
    throw error
  }
}

function configJson({ V, maxT, C, L, NH }: Config) {
  return {
    architectures: ["GPT2LMHeadModel"],
    model_type: "gpt2",
    vocab_size: V,
    n_positions: maxT,
    n_ctx: maxT,
    n_embd: C,
    n_layer: L,
    n_head: NH,
    n_inner: null,
    activation_function: "gelu_new",
    layer_norm_epsilon: 1e-5,
    tie_word_embeddings: true,
  }
}

/** A small vocabulary has no such token. */
function endTokens({ V }: Config) {
  const end = V > END_OF_TEXT ? END_OF_TEXT : null
  return { bos_token_id: end, eos_token_id: end }
}

function* safetensors(source: WeightSource, type: FloatType): Generator<Uint8Array> {
  const tensors = [...hubTensors(source.config)]
  let end = 0
  const entries = tensors.map(({ name, shape }) => {
    const start = end
    end += count(shape) * NUMBERS[type].bytes
    return [`${PREFIX}${name}`, { dtype: DTYPE[type], shape, data_offsets: [start, end] }]
  })
  const header = JSON.stringify({ __metadata__: { format: "pt" }, ...Object.fromEntries(entries) })
  const padded = header.padEnd(Math.ceil(header.length / HEADER_ALIGN) * HEADER_ALIGN)
  const length = Buffer.alloc(8)
  length.writeBigUInt64LE(BigInt(padded.length))
  yield length
  yield Buffer.from(padded)
  for (const tensor of tensors) {
    let first = 0
    for (const numbers of stored(source, tensor)) {
      yield encode(source, `${PREFIX}${tensor.name}`, first, numbers, type)
      first += numbers.length
    }
  }
}

/** A tensor's numbers in the order in which they are stored. */
function* stored(source: WeightSource, tensor: HubTensor): Generator<Float32Array> {
  const { parameter, layer, shape, isTransposed } = tensor
  const length = count(shape)
  const start = layer * length
  if (!isTransposed) {
    for (let first = 0; first < length; first += PIECE) {
      const numbers = new Float32Array(Math.min(PIECE, length - first))
      source.read(parameter, numbers, start + first)
      yield numbers
    }
    return
  }
  const matrix = new Float32Array(length) // (out, in)
  source.read(parameter, matrix, start)
  const [ins = 0, outs = 0] = shape
  const height = Math.max(1, Math.floor(PIECE / outs))
  for (let first = 0; first < ins; first += height) {
    const rows = new Float32Array(Math.min(height, ins - first) * outs)
    for (let o = 0; o < outs; o++) {
      for (let i = 0; i * outs < rows.length; i++) rows[i * outs + o] = matrix[o * ins + first + i]!
    }
    yield rows
  }
}

/** What GPT-2's tokenizer is loaded from; nothing for another vocabulary. */
async function tokenizerFiles({ V, maxT }: Config): Promise<[string, Uint8Array][]> {
  if (V !== VOCABULARY) return []
  const { tokens, merges } = await loadBpeFiles()
  const end = "<|endoftext|>"
  const special = { bos_token: end, eos_token: end, unk_token: end }
  const known = { tokenizer_class: "GPT2Tokenizer", model_max_length: maxT }
  // By hand: an object would put the tokens that are numbers before all others.
  const lines = tokens.map((token, id) => `${JSON.stringify(token)}: ${id}`)
  return [
    ["vocab.json", Buffer.from(`{${lines.join(", ")}}\n`)],
    ["merges.txt", Buffer.from(["#version: 0.2", ...merges, ""].join("\n"))],
    ["tokenizer_config.json", json({ ...known, add_prefix_space: false, ...special })],
    ["special_tokens_map.json", json(special)],
  ]
}
