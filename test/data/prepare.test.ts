import { afterAll, describe, expect, test } from "bun:test"
import { existsSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import fc from "fast-check"
import { chunksOf } from "../../src/data/chunks.ts"
import { decodeUtf8, type Job } from "../../src/data/jobs.ts"
import { generatePlays } from "../../src/data/plays.ts"
import { tokenizeJobs } from "../../src/data/pool.ts"
import {
  cutFor,
  prepareTexts,
  prepareTinyShakespeare,
  sections,
  type Texts,
  writeSplit,
} from "../../src/data/prepare.ts"
import { Random } from "../../src/data/random.ts"
import { documentJobs, lineJobs, textJobs } from "../../src/data/readers.ts"
import { Decoder, END_OF_TEXT, loadEncoder, VOCABULARY } from "../../src/data/tokenizer.ts"
import { UserError } from "../../src/errors.ts"
import { readTokens } from "../../src/formats/tokens.ts"

const folder = mkdtempSync(join(tmpdir(), "prepare-"))
afterAll(() => rmSync(folder, { recursive: true }))

const encode = await loadEncoder()
const decoder = await Decoder.load()

function file(name: string, content: string | Uint8Array): string {
  writeFileSync(join(folder, name), content)
  return join(folder, name)
}

async function tokensOf(
  jobs: Iterable<Job> | AsyncIterable<Job>,
  workers: number,
): Promise<Uint16Array> {
  const all: number[] = []
  for await (const { tokens } of tokenizeJobs(jobs, workers)) all.push(...tokens)
  return Uint16Array.from(all)
}

/** What llm data makes of one file. */
async function prepare(path: string, valFraction: number, more: Partial<Texts> = {}) {
  const out = mkdtempSync(join(folder, "out-"))
  const written = await prepareTexts({
    ...{ paths: [path], field: "text", valFraction, folder: out, name: "own", workers: 1 },
    ...more,
  })
  const read = (name: string) =>
    existsSync(join(out, name)) ? readTokens(join(out, name), VOCABULARY) : []
  return { train: read("own_train.bin"), val: read("own_val.bin"), written, out }
}

test("more files than their names have digits for are refused before any is written", () => {
  const split = { train: new Uint16Array(1_000_001), val: new Uint16Array() }
  const out = mkdtempSync(join(folder, "out-"))
  expect(() => writeSplit(out, "own", split, 1)).toThrow(
    "--shard-tokens 1 makes 1,000,001 files, more than names of 6 digits (try 100000000)",
  )
  expect(readdirSync(out)).toEqual([])
})

describe("sections", () => {
  test("keep their blank line, and together are the text", () => {
    expect(sections("a\nb\n\nc\n\n\nd\n")).toEqual(["a\nb\n\n", "c\n\n", "\nd\n"])
    const text = fc.string({ unit: fc.constantFrom("a", " ", "\n") })
    fc.assert(fc.property(text, (s) => expect(sections(s).join("")).toBe(s)))
  })

  test("each follow an end-of-text token", async () => {
    const { train, val } = await prepareTinyShakespeare("First:\nHello.\n\nSecond:\nWell.\n", 1)
    const expected = [
      END_OF_TEXT,
      ...encode("First:\nHello.\n\n"),
      END_OF_TEXT,
      ...encode("Second:\nWell.\n"),
    ]
    expect([...val]).toEqual(expected)
    expect(train.length).toBe(0)
  })

  test("the first 32,768 tokens are for validation", async () => {
    const { text } = generatePlays({ seed: 3, bytes: 200_000 })
    const { train, val } = await prepareTinyShakespeare(text, 1)
    const all = sections(text).flatMap((section) => [END_OF_TEXT, ...encode(section)])
    expect(val.length).toBe(32_768)
    expect([...val, ...train]).toEqual(all)
  })

  const real = process.env.LLM_TINYSHAKESPEARE
  test.skipIf(!real)(
    `Tiny Shakespeare has 305,260 and 32,768 tokens${real ? "" : " (skipped: LLM_TINYSHAKESPEARE names no copy of it)"}`,
    async () => {
      const text = await Bun.file(real!).text()
      const { train, val } = await prepareTinyShakespeare(text)
      expect([train.length, val.length]).toEqual([305_260, 32_768])
      expect(decoder.decode(val).startsWith("<|endoftext|>First Citizen:\n")).toBe(true)
      const whole = decoder.decode(val) + decoder.decode(train)
      expect(whole.replaceAll("<|endoftext|>", "")).toBe(text)
    },
  )
})

describe("worker threads", () => {
  const { scenes, text } = generatePlays({ seed: 4, bytes: 600_000 })

  test("any number of them gives the same tokens, in order", async () => {
    const documents = scenes.map((scene) => scene.text)
    const expected = documents.flatMap((document) => [END_OF_TEXT, ...encode(document)])
    for (const workers of [1, 2, 5]) {
      const tokens = await tokensOf(documentJobs(documents), workers)
      expect(Buffer.compare(bytesOf(tokens), bytesOf(Uint16Array.from(expected)))).toBe(0)
    }
  })

  test("a file cut into jobs gives the tokens of the whole", async () => {
    const path = file("long.txt", text)
    expect((await Array.fromAsync(textJobs(path, chunksOf(path)))).length).toBeGreaterThan(1)
    const expected = Uint16Array.from([END_OF_TEXT, ...encode(text)])
    for (const workers of [1, 3]) {
      const tokens = await tokensOf(textJobs(path, chunksOf(path)), workers)
      expect(Buffer.compare(bytesOf(tokens), bytesOf(expected))).toBe(0)
    }
  })

  test("the error of the first bad line is reported, whatever the number of workers", async () => {
    const lines = Array.from({ length: 6000 }, (_, i) =>
      JSON.stringify({ text: `line ${i} `.repeat(9) }),
    )
    lines[4100] = "{"
    lines[5999] = "[]"
    const path = file("bad.jsonl", lines.join("\n"))
    for (const workers of [1, 2, 4]) {
      const error = await tokensOf(lineJobs(path, "text", chunksOf(path), 20_000), workers).catch(
        (e) => e,
      )
      expect(error).toBeInstanceOf(UserError)
      expect(error.message).toBe(
        `${path}: line 4,101 is not JSON (each line must be an object such as {"text": "…"})`,
      )
    }
  })
})

describe("cuts are safe for any text", () => {
  // Mostly breaks of all kinds and the pieces around them.
  const unit = fc.constantFrom(
    "a",
    "I'm",
    " ",
    "  ",
    "\n",
    "\n\n",
    "\u00a0",
    "\u3000",
    "日",
    "é",
    ".",
    "7",
    "\r\n",
    "\ufeff",
    "😀",
  )
  test("tokens of the jobs are the tokens of the text", async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(unit, { minLength: 3, maxLength: 9 }),
        fc.nat(),
        async (units, seed) => {
          let text = ""
          const random = new Random(seed)
          while (text.length < 3000) text += units[random.below(units.length)]
          const path = file("random.txt", text)
          const tokens = await tokensOf(textJobs(path, chunksOf(path), 64), 1)
          const body = text.startsWith("\ufeff") ? text.slice(1) : text
          const expected = Uint16Array.from([END_OF_TEXT, ...encode(body)])
          expect(Buffer.compare(bytesOf(tokens), bytesOf(expected))).toBe(0)
        },
      ),
      { numRuns: 100 },
    )
  })

  test("a text without any break is one job", async () => {
    const path = file("unbroken.txt", "é".repeat(600_000))
    const jobs = await Array.fromAsync(textJobs(path, chunksOf(path)))
    expect(jobs.map((job) => ("bytes" in job ? job.bytes.length : 0))).toEqual([1_200_000])
  })
})

describe("own texts", () => {
  test("a .txt file is one document, and the end of it is for validation", async () => {
    const text = "The quick brown fox jumps over the lazy dog. ".repeat(20)
    const { train, val } = await prepare(file("own.txt", text), 0.25)
    const all = [END_OF_TEXT, ...encode(text)]
    expect([...train, ...val]).toEqual(all)
    expect(val.length).toBe(all.length - Math.round(all.length * 0.75))
  })

  test("a byte order mark is no text", async () => {
    const { train } = await prepare(file("bom.txt", "\ufeffHello"), 0)
    expect([...train]).toEqual([END_OF_TEXT, ...encode("Hello")])
  })

  test("a .jsonl file is a document a line, and no document is cut in two", async () => {
    const documents = Array.from(
      { length: 40 },
      (_, i) => `${"word ".repeat((i * 7) % 13)}end ${i}`,
    )
    const lines = documents.map((text, i) => JSON.stringify({ id: i, text }))
    const path = file("own.jsonl", `${lines.join("\r\n")}\n\n`)
    const { train, val } = await prepare(path, 0.2)
    expect([...train, ...val]).toEqual(documents.flatMap((t) => [END_OF_TEXT, ...encode(t)]))
    expect(val[0]).toBe(END_OF_TEXT)
    expect(Math.abs(val.length / (train.length + val.length) - 0.2)).toBeLessThan(0.03)
  })

  test("neither part is much smaller than was asked for, for every fraction", () => {
    fc.assert(
      fc.property(
        fc.array(fc.nat(100), { minLength: 200, maxLength: 300 }),
        fc.double({ min: 0.02, max: 0.98, noNaN: true }),
        (numbers, fraction) => {
          const tokens = Uint16Array.from(numbers, (n) => (n < 5 ? END_OF_TEXT : n))
          const cut = cutFor("x", tokens, fraction)
          // No part is less than half of what was asked for, rounded to whole tokens.
          const wanted = Math.round(tokens.length * (1 - fraction))
          expect(cut).toBeGreaterThanOrEqual(wanted / 2)
          expect(tokens.length - cut).toBeGreaterThanOrEqual((tokens.length - wanted) / 2)
        },
      ),
    )
  })

  const cases: [string, string, string | Uint8Array, number, string][] = [
    ["an empty file", "empty.txt", "", 0.1, "the file is empty"],
    ["a file with only a byte order mark", "mark.txt", "\ufeff", 0.1, "it holds no text"],
    ["blank lines only", "blank.jsonl", "\n\n", 0.1, "it holds no text"],
    ["empty documents only", "hollow.jsonl", '{"text":""}\n', 0.1, "it holds no text"],
    ["Latin-1", "latin.txt", Uint8Array.of(97, 98, 0xe9, 97), 0.1, "not UTF-8 at byte 3"],
    ["UTF-16", "utf16.txt", Uint8Array.of(0xff, 0xfe, 97, 0), 0.1, "not UTF-8 at byte 0"],
    ["half a character", "half.txt", Uint8Array.of(97, 0xe2, 0x82), 0.1, "not UTF-8 at byte 3"],
    [
      "a surrogate",
      "surrogate.txt",
      Uint8Array.of(97, 0xed, 0xa0, 0x80),
      0.1,
      "not UTF-8 at byte 2",
    ],
    ["a line that is no JSON", "no.jsonl", '{"text":"a"}\nhello\n', 0.1, "line 2 is not JSON"],
    [
      "a line without text",
      "none.jsonl",
      '{"txt":"a"}\n',
      0.1,
      'line 1 has no "text" that is a string',
    ],
    [
      "a text that is a number",
      "number.jsonl",
      '{"text":7}\n',
      0.1,
      'line 1 has no "text" that is a string',
    ],
    [
      "a line that is null",
      "null.jsonl",
      "\n\nnull\n",
      0.1,
      'line 3 has no "text" that is a string',
    ],
    ["too little to hold out", "hi.txt", "hi", 0.1, "2 tokens are too few to hold out 0.1"],
  ]
  test.each(cases)("%s is refused in one line", async (_, name, content, fraction, message) => {
    const path = file(name, content)
    const error = await prepare(path, fraction).catch((e) => e)
    expect(error).toBeInstanceOf(UserError)
    expect(error.message).toStartWith(`${path}: `)
    expect(error.message).toContain(message)
    expect(error.message).not.toContain("\n")
  })

  test("the place of a bad byte is exact, anywhere in any text", () => {
    fc.assert(
      fc.property(
        fc.string({ unit: "grapheme" }),
        fc.string(),
        fc.nat(1e9),
        (before, after, offset) => {
          const good = new TextEncoder().encode(before.toWellFormed())
          const rest = new TextEncoder().encode(after)
          const bytes = Uint8Array.of(...good, 0xff, ...rest)
          expect(() => decodeUtf8("x", bytes, offset)).toThrow(
            `x: not UTF-8 at byte ${(offset + good.length).toLocaleString("en-US")} `,
          )
        },
      ),
    )
  })
})

function bytesOf(tokens: Uint16Array): Uint8Array {
  return new Uint8Array(tokens.buffer, tokens.byteOffset, tokens.byteLength)
}
