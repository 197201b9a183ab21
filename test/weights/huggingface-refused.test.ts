// Hugging Face's folders that are refused, each by what is wrong with it.

import { describe, expect, test } from "bun:test"
import { rmSync, truncateSync } from "node:fs"
import { join } from "node:path"
import { bytesOf } from "../../src/formats/header.ts"
import { loadWeights } from "../../src/model/weights.ts"
import { openHuggingFace } from "../../src/weights/huggingface.ts"
import { openWeights } from "../../src/weights/open.ts"
import {
  type Entry,
  HUB_SHAPE,
  type HubFiles,
  hubFixture,
  shards,
  withHeader,
} from "../fixtures/hub.ts"
import { messageOf } from "../formats/broken.ts"
import { openLibraries, Run } from "../model/run.ts"
import {
  C,
  CONFIG,
  floats,
  folders,
  MODEL,
  readAll,
  readFolder,
  tensors,
  V,
  withTensors,
} from "./folders.ts"

const write = folders()

/** The folder's files, and the message about that one of them. */
function refused(files: HubFiles, file: string): string {
  const path = write(files)
  const message = messageOf(() => readAll(openHuggingFace(path)))
  expect(message).toStartWith(join(path, file))
  return message.slice(join(path, file).length)
}

describe("a config.json is refused by name", () => {
  const config = JSON.parse(hubFixture()["config.json"]!.toString())
  const changed = (change: object): HubFiles => ({
    ...hubFixture(),
    "config.json": Buffer.from(JSON.stringify({ ...config, ...change })),
  })

  test.each([
    [{ model_type: "llama" }, 'model_type is "llama", not "gpt2"'],
    [{ model_type: undefined }, 'model_type is missing, not "gpt2"'],
    [{ n_layer: 0 }, "n_layer is 0, not a whole number from 1"],
    [{ n_head: 1.5 }, "n_head is 1.5, not a whole number from 1"],
    [{ vocab_size: "97" }, 'vocab_size is "97", not a whole number from 1'],
    [{ n_positions: 2 ** 31 }, "n_positions is 2147483648, not a whole number from 1"],
    [{ n_head: 3 }, "n_head 3 does not divide n_embd 16"],
    [{ activation_function: "gelu" }, 'activation_function is "gelu", and only "gelu_new" or '],
    [{ layer_norm_epsilon: 1e-6 }, "layer_norm_epsilon is 0.000001, and only 0.00001 can be"],
    [{ n_inner: 63 }, "n_inner is 63, and only 64 or null can be computed"],
    [{ tie_word_embeddings: false }, "tie_word_embeddings is false, and only true can be"],
    [{ scale_attn_weights: false }, "scale_attn_weights is false, and only true can be"],
    [{ scale_attn_by_inverse_layer_idx: true }, "scale_attn_by_inverse_layer_idx is true, and"],
    [{ add_cross_attention: true }, "add_cross_attention is true, and only false can be"],
  ])("%j", (change, message) => {
    expect(refused(changed(change), "config.json")).toStartWith(`: ${message}`)
  })

  test.each([
    ["not JSON", "{", "it is not JSON"],
    ["a list", "[]", "it is no JSON object"],
    ["nothing", "", "it is not JSON"],
  ])("%s", (_, text, message) => {
    const files = { ...hubFixture(), "config.json": Buffer.from(text) }
    expect(refused(files, "config.json")).toStartWith(`: ${message} (give the config.json`)
  })

  test("of the same model, but for what transformers leaves out", () => {
    const { activation_function: _, n_inner: __, tie_word_embeddings: ___, ...rest } = config
    const files = { ...hubFixture(), "config.json": Buffer.from(JSON.stringify(rest)) }
    expect(readFolder(write(files)).config).toEqual(CONFIG)
  })

  test("that makes other shapes than the tensors have", () => {
    expect(refused(changed({ vocab_size: 98 }), MODEL)).toStartWith(
      ": transformer.wte.weight is (97, 16), but config.json makes it (98, 16)",
    )
    expect(refused(changed({ n_layer: 2 ** 31 - 1 }), "")).toStartWith(": it lacks h.2.ln_1.weight")
    expect(refused(changed({ n_layer: 1 }), MODEL)).toContain(" is no tensor of a GPT-2 (")
  })
})

describe("tensors are refused by name", () => {
  const ln = "transformer.h.1.ln_2.bias"
  const change = (name: string, change: Partial<Entry>) =>
    withTensors({ ...tensors(), [name]: { ...tensors()[ln]!, ...change } })
  const without = (name: string) => {
    const { [name]: _, ...rest } = tensors()
    return withTensors(rest)
  }
  const place = (number: number, value: number) => {
    const numbers = floats(tensors()[ln]!)
    numbers[number] = value
    return change(ln, { data: bytesOf(numbers) })
  }

  test.each([
    ["one that is missing", without(ln), "", "it lacks h.1.ln_2.bias"],
    ["one too many", change("score.weight", {}), MODEL, "score.weight is no tensor of a GPT-2"],
    ["one twice", change("h.1.ln_2.bias", {}), MODEL, "it has h.1.ln_2.bias a second time"],
    [
      "integers",
      change(ln, { dtype: "I32" }),
      MODEL,
      `${ln} is stored in I32 (give weights in F32`,
    ],
    [
      "another shape of as many numbers",
      change(ln, { shape: [4, 4] }),
      MODEL,
      `${ln} is (4, 4), but config.json makes it (16)`,
    ],
    [
      "a classifier that is not tied",
      withTensors({
        ...tensors(),
        "lm_head.weight": {
          ...tensors()["transformer.wte.weight"]!,
          data: bytesOf(new Float32Array(V * C)),
        },
      }),
      MODEL,
      "lm_head.weight is another matrix than wte, to which it is tied",
    ],
    ["a number that is none", place(3, Number.NaN), MODEL, `${ln}: number 3 is NaN`],
    ["an infinite one", place(15, -Infinity), MODEL, `${ln}: number 15 is -Infinity`],
  ])("%s", (_, files, file, message) => {
    expect(refused(files, file)).toStartWith(`: ${message}`)
  })

  test("a number that is finite in f32 alone, where bf16 is asked for", async () => {
    const [library] = (await openLibraries()).filter(({ kernels }) =>
      kernels?.precisions.includes("bf16"),
    )
    const bf16 = { masters: false, stochastic: false, seed: 1 }
    const options = { ...HUB_SHAPE, precision: "bf16", bf16 } as const
    const run = await Run.link(library!.kernels!, CONFIG, options)
    const source = openHuggingFace(write(place(5, 3.4e38)))
    const message = messageOf(() => {
      loadWeights(source, run.program, run.source, library!.kernels!)
    })
    expect(message).toStartWith(`${source.path}: ln2b: number 21 is Infinity in bf16 (try --prec`)
    source.close()
    run.program.free()
  })
})

describe("a safetensors file is refused by name", () => {
  const entry = (change: object) => {
    const header = { a: { dtype: "F32", shape: [2], data_offsets: [0, 8], ...change } }
    return withHeader(JSON.stringify(header), new Uint8Array(8))
  }
  const two = (first: number[], second: number[]) => {
    const tensor = { dtype: "U8", shape: [4] }
    const header = { a: { ...tensor, data_offsets: first }, b: { ...tensor, data_offsets: second } }
    return withHeader(JSON.stringify(header), new Uint8Array(8))
  }
  const long = (length: bigint) => {
    const bytes = Buffer.from(hubFixture()[MODEL]!)
    bytes.writeBigUInt64LE(length)
    return bytes
  }
  const model = hubFixture()[MODEL]!

  test.each([
    ["nothing", Buffer.alloc(0), "0 bytes are too few for safetensors"],
    ["seven bytes", Buffer.alloc(7), "7 bytes are too few for safetensors"],
    ["a header of 2⁶³ bytes", long(2n ** 63n), "its header of 9,223,372,036,854,776,000 bytes is"],
    [
      "a pointer of git-lfs",
      Buffer.from("version https://git-lfs.github.com/spec/v1\n"),
      "it is what git-lfs puts in place of a large file (run git lfs pull there)",
    ],
    ["a header longer than the file", long(35_641n), "its header of 35,641 bytes is too long for"],
    ["a header that ends early", long(1000n), "its header is not JSON"],
    ["a list", withHeader("[]", Buffer.alloc(0)), "its header is no JSON object"],
    ["an unknown type", entry({ dtype: "F4" }), "a: an unknown dtype, F4"],
    ["a type of every object", entry({ dtype: "toString" }), "a: an unknown dtype, toString"],
    ["no type", entry({ dtype: 1 }), "a has no dtype, shape and data_offsets"],
    ["a shape that is none", entry({ shape: [2, -1] }), "a has no dtype, shape and data_offsets"],
    ["places that are none", entry({ data_offsets: [0] }), "a has no dtype, shape and data_off"],
    ["places that are too few", entry({ shape: [3] }), "a: F32 (3) does not take the bytes 0 to 8"],
    [
      "a shape beyond all numbers",
      entry({ shape: Array(30).fill(2 ** 52) }),
      "a: F32 (4503599627370496, ",
    ],
    [
      "places backwards",
      entry({ data_offsets: [8, 0] }),
      "a: F32 (2) does not take the bytes 8 to",
    ],
    ["tensors that overlap", two([0, 4], [3, 7]), "b overlaps the tensor before it, at byte 3"],
    ["tensors with a gap", two([0, 4], [5, 9]), "b leaves a gap before it, at byte 5"],
    ["one that begins late", two([1, 5], [5, 9]), "a leaves a gap before it, at byte 1"],
    ["a file cut short", model.subarray(0, -1), "35,647 bytes, but its header promises 35,648 (it"],
    [
      "a byte too many",
      Buffer.concat([model, Buffer.alloc(1)]),
      "35,649 bytes, but its header pro",
    ],
  ])("%s", (_, bytes, message) => {
    expect(refused({ ...hubFixture(), [MODEL]: bytes }, MODEL)).toStartWith(`: ${message}`)
  })

  test("that shrinks while it is read", () => {
    const path = write(hubFixture())
    const source = openHuggingFace(path)
    truncateSync(join(path, MODEL), 20_000)
    const message = messageOf(() => readAll(source))
    expect(message).toStartWith(`${join(path, MODEL)}: it became shorter while it was read`)
    source.close()
  })
})

describe("a folder in shards is refused by name", () => {
  const INDEX = "model.safetensors.index.json"
  const second = "model-00002-of-00002.safetensors"
  const index = (change: (map: Record<string, unknown>) => unknown): HubFiles => {
    const { weight_map: map } = JSON.parse(shards()[INDEX]!.toString())
    return { ...shards(), [INDEX]: Buffer.from(JSON.stringify({ weight_map: change(map) })) }
  }

  test.each([
    ["no list", index(() => undefined), INDEX, ": it has no weight_map ("],
    ["an empty list", index(() => ({})), INDEX, ": it has no weight_map ("],
    [
      "a path that leads out",
      index((map) => ({ ...map, "transformer.wpe.weight": `../${second}` })),
      INDEX,
      `: the file of transformer.wpe.weight, "../${second}", is no plain name (`,
    ],
    [
      "a tensor in another shard",
      index((map) => ({ ...map, "transformer.h.0.attn.c_attn.bias": second })),
      second,
      `: it lacks transformer.h.0.attn.c_attn.bias, which ${INDEX} says it has (`,
    ],
    [
      "a shard that is missing",
      index((map) => ({ ...map, "transformer.wpe.weight": "third.safetensors" })),
      "third.safetensors",
      ": cannot read: no such file or folder (",
    ],
  ])("%s", (_, files, file, message) => {
    expect(refused(files, file)).toStartWith(message)
  })

  test("a folder with neither, which may have a model in another file", async () => {
    const { "config.json": config, [MODEL]: model } = hubFixture()
    const lacks = `: it has neither ${MODEL} nor ${INDEX} (give`
    expect(refused({ "config.json": config! }, "")).toBe(
      `${lacks} a GPT-2 as transformers saves it)`,
    )
    for (const name of ["a.gguf", "a.safetensors", "model_00000010.bin"]) {
      const path = write({ "config.json": config!, [name]: model! })
      const message = messageOf(() => openHuggingFace(path))
      expect(message).toBe(`${path}${lacks} ${join(path, name)} itself)`)
      rmSync(join(path, "config.json"))
      await expect(openWeights(path)).rejects.toThrow(
        `${path}: it is a folder without a checkpoint (give ${join(path, name)})`,
      )
    }
  })

  test("a folder without config.json", async () => {
    const path = write({ [MODEL]: hubFixture()[MODEL]! })
    for (const from of [path, join(path, MODEL)]) {
      await expect(openWeights(from)).rejects.toThrow(
        `${from}: no config.json lies with it, which says what the model is (copy it there)`,
      )
    }
  })
})
