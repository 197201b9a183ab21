// Hugging Face's folders, as transformers writes them and has written them: the numbers that are read.

import { describe, expect, test } from "bun:test"
import { join } from "node:path"
import fc from "fast-check"
import { roundAll } from "../../src/data/bf16.ts"
import { bytesOf } from "../../src/formats/header.ts"
import { loadWeights } from "../../src/model/weights.ts"
import { openHuggingFace } from "../../src/weights/huggingface.ts"
import { openWeights } from "../../src/weights/open.ts"
import {
  type Entry,
  HUB_FOLDER,
  HUB_SHAPE,
  hubFixture,
  hubLogits,
  hubTokens,
  shards,
} from "../fixtures/hub.ts"
import { openLibraries, Run, worst } from "../model/run.ts"
import {
  C,
  CONFIG,
  floats,
  folders,
  MODEL,
  maxT,
  readAll,
  readFolder,
  tensors,
  V,
  Vp,
  withTensors,
} from "./folders.ts"

const write = folders()

// As in test/model/fixture.test.ts: a sum of 64 terms at most, a few in a row.
const RELATIVE = 2e-6

/** What the fixture's numbers must be, read here a second time, plainly. */
function plainly(entries = tensors()): Record<string, Float32Array> {
  const get = (name: string) => floats(entries[`transformer.${name}`]!)
  const turned = (name: string) => {
    const [ins = 0, outs = 0] = entries[`transformer.${name}`]!.shape
    const numbers = get(name)
    return Float32Array.from({ length: ins * outs }, (_, i) => {
      return numbers[(i % ins) * outs + Math.floor(i / ins)]!
    })
  }
  const stack = (name: string, read: (name: string) => Float32Array) =>
    Float32Array.from([0, 1].flatMap((layer) => [...read(`h.${layer}.${name}`)]))
  return {
    wte: Float32Array.from([...get("wte.weight"), ...new Float32Array((Vp - V) * C)]),
    wpe: get("wpe.weight"),
    ln1w: stack("ln_1.weight", get),
    ln1b: stack("ln_1.bias", get),
    qkvw: stack("attn.c_attn.weight", turned),
    qkvb: stack("attn.c_attn.bias", get),
    attprojw: stack("attn.c_proj.weight", turned),
    attprojb: stack("attn.c_proj.bias", get),
    ln2w: stack("ln_2.weight", get),
    ln2b: stack("ln_2.bias", get),
    fcw: stack("mlp.c_fc.weight", turned),
    fcb: stack("mlp.c_fc.bias", get),
    fcprojw: stack("mlp.c_proj.weight", turned),
    fcprojb: stack("mlp.c_proj.bias", get),
    lnfw: get("ln_f.weight"),
    lnfb: get("ln_f.bias"),
  }
}

for (const { title, kernels } of await openLibraries()) {
  describe(title, () => {
    test.skipIf(!kernels)("the logits are those of transformers", async () => {
      const run = await Run.link(kernels!, CONFIG, { ...HUB_SHAPE, fuse: false })
      const source = await openWeights(HUB_FOLDER)
      loadWeights(source, run.program, run.source, kernels!)
      source.close()
      run.load({ tokens: hubTokens(), targets: hubTokens() })
      run.program.run("forward")
      const logits = run.logits()
      const rows = Array.from({ length: logits.length / Vp }, (_, n) => [
        ...logits.subarray(n * Vp, n * Vp + V),
      ])
      expect(worst(Float32Array.from(rows.flat()), hubLogits())).toBeLessThan(RELATIVE)
      run.program.free()
    })

    const hasBf16 = kernels?.precisions.includes("bf16")
    for (const masters of [true, false]) {
      test.skipIf(!hasBf16)(
        `bf16 ${masters ? "with" : "without"} masters has the numbers, rounded`,
        async () => {
          const bf16 = { masters, stochastic: false, seed: 1 }
          const options = { ...HUB_SHAPE, precision: "bf16", bf16 } as const
          const { program, source: made } = await Run.link(kernels!, CONFIG, options)
          const source = await openWeights(HUB_FOLDER)
          loadWeights(source, program, made, kernels!)
          source.close()
          for (const [name, numbers] of Object.entries(plainly())) {
            const rounded = new Uint16Array(numbers.length)
            roundAll(rounded, numbers)
            const stored = program.bytes(made.parameters[name]!)
            expect([name, Buffer.compare(stored, bytesOf(rounded))]).toEqual([name, 0])
            if (!masters) continue
            expect(program.view(made.masters![name]!)).toEqual(numbers)
          }
          program.free()
        },
      )
    }
  })
}

describe("the numbers of", () => {
  const renamed = (rename: (name: string) => string) =>
    Object.fromEntries(Object.entries(tensors()).map(([name, entry]) => [rename(name), entry]))
  const mask: Entry = { dtype: "BOOL", shape: [1, 1, maxT, maxT], data: new Uint8Array(64) }
  const wte = tensors()["transformer.wte.weight"]!
  test.each([
    ["a folder as transformers writes it", hubFixture()],
    ["a folder in shards", shards()],
    ["names without a prefix", withTensors(renamed((name) => name.replace("transformer.", "")))],
    [
      "a folder with masks and the tied classifier",
      withTensors({
        ...tensors(),
        "lm_head.weight": wte,
        "transformer.h.0.attn.bias": mask,
        "transformer.h.1.attn.masked_bias": { dtype: "F32", shape: [], data: new Uint8Array(4) },
      }),
    ],
    [
      "tensors in another order",
      withTensors(Object.fromEntries(Object.entries(tensors()).reverse())),
    ],
  ])("%s", (_, files) => {
    expect(readFolder(write(files))).toEqual({ type: "f32", config: CONFIG, numbers: plainly() })
  })

  test("BF16 and F16 are what they stand for", () => {
    const narrow = (dtype: "BF16" | "F16") =>
      Object.fromEntries(
        Object.entries(tensors()).map(([name, entry]) => {
          const numbers = floats(entry)
          const halves = new Uint16Array(numbers.length)
          if (dtype === "BF16") roundAll(halves, numbers)
          else new Float16Array(halves.buffer).set(numbers)
          return [name, { ...entry, dtype, data: bytesOf(halves) }]
        }),
      )
    const widened = (entries: Record<string, Entry>, widen: (half: number) => number) =>
      Object.fromEntries(
        Object.entries(entries).map(([name, entry]) => {
          const halves = new Uint16Array(Uint8Array.from(entry.data).buffer)
          return [name, { ...entry, data: bytesOf(Float32Array.from(halves, widen)) }]
        }),
      )
    const fromF16 = (half: number) => {
      const [exponent, fraction] = [(half >> 10) & 31, half & 1023]
      const size = exponent > 0 ? 2 ** (exponent - 15) * (1 + fraction / 1024) : fraction * 2 ** -24
      return half >> 15 ? -size : size
    }
    const fromBf16 = (half: number) => new Float32Array(Uint32Array.of(half << 16).buffer)[0]!
    for (const [dtype, type, widen] of [
      ["BF16", "bf16", fromBf16],
      ["F16", "f16", fromF16],
    ] as const) {
      const numbers = plainly(widened(narrow(dtype), widen))
      expect(readFolder(write(withTensors(narrow(dtype))))).toEqual({
        type,
        config: CONFIG,
        numbers,
      })
    }
    const mixed = { ...tensors(), ...narrow("F16") }
    mixed["transformer.wpe.weight"] = tensors()["transformer.wpe.weight"]!
    expect(readFolder(write(withTensors(mixed))).type).toBe("f32")
  })

  test("any part of any parameter are those of the whole", () => {
    const source = openHuggingFace(HUB_FOLDER)
    const numbers = plainly()
    const part = fc
      .constantFrom(...Object.keys(numbers))
      .chain((name) =>
        fc.tuple(
          fc.constant(name),
          fc.nat(numbers[name]!.length - 1),
          fc.nat(numbers[name]!.length),
        ),
      )
    fc.assert(
      fc.property(part, ([name, first, length]) => {
        const expected = numbers[name]!.subarray(first, first + length)
        const got = new Float32Array(expected.length).fill(Number.NaN)
        source.read(name, got, first)
        expect([...got]).toEqual([...expected])
      }),
      { numRuns: 300 },
    )
    source.close()
  })

  test("one safetensors file are read with the config.json beside it", async () => {
    const source = await openWeights(join(HUB_FOLDER, MODEL))
    expect(readAll(source)).toEqual(plainly())
    source.close()
    const path = write({ ...hubFixture(), weights: hubFixture()[MODEL]! })
    const other = await openWeights(join(path, "weights"))
    expect(readAll(other)).toEqual(plainly())
    other.close()
  })
})
