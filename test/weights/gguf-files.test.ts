// GGUF files that others wrote, and broken ones.

import { afterAll, describe, expect, test } from "bun:test"
import { mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import type { Config } from "../../src/model/config.ts"
import { openGguf } from "../../src/weights/gguf.ts"
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
import { messageOf, refuses } from "../formats/broken.ts"

const folder = mkdtempSync(join(tmpdir(), "gguf-files-"))
afterAll(() => rmSync(folder, { recursive: true }))
const at = (name: string) => join(folder, name)

const TINY: Config = { maxT: 3, V: 5, Vp: 128, L: 2, NH: 2, C: 4 }
const whole = tinyGguf(TINY)

describe("files by other hands", () => {
  const open = (file: Parameters<typeof ggufFile>[0]) => {
    writeFileSync(at("other.gguf"), ggufFile(file))
    return openGguf(at("other.gguf"))
  }
  const output: Tensor = { ...whole.tensors[0]!, name: "output.weight" }

  test.each([
    ["of version 2", { ...whole, version: 2 }],
    [
      "that align to 8 bytes",
      {
        ...whole,
        alignment: 8,
        values: [...whole.values, ["general.alignment", 4, u32(8)] as Value],
      },
    ],
    [
      "whose classifier is the embedding once more",
      { ...whole, tensors: [...whole.tensors, output] },
    ],
    ["in another order", { ...whole, tensors: whole.tensors.toReversed() }],
    [
      "with metadata of every kind",
      {
        ...whole,
        values: [
          ...[1, 1, 2, 2, 4, 4, 4, 1].map(
            (bytes, kind): Value => [`k${kind}`, kind, Buffer.alloc(bytes)],
          ),
          ...[10, 11, 12].map((kind): Value => [`k${kind}`, kind, Buffer.alloc(8)]),
          ["text", 8, text("x".repeat(100_000))] as Value,
          ["empty", 9, Buffer.concat([u32(5), u64(0)])] as Value,
          ["numbers", 9, Buffer.concat([u32(12), u64(20_000), Buffer.alloc(160_000)])] as Value,
          [
            "texts",
            9,
            Buffer.concat([u32(8), u64(3), text(""), text("ä"), text("b".repeat(70_000))]),
          ] as Value,
          ...whole.values,
        ],
      },
    ],
  ])("%s are read", (_, file) => {
    const model = open(file)
    expect(model.config).toEqual(TINY)
    const numbers = new Float32Array(8)
    model.read("fcw", numbers, 60) // across two layers of 64
    expect([...numbers]).toEqual([60, 61, 62, 63, 0, 1, 2, 3].map((n) => n / 8))
    model.close()
  })

  test.each([Number.NaN, Number.POSITIVE_INFINITY])(
    "a number that is %f is refused by its place",
    (x) => {
      const tensors = whole.tensors.map((tensor) => {
        if (tensor.name !== "blk.1.ffn_up.weight") return tensor
        return { ...tensor, data: f32(...Array.from({ length: 64 }, (_, i) => (i === 7 ? x : i))) }
      })
      const model = open({ ...whole, tensors })
      expect(messageOf(() => model.read("fcw", new Float32Array(128), 0))).toBe(
        `${at("other.gguf")}: blk.1.ffn_up.weight: number 7 is ${x} (give a model that was written before its run went wrong)`,
      )
      model.read("fcw", new Float32Array(64), 0)
      model.close()
    },
  )
})

describe("a broken GGUF file is refused in one line", () => {
  const bytes = ggufFile(whole)
  const value = (...change: Value): Uint8Array[] => {
    const others = whole.values.filter(([key]) => key !== change[0])
    return [ggufFile({ ...whole, values: [...others, change] })]
  }
  const tensor = (name: string, change: Partial<Tensor>): Uint8Array[] => {
    const tensors = whole.tensors.map((t) => (t.name === name ? { ...t, ...change } : t))
    return [ggufFile({ ...whole, tensors })]
  }
  const texts = (...elements: Buffer[]) => Buffer.concat([u32(8), ...elements])
  const huge = 1n << 63n
  const HUGE = "9,223,372,036,854,776,000"
  refuses(folder, openGguf, [
    ["it is empty", [], "0 bytes are too few for a GGUF file (give a GGUF file of a GPT-2)"],
    ["it is another file", [Buffer.alloc(1024)], "not a GGUF file: it does not start with GGUF"],
    [
      "it is of the first version",
      [ggufFile({ ...whole, version: 1 })],
      "version 1, but only versions 2",
    ],
    [
      "it is big-endian",
      [ggufFile({ ...whole, version: 3 << 24 })],
      "its numbers are big-endian, but only",
    ],
    [
      "2⁶³ tensors",
      [ggufFile({ ...whole, counts: [huge, 7n] })],
      `it promises ${HUGE} tensors, with`,
    ],
    ["2⁶³ keys", [ggufFile({ ...whole, counts: [1n, huge] })], `it promises ${HUGE} metadata keys`],
    ["it ends in its metadata", [bytes.subarray(0, 100)], "it promises "],
    ["it ends in its last tensor", [bytes.subarray(0, -17)], "output_norm.bias ends at"],
    [
      "a key of 2⁶³ bytes",
      [bytes.subarray(0, 24), u64(huge), bytes.subarray(32)],
      `it promises ${HUGE} bytes of a key`,
    ],
    ["a text of 2⁶³ bytes", value("x", 8, u64(huge)), `it promises ${HUGE} bytes of x`],
    [
      "a text of 16 MiB and a byte",
      value("x", 8, Buffer.concat([u64(2 ** 24 + 1), Buffer.alloc(2 ** 24 + 1)])),
      "x has 16,777,217 bytes",
    ],
    ["an array of 2⁶³ texts", value("x", 9, texts(u64(huge))), `it promises ${HUGE} elements of x`],
    [
      "an array of 2⁶³ numbers",
      value("x", 9, Buffer.concat([u32(4), u64(huge)])),
      `it promises ${HUGE} elements of x`,
    ],
    [
      "an array with a text of 2⁶³ bytes",
      value("x", 9, texts(u64(1), u64(huge))),
      `it promises ${HUGE} bytes of one of x`,
    ],
    [
      "an array of arrays",
      value("x", 9, Buffer.concat([u32(9), u64(1)])),
      "x is of an unknown kind, 9",
    ],
    ["a value of an unknown kind", value("x", 13, u32(1)), "x is of an unknown kind, 13"],
    [
      "a key twice",
      [ggufFile({ ...whole, values: [...whole.values, whole.values[1]!] })],
      "its metadata has gpt2.context_length twice",
    ],
    [
      "an alignment of 0",
      value("general.alignment", 4, u32(0)),
      "its alignment, 0, is no power of two",
    ],
    [
      "an alignment of 24",
      value("general.alignment", 4, u32(24)),
      "its alignment, 24, is no power of two",
    ],
    [
      "an alignment that is a text",
      value("general.alignment", 8, text("32")),
      "its alignment, 32, is no power",
    ],
    [
      "an alignment larger than the file",
      value("general.alignment", 4, u32(2 ** 31)),
      "position_embd.weight starts at 96, no multiple of",
    ],
    [
      "another architecture",
      value("general.architecture", 8, text("llama")),
      "its architecture is llama, not gpt2",
    ],
    [
      "no architecture",
      [ggufFile({ ...whole, values: whole.values.slice(1) })],
      "its architecture is undefined, not gpt2",
    ],
    [
      "no heads",
      value("gpt2.attention.head_count", 4, u32(0)),
      "its gpt2.attention.head_count is 0, no whole",
    ],
    [
      "half a layer",
      value("gpt2.block_count", 6, f32(0.5)),
      "its gpt2.block_count is 0.5, no whole number",
    ],
    [
      "more layers than tensors",
      value("gpt2.block_count", 4, u32(2 ** 30)),
      "its gpt2.block_count is 1073741824, with 28 tensors",
    ],
    [
      "heads that do not divide the channels",
      value("gpt2.attention.head_count", 4, u32(3)),
      "its 3 heads do not divide its 4 channels",
    ],
    [
      "another width",
      value("gpt2.feed_forward_length", 4, u32(12)),
      "its gpt2.feed_forward_length is 12, not 4·4",
    ],
    [
      "another epsilon",
      value("gpt2.attention.layer_norm_epsilon", 6, f32(1e-6)),
      "its layer norms' epsilon is",
    ],
    [
      "a tensor twice",
      tensor("output_norm.bias", { name: "output_norm.weight" }),
      "it has output_norm.weight twice",
    ],
    [
      "a tensor missing",
      tensor("blk.1.ffn_up.bias", { name: "blk.1.ffn_gate.bias" }),
      "it has no blk.1.ffn_up.bias (give a GGUF file",
    ],
    [
      "a tensor too many",
      [
        ggufFile({
          ...whole,
          tensors: [...whole.tensors, { ...whole.tensors[0]!, name: "rope_freqs.weight" }],
        }),
      ],
      "GPT-2 has no rope_freqs.weight",
    ],
    [
      "no dimensions",
      tensor("output_norm.bias", { dims: [] }),
      "output_norm.bias has 0 dimensions, not 1 to 4",
    ],
    [
      "2³¹ dimensions",
      tensor("output_norm.bias", { dims: [1, 1, 1, 1, 1] }),
      "output_norm.bias has 5 dimensions",
    ],
    [
      "a dimension of 0",
      tensor("output_norm.bias", { dims: [0, huge] }),
      "output_norm.bias has 0×",
    ],
    [
      "dimensions of 2⁶⁴ numbers",
      tensor("output_norm.bias", { dims: [1n << 32n, 1n << 32n] }),
      "output_norm.bias has 4294967296×4294967296 numbers, but",
    ],
    [
      "dimensions the other way round",
      tensor("token_embd.weight", { dims: [5, 4] }),
      "token_embd.weight is 5×4, not 4×4",
    ],
    [
      "a type that is not read",
      tensor("output_norm.bias", { type: 12 }),
      "output_norm.bias is in ggml's type 12; only f32, f16, q8_0, bf16 can be read",
    ],
    [
      "rows that are no whole blocks",
      tensor("output_norm.bias", { type: 8 }),
      "output_norm.bias has rows of 4, no multiple of 32",
    ],
    [
      "an offset that is not aligned",
      tensor("output_norm.bias", { offset: 33 }),
      "output_norm.bias starts at 33, no multiple of 32",
    ],
    [
      "an offset behind the end",
      tensor("output_norm.bias", { offset: 1 << 20 }),
      "output_norm.bias ends at",
    ],
    ["an offset of 2⁶³", tensor("output_norm.bias", { offset: huge }), "output_norm.bias ends at"],
    [
      "two tensors in one place",
      tensor("position_embd.weight", { offset: 0 }),
      "position_embd.weight overlaps token_embd.weight",
    ],
    [
      "a tensor that reaches into the next",
      tensor("position_embd.weight", { offset: 64 }),
      "position_embd.weight overlaps token_embd.weight",
    ],
    [
      "a classifier that is not the embedding",
      [
        ggufFile({
          ...whole,
          tensors: [
            ...whole.tensors,
            { ...whole.tensors[0]!, name: "output.weight", data: Buffer.alloc(80) },
          ],
        }),
      ],
      "output.weight: number 1 is not that of token_embd.weight (give a GPT-2, whose",
    ],
    [
      "a classifier of another shape",
      [
        ggufFile({
          ...whole,
          tensors: [...whole.tensors, { ...whole.tensors[1]!, name: "output.weight" }],
        }),
      ],
      "output.weight is 4×3, not 4×5",
    ],
  ])

  test("cut at any byte, it is refused by name", () => {
    for (let length = 0; length < bytes.length - 16; length += 3) {
      writeFileSync(at("cut.gguf"), bytes.subarray(0, length))
      expect(messageOf(() => openGguf(at("cut.gguf")))).toStartWith(`${at("cut.gguf")}: `)
    }
  })
  test("with bytes behind its last tensor, but for those that align it", () => {
    const aligned = Buffer.concat([bytes, Buffer.alloc(-bytes.length & 31)])
    writeFileSync(at("more.gguf"), aligned)
    openGguf(at("more.gguf")).close()
    writeFileSync(at("more.gguf"), Buffer.concat([aligned, Buffer.alloc(7)]))
    expect(messageOf(() => openGguf(at("more.gguf")))).toBe(
      `${at("more.gguf")}: 7 bytes follow its last tensor (it was added to: copy it again)`,
    )
  })
})
