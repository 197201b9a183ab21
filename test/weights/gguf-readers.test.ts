// What others read in our GGUF files: Hugging Face's parser, and llama.cpp's own Python package, whose
// quantizers give the bytes of ggml's reference.

import { afterAll, describe, expect, test } from "bun:test"
import { mkdtempSync, readFileSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { gguf } from "@huggingface/gguf"
import { loadBpeFiles } from "../../src/data/bpe-files.ts"
import type { Config } from "../../src/model/config.ts"
import { writeGguf } from "../../src/weights/gguf-write.ts"
import { NUMBERS } from "../../src/weights/numbers.ts"
import type { NumberType } from "../../src/weights/source.ts"
import { memorySource } from "../fixtures/gguf.ts"

const folder = mkdtempSync(join(tmpdir(), "gguf-readers-"))
afterAll(() => rmSync(folder, { recursive: true }))
const at = (type: NumberType) => join(folder, `${type}.gguf`)

const CONFIG: Config = { maxT: 3, V: 50257, Vp: 50304, L: 2, NH: 2, C: 32 }

// Any size from 2⁻⁴⁰ to 2⁹, and many that lie in the middle between two steps of a block.
function number(i: number): number {
  const hash = Math.imul(i + 1, 0x9e3779b1)
  if (i % 64 < 32) return Math.fround((hash / 2 ** 31) * 2 ** (((hash >>> 5) % 50) - 40))
  return i % 32 === 0 ? 127 / 64 : ((hash >> 24) + 0.5) / 64
}
const { source, weights } = memorySource(CONFIG, number)

// ggml's numbers, and llama.cpp's for the whole file.
const TYPES: Record<NumberType, [tensor: number, file: number]> = {
  f32: [0, 0],
  f16: [1, 1],
  q8_0: [8, 7],
  bf16: [30, 32],
}
for (const type of Object.keys(TYPES) as NumberType[]) {
  expect(await writeGguf(at(type), source, type)).toEqual({ hasTokenizer: true })
}
const { tokens, merges } = await loadBpeFiles()

/** llama.cpp's names → ours, the layer, and the shape, the fastest first. */
function tensorsOf({ V, maxT, L, C }: Config) {
  const layers = Array.from({ length: L }, (_, l) => {
    const row = (name: string, ours: string, ...shape: number[]) =>
      [`blk.${l}.${name}`, { ours, l, shape }] as const
    return [
      row("attn_norm.weight", "ln1w", C),
      row("attn_norm.bias", "ln1b", C),
      row("attn_qkv.weight", "qkvw", C, 3 * C),
      row("attn_qkv.bias", "qkvb", 3 * C),
      row("attn_output.weight", "attprojw", C, C),
      row("attn_output.bias", "attprojb", C),
      row("ffn_norm.weight", "ln2w", C),
      row("ffn_norm.bias", "ln2b", C),
      row("ffn_up.weight", "fcw", C, 4 * C),
      row("ffn_up.bias", "fcb", 4 * C),
      row("ffn_down.weight", "fcprojw", 4 * C, C),
      row("ffn_down.bias", "fcprojb", C),
    ]
  })
  return new Map([
    ["token_embd.weight", { ours: "wte", l: 0, shape: [C, V] }],
    ["position_embd.weight", { ours: "wpe", l: 0, shape: [C, maxT] }],
    ...layers.flat(),
    ["output_norm.weight", { ours: "lnfw", l: 0, shape: [C] }],
    ["output_norm.bias", { ours: "lnfb", l: 0, shape: [C] }],
  ])
}

describe.each(Object.entries(TYPES) as [NumberType, [number, number]][])(
  "Hugging Face's parser, given a file in %s,",
  (type, [tensorType, fileType]) => {
    test("finds the model's shape and its tokenizer", async () => {
      const { metadata } = await gguf(at(type), { allowLocalFile: true })
      expect(metadata as unknown).toEqual({
        version: 3,
        tensor_count: 28n,
        kv_count: type === "q8_0" ? 18n : 17n,
        "general.architecture": "gpt2",
        "general.name": "memory",
        "general.file_type": fileType,
        ...(type === "q8_0" && { "general.quantization_version": 2 }),
        "gpt2.context_length": 3,
        "gpt2.embedding_length": 32,
        "gpt2.feed_forward_length": 128,
        "gpt2.block_count": 2,
        "gpt2.vocab_size": 50257,
        "gpt2.attention.head_count": 2,
        "gpt2.attention.layer_norm_epsilon": Math.fround(1e-5),
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "gpt-2",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": tokens.map((_, i) => (i === 50256 ? 3 : 1)),
        "tokenizer.ggml.merges": merges,
        "tokenizer.ggml.bos_token_id": 50256,
        "tokenizer.ggml.eos_token_id": 50256,
      })
    })

    test("finds every tensor, and its bytes where it says", async () => {
      const { tensorInfos, tensorDataOffset } = await gguf(at(type), { allowLocalFile: true })
      const bytes = readFileSync(at(type))
      const tensors = tensorsOf(CONFIG)
      expect(tensorInfos.map(({ name }) => name).sort()).toEqual([...tensors.keys()].sort())
      for (const { name, shape, dtype, offset } of tensorInfos) {
        const { ours, l, shape: wanted } = tensors.get(name)!
        const isNarrow = wanted.length === 2 && ours !== "wpe"
        expect({ name, shape: shape.map(Number), dtype: dtype as number }).toEqual({
          ...{ name, shape: wanted, dtype: isNarrow ? tensorType : 0 },
        })
        const size = wanted.reduce((a, b) => a * b)
        const data = weights.get(ours)!.subarray(l * size, (l + 1) * size)
        const storage = NUMBERS[isNarrow ? type : "f32"]
        const stored = Buffer.alloc((size / storage.block) * storage.bytes)
        storage.encode(stored, data)
        const start = Number(tensorDataOffset + offset)
        if (!bytes.subarray(start, start + stored.length).equals(stored)) throw new Error(name)
      }
    })
  },
)

// LLM_PYTHON names a Python that has the package `gguf` where python3 has it not.
const python = process.env.LLM_PYTHON ?? "python3"
const hasGguf = Bun.spawnSync([python, "-c", "import gguf"]).success
const title = hasGguf
  ? "llama.cpp's package"
  : `llama.cpp's package (skipped: ${python} has no gguf)`

describe.skipIf(!hasGguf)(title, async () => {
  // It takes seconds for a tokenizer, so this model has none.
  const { source } = memorySource({ ...CONFIG, V: 999, Vp: 1024 }, number)
  const small = (type: NumberType) => join(folder, `small-${type}.gguf`)
  for (const type of Object.keys(TYPES) as NumberType[]) await writeGguf(small(type), source, type)

  test.each(["f32", "f16", "bf16", "q8_0"] as const)(
    "makes our bytes of every tensor in %s from those in f32",
    (type) => {
      const script = join(import.meta.dir, "quantize.py")
      const { stdout, stderr } = Bun.spawnSync([python, script, small("f32"), small(type)])
      expect(stderr.toString()).toBe("")
      expect(stdout.toString()).toBe("28 tensors\n")
    },
    60_000,
  )
})
