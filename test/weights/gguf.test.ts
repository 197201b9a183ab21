// GGUF files that are written, and read again.

import { afterAll, describe, expect, test } from "bun:test"
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { fromBf16, roundToBf16 } from "../../src/data/bf16.ts"
import { fromF16, roundToF16 } from "../../src/data/f16.ts"
import { Q8_BLOCK, Q8_BYTES, quantizeQ8 } from "../../src/data/q8.ts"
import { UserError } from "../../src/errors.ts"
import type { Config } from "../../src/model/config.ts"
import { openGguf } from "../../src/weights/gguf.ts"
import { writeGguf } from "../../src/weights/gguf-write.ts"
import { NUMBERS } from "../../src/weights/numbers.ts"
import type { NumberType, WeightSource } from "../../src/weights/source.ts"
import { memorySource } from "../fixtures/gguf.ts"

const folder = mkdtempSync(join(tmpdir(), "gguf-"))
afterAll(() => rmSync(folder, { recursive: true }))
const at = (name: string) => join(folder, name)

const CONFIG: Config = { maxT: 5, V: 70, Vp: 128, L: 2, NH: 2, C: 64 }
const TYPES: NumberType[] = ["f32", "bf16", "f16", "q8_0"]

// Any size from 2⁻³⁰ to 2⁹, both signs, all digits: f16's subnormal numbers are among them.
function number(i: number): number {
  const hash = Math.imul(i + 1, 0x9e3779b1)
  return Math.fround((hash / 2 ** 31) * 2 ** (((hash >>> 5) % 40) - 30))
}
const { source, weights } = memorySource(CONFIG, number)

function readAll(from: WeightSource, piece = 2 ** 30): Map<string, Float32Array> {
  return new Map(
    [...weights].map(([name, { length }]) => {
      const data = new Float32Array(length).fill(Number.NaN)
      for (let i = 0; i < length; i += piece) from.read(name, data.subarray(i, i + piece), i)
      return [name, data]
    }),
  )
}

/** What a type leaves of numbers, worked out with the functions that have their own tests. */
function stored(data: Float32Array, type: NumberType): Float32Array {
  const [count, out] = [data.length, new Float32Array(data.length)]
  if (type === "f32") return data
  if (type === "bf16") return data.map((x) => fromBf16(roundToBf16(x)))
  if (type === "f16") return data.map((x) => fromF16(roundToF16(x)))
  const blocks = new Uint8Array((count / Q8_BLOCK) * Q8_BYTES)
  quantizeQ8(blocks, data)
  NUMBERS.q8_0.decode(out, blocks, 0)
  return out
}
const isMatrix = (name: string) => /^(wte|qkvw|attprojw|fcw|fcprojw)$/.test(name)

describe.each(TYPES)("a model written in %s", (type) => {
  mkdirSync(at(type))
  const path = at(`${type}/memory.gguf`)

  test("is read as that type leaves its matrices, all else as it was", async () => {
    expect(await writeGguf(path, source, type)).toEqual({ hasTokenizer: false })
    const back = openGguf(path)
    expect(back.path).toBe(path)
    expect(back.config).toEqual(CONFIG)
    expect(back.type).toBe(type)
    for (const [name, data] of readAll(back)) {
      const wanted = isMatrix(name) ? stored(weights.get(name)!, type) : weights.get(name)!
      if (!Bun.deepEquals(data, wanted)) throw new Error(name)
    }
    back.close()
  })

  test("is the same read in pieces of any size, across layers and into the padding rows", () => {
    const back = openGguf(path)
    const whole = readAll(back)
    for (const piece of [777, 4096, 50_001]) expect(readAll(back, piece)).toEqual(whole)
    back.close()
  })

  test("and written again from there has the same bytes", async () => {
    const back = openGguf(path)
    await writeGguf(at("again.gguf"), back, type)
    back.close()
    expect(readFileSync(at("again.gguf")).equals(readFileSync(path))).toBe(true)
  })
})

describe("what cannot be written", () => {
  const nothingLeft = () =>
    expect(readdirSync(folder).filter((name) => /tmp$|new/.test(name))).toEqual([])
  const rejected = async (from: WeightSource, type: NumberType) => {
    const error = await writeGguf(at("new.gguf"), from, type).catch((e) => e)
    expect(error).toBeInstanceOf(UserError)
    nothingLeft()
    return error.message
  }
  /** The model with one number of one parameter changed. */
  const changed = (parameter: string, place: number, value: number): WeightSource => ({
    ...source,
    read(name, into, first) {
      source.read(name, into, first)
      const i = place - first
      if (name === parameter && i >= 0 && i < into.length) into[i] = value
    },
  })

  test.each([
    ["f16", 65520, "65520"],
    ["bf16", 3.4e38, "3.3999999521443642e+38"],
    ["q8_0", -127 * 65520, "-8321040"],
  ] as const)(
    "a number too large for %s is refused by its tensor and place",
    async (type, value, shown) => {
      const second = 64 * 192 + 1000 // of the second layer
      expect(await rejected(changed("qkvw", second, value), type)).toBe(
        `${at("new.gguf")}: blk.1.attn_qkv.weight: number 1000 is ${shown}, too large for ${type} (try --type fp32)`,
      )
      // Norms, biases and positions stay as wide as they are.
      await writeGguf(at("kept.gguf"), changed("fcb", 3, value), type)
    },
  )

  test("a model whose rows are no whole blocks is refused in q8_0", async () => {
    const odd = { ...source, config: { ...CONFIG, C: 48 } }
    expect(await rejected(odd, "q8_0")).toBe(
      `${at("new.gguf")}: q8_0 stores numbers in blocks of 32, which do not divide 48 channels (try --type f16 or bf16)`,
    )
  })

  test("a source that fails is named, and leaves no half of a file", async () => {
    const failing = {
      ...source,
      read: () => {
        throw new UserError("models/x.bin: it became shorter while it was read (copy it again)")
      },
    }
    expect(await rejected(failing, "f32")).toStartWith("models/x.bin: it became shorter")
  })
})
