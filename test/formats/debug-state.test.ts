import { afterAll, describe, expect, test } from "bun:test"
import { mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { readDebugState } from "../../src/formats/debug-state.ts"
import { bytesOf, headerBytes } from "../../src/formats/header.ts"
import { countParameters } from "../../src/formats/model.ts"
import type { Config } from "../../src/model/config.ts"
import { messageOf, refuses } from "./broken.ts"

const folder = mkdtempSync(join(tmpdir(), "debug-state-"))
afterAll(() => rmSync(folder, { recursive: true }))

const CONFIG: Config = { maxT: 3, V: 5, Vp: 8, L: 1, NH: 2, C: 2 }
const SIZE = countParameters(CONFIG)
const B = 2
const T = 3
const x = Int32Array.of(0, 1, 2, 3, 4, 0)
const y = Int32Array.of(1, 2, 3, 4, 0, 4)
const ramp = (length: number) => Float32Array.from({ length }, (_, i) => i / 3)
const parts = [bytesOf(x), bytesOf(y), bytesOf(ramp(B * T * 5 + 1 + SIZE))]
const header = (...change: number[]) => headerBytes(20240327, 2, ...change)

describe("a debug state", () => {
  test("is read in the order of llm.c's layout", () => {
    const path = join(folder, "state.bin")
    writeFileSync(path, Buffer.concat([header(B, T), ...parts]))
    const numbers = ramp(B * T * 5 + 1 + SIZE)
    expect(readDebugState(path, CONFIG)).toEqual({
      B,
      T,
      x,
      y,
      logits: numbers.slice(0, 30),
      loss: 10,
      gradients: numbers.slice(31),
    })
  })
})

test.each([
  ["logits", 0, 0],
  ["logits", 29, 29],
  ["loss", 30, 0],
  ["gradients", 31, 0],
  ["gradients", 30 + SIZE, SIZE - 1],
])("%s that are not finite are refused by their place", (name, place, number) => {
  const path = join(folder, "state.bin")
  for (const value of [Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY]) {
    const numbers = ramp(B * T * 5 + 1 + SIZE)
    numbers[place] = value
    writeFileSync(path, Buffer.concat([header(B, T), bytesOf(x), bytesOf(y), bytesOf(numbers)]))
    expect(messageOf(() => readDebugState(path, CONFIG))).toStartWith(
      `${path}: ${name}: number ${number} is ${value} (`,
    )
  }
})

describe("a broken debug state is refused in one line", () => {
  const whole = Buffer.concat([header(B, T), ...parts])
  const outside = bytesOf(Int32Array.of(1, 2, 3, 4, 5, 4))
  const negative = bytesOf(Int32Array.of(1, 2, -3, 4, 0, 4))
  refuses(folder, (path) => readDebugState(path, CONFIG), [
    ["it is empty", [], "0 bytes are too few for a debug state"],
    ["it is a model", [headerBytes(20240326, 3)], "not a debug state: a GPT-2 model"],
    [
      "it is of the first version",
      [headerBytes(20240327, 1, B, T), ...parts],
      "version 1, but only 2 (fp32) can be read",
    ],
    [
      "a batch of nothing",
      [header(0, T), ...parts],
      "its header says a batch of 0×3, and the model takes contexts of 1 to 3",
    ],
    ["a negative context", [header(B, -3), ...parts], "its header says a batch of 2×-3"],
    ["a context that the model lacks", [header(1, 6), ...parts], "its header says a batch of 1×6"],
    [
      "another batch than its header says",
      [header(1, T), ...parts],
      `${whole.length.toLocaleString("en-US")} bytes, but its header promises a batch of 1×3`,
    ],
    [
      "it lacks its last byte",
      [whole.subarray(0, -1)],
      `${(whole.length - 1).toLocaleString("en-US")} bytes, but its header promises a batch of 2×3`,
    ],
    [
      "an input outside the vocabulary",
      [header(B, T), outside, ...parts.slice(1)],
      "token 5, but the vocabulary has 5",
    ],
    [
      "a negative target",
      [header(B, T), parts[0]!, negative, parts[2]!],
      "token -3, but the vocabulary has 5",
    ],
  ])
})
