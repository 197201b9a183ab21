// TinyStories and HellaSwag from small sources in their true layout, against tokens computed
// in one line.

import { afterAll, afterEach, describe, expect, test } from "bun:test"
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { gzipSync } from "node:zlib"
import { strip } from "../../src/data/tinystories.ts"
import { VOCABULARY } from "../../src/data/tokenizer.ts"
import { readChoices } from "../../src/formats/choices.ts"
import { tarOf } from "../fixtures/archives.ts"
import { badServer, hub } from "../fixtures/http.ts"
import { encode, plain, refused, run, tokensIn } from "./sets.ts"

const folder = mkdtempSync(join(tmpdir(), "sets-"))
afterAll(() => rmSync(folder, { recursive: true }))
afterEach(() => {
  delete process.env.HF_ENDPOINT
})

function file(name: string, content: string | Uint8Array): string {
  writeFileSync(join(folder, name), content)
  return join(folder, name)
}

describe("TinyStories", () => {
  // random.Random(1337) and random.Random(1338) of Python shuffle range(30) to these.
  const ORDERS = [
    [
      4, 7, 28, 0, 2, 24, 3, 15, 27, 8, 14, 13, 21, 16, 1, 29, 6, 20, 9, 26, 12, 10, 5, 23, 25, 18,
      11, 22, 17, 19,
    ],
    [
      29, 6, 5, 4, 23, 9, 2, 13, 12, 7, 1, 20, 26, 10, 0, 19, 3, 28, 18, 25, 17, 16, 14, 15, 21, 8,
      11, 22, 24, 27,
    ],
  ]
  const stories = [0, 1, 2].map((f) =>
    Array.from({ length: 30 }, (_, i) =>
      `Story ${i} of ${f}.\nOnce, “twice”. `.repeat(1 + (i % 4)).trim(),
    ),
  )
  const jsonOf = (texts: string[]) =>
    JSON.stringify(
      texts.map((story) => ({ story: `\n\x1c ${story}\t\x85`, summary: "x", source: "GPT-4" })),
    )
  const files = {
    "./": "",
    "./data02.json": jsonOf(stories[2]!),
    "./data00.json": jsonOf(stories[0]!),
    "./._data00.json": "what another system adds",
    "./readme.txt": "no story",
    "./data01.json": jsonOf(stories[1]!),
  }
  const shuffled = (split: number[]) =>
    split.flatMap((f, i) => ORDERS[i]!.map((story) => stories[f]![story]!))
  const val = plain(shuffled([0]))
  const train = plain(shuffled([1, 2]))
  const archive = gzipSync(tarOf(files))
  const expectTokens = (out: string) => {
    expect(readdirSync(out).sort()).toEqual(["TinyStories_train.bin", "TinyStories_val.bin"])
    expect(tokensIn(join(out, "TinyStories_val.bin"))).toEqual(val)
    expect(tokensIn(join(out, "TinyStories_train.bin"))).toEqual(train)
  }

  test("are downloaded, shuffled as the script does, and leave only token files", async () => {
    using server = hub("roneneldan/TinyStories", { "TinyStories_all_data.tar.gz": archive })
    process.env.HF_ENDPOINT = server.url
    const outDir = join(folder, "stories")
    const stdout = await run("tinystories", { outDir })
    expectTokens(outDir)
    expect(stdout).toEndWith(`next: llm train ${outDir}/TinyStories_train.bin\n`)
  })

  test("come from an archive or a folder of one's own as well", async () => {
    const from = join(folder, "stories-from")
    mkdirSync(from)
    for (const [name, content] of Object.entries(files)) {
      if (content) writeFileSync(join(from, name), content)
    }
    const outDir = join(folder, "stories-2")
    await run("tinystories", { outDir, from })
    expectTokens(outDir)
    rmSync(outDir, { recursive: true })
    await run("tinystories", { outDir, from: file("stories.tar.gz", archive), workers: 2 })
    expectTokens(outDir)
  })

  test("are stripped as Python strips", () => {
    // What str.isspace() says of U+0000 to U+FFFF.
    const spaces = [
      [9, 13],
      [28, 32],
      [133],
      [160],
      [5760],
      [8192, 8202],
      [8232, 8233],
      [8239],
      [8287],
      [12288],
    ]
    const isSpace = (code: number) =>
      spaces.some(([low, high = low]) => code >= low! && code <= high!)
    for (let code = 0; code < 0x10000; code++) {
      const character = String.fromCharCode(code)
      const stripped = strip(`${character}a${character}b${character}`)
      expect(stripped.length).toBe(isSpace(code) ? 3 : 5)
    }
  })

  const one = { "data00.json": jsonOf(["a"]) }
  const tar = tarOf(one)
  test.each([
    ["a cut archive", archive.subarray(0, -30), "not gzip, or cut short: unexpected end of file"],
    ["a cut tar", gzipSync(tar.subarray(0, 600)), "the archive is cut short"],
    ["no tar", gzipSync("x".repeat(5000)), "not a tar archive"],
    [
      "one file",
      gzipSync(tar),
      "1 .json files, but one is needed for validation and more for training",
    ],
    [
      "no story",
      gzipSync(tarOf({ ...one, "data01.json": '[{"text":"a"}]' })),
      'element 1 has no "story"',
    ],
    [
      "one name twice",
      gzipSync(tarOf({ ...one, "x/data00.json": "[]" })),
      "two files in it are called data00.json",
    ],
  ])("%s is refused", async (_, content, message) => {
    const outDir = join(folder, "never")
    expect(await refused("tinystories", { outDir, from: file("bad.tar.gz", content) })).toContain(
      message,
    )
    expect(existsSync(outDir)).toBe(false)
  })

  test("a name that leads out of the folder stays in it", async () => {
    const outDir = join(folder, "stories-out", "deep")
    const escaping = { "../../data00.json": jsonOf(["a"]), "/data01.json": jsonOf(["b"]) }
    await run("tinystories", { outDir, from: file("out.tar.gz", gzipSync(tarOf(escaping))) })
    expect(tokensIn(join(outDir, "TinyStories_train.bin"))).toEqual(plain(["b"]))
    expect(readdirSync(join(folder, "stories-out"))).toEqual(["deep"])
  })
})

describe("HellaSwag", () => {
  const questions = Array.from({ length: 40 }, (_, i) => ({
    ind: i,
    activity_label: "Roof shingle removal",
    ctx_a: "A man is sitting on a roof.",
    ctx_b: "he",
    ctx: `A man is sitting on roof ${i}. he`,
    split: "val",
    label: i % 4,
    endings: ["is using wrap.", `is ripping ${"level ".repeat(i)}tiles off.`, "holds a cube.", ""],
  }))
  const jsonl = `${questions.map((question) => JSON.stringify(question)).join("\n")}\n`

  test("is downloaded and written as the script writes it, word for word", async () => {
    using server = badServer(() => ({ body: jsonl }))
    const outDir = join(folder, "hellaswag")
    const stdout = await run("hellaswag", { outDir }, server.url)
    const path = join(outDir, "hellaswag_val.bin")
    expect(stdout).toBe(`${path}  40 questions\nnext: llm eval CHECKPOINT --hellaswag ${path}\n`)
    const words = questions.map(({ ctx, endings, label }, i) => {
      const lists = [ctx, ...endings.map((ending) => ` ${ending}`)].map((text) => encode(text))
      const stream = lists.flatMap((tokens) => [tokens.length, ...tokens])
      return [65535, 2 * (5 + stream.length), i, label, 4, ...stream]
    })
    const header = new Int32Array(256)
    header.set([20240522, 1, 40, Math.max(...words.map((own) => 2 * own.length))])
    const expected = Buffer.concat([
      new Uint8Array(header.buffer),
      new Uint8Array(Uint16Array.from(words.flat()).buffer),
    ])
    expect(Buffer.compare(readFileSync(path), expected)).toBe(0)
    expect(readChoices(path, VOCABULARY).length).toBe(40)
  })

  test("comes from a copy of one's own as well", async () => {
    const outDir = join(folder, "hellaswag-2")
    await run("hellaswag", { outDir, from: file("hellaswag_val.jsonl", jsonl) })
    expect(readFileSync(join(outDir, "hellaswag_val.bin"))).toEqual(
      readFileSync(join(folder, "hellaswag", "hellaswag_val.bin")),
    )
  })

  const line = (change: object) => `${JSON.stringify({ ...questions[0], ...change })}\n`
  test.each([
    ["no JSON", `${line({})}{\n`, "line 2 is not JSON"],
    ["null", "null\n", 'line 1 has no "ctx" with text'],
    ["no context", line({ ctx: "" }), 'line 1 has no "ctx" with text'],
    [
      "three endings",
      line({ endings: ["a", "b", "c"] }),
      'line 1 has no "endings" that are 4 texts',
    ],
    [
      "a number as ending",
      line({ endings: ["a", "b", "c", 4] }),
      'has no "endings" that are 4 texts',
    ],
    ["no label, as the test set", line({ label: undefined }), 'line 1 has no "label" from 0 to 3'],
    ["a label of 4", line({ label: 4 }), 'line 1 has no "label" from 0 to 3'],
    ["an endless context", line({ ctx: "no ".repeat(40_000) }), "which is too long"],
    ["nothing", "\n", "it holds no questions"],
  ])("%s is refused", async (_, content, message) => {
    const outDir = join(folder, "never")
    expect(await refused("hellaswag", { outDir, from: file("bad.jsonl", content) })).toContain(
      message,
    )
    expect(existsSync(outDir)).toBe(false)
  })

  test("an address that does not answer is named", async () => {
    const url = "http://127.0.0.1:1/x"
    expect(await refused("hellaswag", { outDir: join(folder, "never") }, url)).toStartWith(
      `${url}: cannot be reached`,
    )
  })
})
