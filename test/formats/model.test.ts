import { afterAll, describe, expect, test } from "bun:test"
import {
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  truncateSync,
  writeFileSync,
} from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import fc from "fast-check"
import { fromBf16, roundToBf16 } from "../../src/data/bf16.ts"
import { bytesOf, headerBytes } from "../../src/formats/header.ts"
import { countParameters, loadModel, readModelHeader, writeModel } from "../../src/formats/model.ts"
import type { Config } from "../../src/model/config.ts"
import { fixture, fixtureWeights } from "../fixtures/weights.ts"
import { messageOf, refuses } from "./broken.ts"

const folder = mkdtempSync(join(tmpdir(), "model-"))
afterAll(() => rmSync(folder, { recursive: true }))
const at = (name: string) => join(folder, name)

const TINY: Config = { maxT: 3, V: 5, Vp: 8, L: 2, NH: 2, C: 4 }
const SIZE = countParameters(TINY)

/** One tensor with room for a whole model. */
const room = (length = SIZE) => [{ name: "all", data: new Float32Array(length).fill(Number.NaN) }]

/** A shape whose parameters are so many, nearly all of one tensor. */
const oneTensor = (length: number) => {
  return { maxT: 1, V: 1, Vp: length - 1 - 2 - 25, L: 1, NH: 1, C: 1 }
}
const isFiniteBf16 = (half: number) => (half & 0x7f80) !== 0x7f80

function file(name: string, header: number[], body: Uint8Array): string {
  writeFileSync(at(name), headerBytes(...header))
  writeFileSync(at(name), body, { flag: "a" })
  return at(name)
}
const words = (version: number, { maxT, V, L, NH, C, Vp }: Config) => {
  return [20240326, version, maxT, V, L, NH, C, Vp]
}

describe("model files", () => {
  test("a model is read as it was written", () => {
    const tensors = fixtureWeights()
    writeModel(at("fixture.bin"), fixture.config, tensors)
    const read = tensors.map(({ name, data }) => ({ name, data: new Float32Array(data.length) }))
    const header = loadModel(at("fixture.bin"), read)
    expect(header).toEqual({ config: fixture.config, dtype: "fp32", parameters: 63552 })
    for (const [i, { data }] of tensors.entries()) expect<Float32Array>(read[i]!.data).toEqual(data)
    expect(readdirSync(folder)).toEqual(["fixture.bin"])
  })

  test("GPT-2 124M has as many parameters as the paper's model and 47 padding rows", () => {
    const config = { maxT: 1024, V: 50257, Vp: 50304, L: 12, NH: 12, C: 768 }
    expect(countParameters(config)).toBe(124_475_904)
    expect(countParameters({ ...config, Vp: config.V })).toBe(124_439_808)
  })

  test("a written file is llm.c's header and the tensors one after the other", () => {
    const data = Float32Array.from({ length: SIZE }, (_, i) => i / 7)
    const halves = [
      { name: "first", data: data.subarray(0, 100) },
      { name: "rest", data: data.subarray(100) },
    ]
    writeModel(at("layout.bin"), TINY, halves)
    const expected = file("expected.bin", words(3, TINY), bytesOf(data))
    expect(Buffer.compare(readFileSync(at("layout.bin")), readFileSync(expected))).toBe(0)
  })

  test("every finite bf16 number becomes the fp32 number with the same upper half", () => {
    const all = Uint16Array.from({ length: 65536 }, (_, i) => i).filter(isFiniteBf16)
    const { length } = all
    expect(length).toBe(65536 - 2 * 128) // the exponent of all ones, with either sign
    const config = oneTensor(length)
    const path = file("bf16.bin", words(5, config), bytesOf(all))
    expect(readModelHeader(path)).toEqual({ config, dtype: "bf16", parameters: length })
    const [tensor] = room(length)
    loadModel(path, [tensor!])
    const bits = new Uint32Array(tensor!.data.buffer)
    expect(bits.every((word, i) => word === all[i]! * 65536)).toBe(true)
  })

  test("a model in bf16 is written in bf16, and read back into either type", () => {
    const all = Uint16Array.from({ length: SIZE }, (_, i) => i * 37)
    writeModel(at("bf16.bin"), TINY, [{ name: "all", data: all }])
    const half = new Uint16Array(SIZE)
    expect(loadModel(at("bf16.bin"), [{ name: "all", data: half }]).dtype).toBe("bf16")
    expect(half).toEqual(all)
    const full = new Float32Array(SIZE)
    loadModel(at("bf16.bin"), [{ name: "all", data: full }])
    expect(bytesOf(full)).toEqual(bytesOf(Float32Array.from(all, fromBf16)))
  })

  test("fp32 numbers are rounded to nearest where bf16 is asked for", () => {
    const numbers = [1 + 2 ** -8, 1 + 3 * 2 ** -8, -(1 + 2 ** -8), 0.1, 3.38e38, 1e-45, -0]
    const all = Float32Array.from({ length: SIZE }, (_, i) => numbers[i % numbers.length]!)
    writeModel(at("fp32.bin"), TINY, [{ name: "all", data: all }])
    const half = new Uint16Array(SIZE)
    loadModel(at("fp32.bin"), [{ name: "all", data: half }])
    expect([...half]).toEqual([...all].map(roundToBf16))
  })

  test("a bf16 tensor longer than one piece is read whole", () => {
    const length = 2 ** 19 + 3
    const numbers = Uint16Array.from({ length }, (_, i) => i % 0x7f80)
    const path = file("pieces.bin", words(5, oneTensor(length)), bytesOf(numbers))
    const [tensor] = room(length)
    loadModel(path, [tensor!])
    const bits = new Uint32Array(tensor!.data.buffer)
    expect(bits.every((word, i) => word >>> 16 === numbers[i] && (word & 0xffff) === 0)).toBe(true)
  })

  test("any configuration and any finite numbers come back", () => {
    const sizes = fc.record({
      maxT: fc.integer({ min: 1, max: 9 }),
      V: fc.integer({ min: 1, max: 9 }),
      padding: fc.integer({ min: 0, max: 5 }),
      L: fc.integer({ min: 1, max: 3 }),
      NH: fc.integer({ min: 1, max: 3 }),
      HS: fc.integer({ min: 1, max: 3 }),
    })
    fc.assert(
      fc.property(sizes, fc.integer(), fc.double({ min: 0, max: 1 }), (s, seed, cut) => {
        const config = {
          maxT: s.maxT,
          V: s.V,
          Vp: s.V + s.padding,
          L: s.L,
          NH: s.NH,
          C: s.NH * s.HS,
        }
        const length = countParameters(config)
        // Clearing one bit of the exponent leaves no number that is not finite.
        const hash = (i: number) => Math.imul(seed + i, 0x9e3779b1) & ~0x00800000
        const bits = Uint32Array.from({ length }, (_, i) => hash(i))
        const data = new Float32Array(bits.buffer)
        const middle = Math.floor(cut * length)
        const parts = (of: Float32Array) => [
          { name: "first", data: of.subarray(0, middle) },
          { name: "rest", data: of.subarray(middle) },
        ]
        writeModel(at("any.bin"), config, parts(data))
        const back = new Float32Array(length)
        expect(loadModel(at("any.bin"), parts(back)).config).toEqual(config)
        expect(Buffer.compare(bytesOf(back), bytesOf(data))).toBe(0)
      }),
      { numRuns: 50 },
    )
  })

  test("cut at any byte, it is refused by name", () => {
    writeModel(at("whole.bin"), TINY, room())
    const whole = readFileSync(at("whole.bin"))
    fc.assert(
      fc.property(fc.integer({ min: 0, max: whole.length - 1 }), (length) => {
        writeFileSync(at("cut.bin"), whole.subarray(0, length))
        const message = messageOf(() => loadModel(at("cut.bin"), room()))
        expect(message).toStartWith(`${at("cut.bin")}: `)
        expect(message).toContain(length.toLocaleString("en-US"))
      }),
      { numRuns: 50 },
    )
  })

  test("a model may be replaced by another, and a failed write leaves the old one", () => {
    writeModel(at("replaced.bin"), TINY, [{ name: "all", data: new Float32Array(SIZE).fill(1) }])
    writeModel(at("replaced.bin"), TINY, [{ name: "all", data: new Float32Array(SIZE).fill(2) }])
    expect(() => writeModel(at("replaced.bin"), TINY, room(SIZE - 1))).toThrow("internal error")
    const read = room()
    loadModel(at("replaced.bin"), read)
    expect(read[0]!.data).toEqual(new Float32Array(SIZE).fill(2))
  })
})

describe("numbers that are not finite are refused by tensor and place", () => {
  const NAN = [0x7fc00000, 0xffc00000, 0x7f800001, 0xff800001, 0x7fffffff, 0xffffffff]
  const INFINITY = [0x7f800000, 0xff800000]
  const WAY_OUT = "(give a model that was written before its run went wrong)"

  // Three tensors: the second in two parts of one name, the second of them longer than one piece.
  const parts = [5, 7, 2 ** 18 + 11, 3]
  const names = ["wte", "fcw", "fcw", "lnfb"]
  const starts = [0, 0, 7, 0]
  const length = parts.reduce((sum, n) => sum + n)
  const room = (Numbers: typeof Float32Array | typeof Uint16Array) =>
    parts.map((count, i) => ({ name: names[i]!, data: new Numbers(count) }))

  test.each([
    [0, 0],
    [0, 4],
    [1, 0],
    [1, 6],
    [2, 0],
    [2, 2 ** 18 - 1],
    [2, 2 ** 18],
    [2, 2 ** 18 + 10],
    [3, 2],
  ])("part %i, number %i", (part, number) => {
    const place = parts.slice(0, part).reduce((sum, n) => sum + n, 0) + number
    for (const [i, bits] of [...NAN, ...INFINITY].entries()) {
      const all = new Uint32Array(length).fill(0xff7fffff) // the largest, negative
      all[place] = bits
      const halves = Uint16Array.from(all, (word) => word >>> 16)
      halves[place]! |= (bits & 0xffff) === 0 ? 0 : 1 // a NaN that stays one
      const wide = file("wide.bin", words(3, oneTensor(length)), new Uint8Array(all.buffer))
      const narrow = file("narrow.bin", words(5, oneTensor(length)), bytesOf(halves))
      const sign = bits >>> 31 ? "-" : ""
      const value = i < NAN.length ? "NaN" : `${sign}Infinity`
      for (const [path, Numbers] of [
        [wide, Float32Array],
        [narrow, Float32Array],
        [narrow, Uint16Array],
      ] as const) {
        expect(messageOf(() => loadModel(path, room(Numbers)))).toBe(
          `${path}: ${names[part]}: number ${starts[part]! + number} is ${value} ${WAY_OUT}`,
        )
      }
    }
  })

  test("a number that is finite in fp32 but not in bf16 is refused where bf16 is asked for", () => {
    const all = new Float32Array(length)
    all[2] = 3.4e38
    const path = file("large.bin", words(3, oneTensor(length)), bytesOf(all))
    loadModel(path, room(Float32Array))
    expect(messageOf(() => loadModel(path, room(Uint16Array)))).toBe(
      `${path}: wte: number 2 is Infinity ${WAY_OUT}`,
    )
  })
})

describe("a broken model file is refused in one line", () => {
  const HINT = "(give a GPT-2 model file that llm or llm.c wrote)"
  const header = (change: Partial<Config>) => headerBytes(...words(3, { ...TINY, ...change }))
  const body = bytesOf(new Float32Array(SIZE))
  const whole = Buffer.concat([header({}), body])
  const huge = 2 ** 31 - 1

  refuses(folder, (path) => readModelHeader(path), [
    ["it is empty", [], `0 bytes are too few for a GPT-2 model ${HINT}`],
    ["it ends in the magic", [whole.subarray(0, 3)], "3 bytes are too few for a GPT-2 model"],
    [
      "it ends in the header",
      [whole.subarray(0, 1023)],
      "1,023 bytes, but its header alone takes 1,024",
    ],
    [
      "it ends after the header",
      [whole.subarray(0, 1024)],
      `1,024 bytes, but its header promises ${SIZE} parameters in fp32 (3,184 bytes) (it was cut short: copy it again)`,
    ],
    ["it ends in a tensor", [whole.subarray(0, 2000)], "2,000 bytes, but its header promises"],
    ["it lacks its last byte", [whole.subarray(0, -1)], "3,183 bytes, but its header promises"],
    ["it has a byte too many", [whole, new Uint8Array(1)], "3,185 bytes, but its header promises"],
    [
      "it is another kind of file",
      [headerBytes(20240520, 1, 0)],
      `not a GPT-2 model: a GPT-2 token file ${HINT}`,
    ],
    ["it is a Llama 3 model", [headerBytes(20240803, 3)], "not a GPT-2 model: a Llama 3 model"],
    ["it is text", [Buffer.from("To be, or not")], "not a GPT-2 model: a text"],
    [
      "its version is unknown",
      [headerBytes(...words(4, TINY)), body],
      "version 4, but only 3 (fp32) and 5 (bf16) can be read",
    ],
    [
      "no context",
      [header({ maxT: 0 }), body],
      `its header says 0 for context length, below 1 ${HINT}`,
    ],
    ["no vocabulary", [header({ V: 0 }), body], "its header says 0 for vocabulary size"],
    ["a negative number of layers", [header({ L: -2 }), body], "its header says -2 for layers"],
    ["no heads", [header({ NH: 0 }), body], "its header says 0 for heads"],
    ["no channels", [header({ C: 0 }), body], "its header says 0 for channels"],
    [
      "heads that do not divide channels",
      [header({ NH: 3 }), body],
      "its header's 3 heads do not divide its 4 channels",
    ],
    [
      "a padded vocabulary below the vocabulary",
      [header({ Vp: 4 }), body],
      "its header's padded vocabulary of 4 is below the vocabulary of 5",
    ],
    [
      "sizes beyond 64 bits",
      [header({ maxT: huge, V: huge, Vp: huge, L: huge, NH: 1, C: huge }), body],
      "3,184 bytes, but its header promises",
    ],
    [
      "fp32 numbers under a bf16 header",
      [headerBytes(...words(5, TINY)), body],
      `3,184 bytes, but its header promises ${SIZE} parameters in bf16 (2,104 bytes) (it was added to: copy it again)`,
    ],
  ])

  test("a missing file", () => {
    const message = messageOf(() => readModelHeader(at("absent.bin")))
    expect(message).toBe(`${at("absent.bin")}: cannot read: no such file or folder ${HINT}`)
  })

  test("a folder", () => {
    expect(messageOf(() => readModelHeader(folder))).toBe(`${folder}: it is a folder ${HINT}`)
  })

  test("a folder that does not exist, or a folder's own name, is not written to", () => {
    const write = (path: string) => writeModel(path, TINY, room())
    const path = at("absent/model.bin")
    expect(messageOf(() => write(path))).toStartWith(
      `${path}: cannot write: no such file or folder`,
    )
    const before = readdirSync(folder)
    expect(messageOf(() => write(folder))).toStartWith(`${folder}: cannot write: it is a folder`)
    expect(readdirSync(folder)).toEqual(before)
  })

  test("a file that shrinks while it is read", () => {
    writeFileSync(at("shrinks.bin"), whole)
    const tensors = [
      { name: "first", data: new Float32Array(10) },
      {
        name: "rest",
        get data() {
          truncateSync(at("shrinks.bin"), 1100)
          return new Float32Array(SIZE - 10)
        },
      },
    ]
    const message = messageOf(() => loadModel(at("shrinks.bin"), tensors))
    expect(message).toContain("became shorter while it was read")
  })
})
