// TinyStories, FineWeb and HellaSwag from small sources in their true layout, against tokens computed
// in one line.

import { afterAll, afterEach, describe, expect, test } from "bun:test"
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { gzipSync } from "node:zlib"
import { type DataOptions, data } from "../../src/commands/data.ts"
import { strip } from "../../src/data/tinystories.ts"
import { END_OF_TEXT, loadEncoder, VOCABULARY } from "../../src/data/tokenizer.ts"
import { UserError } from "../../src/errors.ts"
import { readChoices } from "../../src/formats/choices.ts"
import { readTokens } from "../../src/formats/tokens.ts"
import { parquetOf, tarOf } from "../fixtures/archives.ts"
import { badServer, hub } from "../fixtures/http.ts"

const folder = mkdtempSync(join(tmpdir(), "sets-"))
const ROOT = join(import.meta.dir, "..", "..")
afterAll(() => rmSync(folder, { recursive: true }))
afterEach(() => {
  delete process.env.HF_ENDPOINT
})

const encode = await loadEncoder()
const plain = (texts: string[]) => texts.flatMap((text) => [END_OF_TEXT, ...encode(text)])
const tokensIn = (path: string) => [...readTokens(path, VOCABULARY)]
const quiet = { write: () => true }

/** Runs llm data here. Returns its output. */
async function run(source: string, options: Partial<DataOptions> = {}, url?: string) {
  let text = ""
  const stdout = { write: (more: string) => (text += more) }
  await data({ sources: [source], workers: 1, ...options }, { url, stdout, stderr: quiet })
  return text
}

async function refused(source: string, options: Partial<DataOptions>, url?: string) {
  const error = await run(source, options, url).catch((e) => e)
  expect(error).toBeInstanceOf(UserError)
  expect(error.message).not.toContain("\n")
  return error.message as string
}

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

describe("FineWeb", () => {
  const parts = [0, 1, 2].map((f) =>
    Array.from(
      { length: 60 },
      (_, i) => `Page ${i} of ${f}. ${"It goes on. ".repeat((i * 7) % 60)}`,
    ),
  )
  parts[1]![30] = "A document of more than two shards. ".repeat(700)
  const all = plain(parts.flat())
  const shardTokens = 2000
  const shards = Array.from({ length: Math.ceil(all.length / shardTokens) }, (_, i) =>
    all.slice(i * shardTokens, (i + 1) * shardTokens),
  )
  const options = { shardTokens }
  const parquet = parts.map((texts) => parquetOf(texts, { rowGroupSize: 7 }))
  const sample = (size: string) => ({
    [`sample/${size}/000_00000.parquet`]: parquet[0]!,
    [`sample/${size}/001_00000.parquet`]: parquet[1]!,
    [`sample/${size}/002_00000.parquet`]: parquet[2]!,
    [`sample/${size}/README.md`]: Buffer.from("no data"),
  })
  const nameOf = (i: number, name = "fineweb") =>
    `${name}_${i === 0 ? "val" : "train"}_${`${i}`.padStart(6, "0")}.bin`
  const expectShards = (out: string, expected = shards, name = "fineweb") => {
    const names = expected.map((_, i) => nameOf(i, name))
    expect(readdirSync(out).sort()).toEqual([...names, `${name}_progress.json`].sort())
    for (const [i, shard] of expected.entries())
      expect(tokensIn(join(out, names[i]!))).toEqual(shard)
  }

  test("is downloaded and cut where a shard is full", async () => {
    using server = hub("HuggingFaceFW/fineweb", sample("10BT"))
    process.env.HF_ENDPOINT = server.url
    const outDir = join(folder, "fineweb")
    const stdout = await run("fineweb", { ...options, outDir })
    expectShards(outDir)
    expect(shards.length).toBeGreaterThan(6)
    expect(stdout).toEndWith(`next: llm train '${outDir}/fineweb_train_*.bin'\n`)

    // Nothing is left to do, and nothing is asked for but the list.
    const before = server.asked.length
    expect(await run("fineweb", { ...options, outDir })).toBe(stdout)
    expect(server.asked.length).toBe(before + 1)
  })

  test("edu's and the larger samples have names of their own", async () => {
    using server = hub("HuggingFaceFW/fineweb-edu", sample("100BT"))
    process.env.HF_ENDPOINT = server.url
    const outDir = join(folder, "edu")
    await run("fineweb-edu", { ...options, outDir, size: "100B", workers: 2 })
    expectShards(outDir, shards, "edu_fineweb")
  })

  test("comes from a folder or a file of one's own as well", async () => {
    const from = join(folder, "fineweb-from")
    mkdirSync(from)
    for (const [i, bytes] of parquet.entries()) writeFileSync(join(from, `${i}.parquet`), bytes)
    const outDir = join(folder, "fineweb-2")
    await run("fineweb", { ...options, outDir, from })
    expectShards(outDir)
    const small = join(folder, "fineweb-3")
    await run("fineweb", { outDir: small, from: join(from, "0.parquet") })
    expectShards(small, [plain(parts[0]!)])
  })

  test("a stream that ends with a shard leaves no empty one, and no download", async () => {
    const tokens = plain(["One two three.", "Four five six."])
    const even = parquetOf(["One two three.", "Four five six."])
    using server = hub("HuggingFaceFW/fineweb", { "sample/10BT/000_00000.parquet": even })
    process.env.HF_ENDPOINT = server.url
    const outDir = join(folder, "even")
    await run("fineweb", { outDir, shardTokens: tokens.length / 2 })
    expectShards(outDir, [tokens.slice(0, tokens.length / 2), tokens.slice(tokens.length / 2)])
  })

  test("killed in the middle of a download, it goes on with the bytes and shards that are there", async () => {
    const third = "/datasets/HuggingFaceFW/fineweb/resolve/main/sample/10BT/002_00000.parquet"
    let hold = true
    using server = hub("HuggingFaceFW/fineweb", sample("10BT"), (path) =>
      hold && path === third ? "half" : "whole",
    )
    const outDir = join(folder, "killed")
    const command = [
      "src/main.ts",
      "data",
      "fineweb",
      "--shard-tokens",
      `${shardTokens}`,
      "--out-dir",
      outDir,
    ]
    const start = () =>
      Bun.spawn([process.execPath, ...command], {
        cwd: ROOT,
        env: { ...process.env, HF_ENDPOINT: server.url },
        stdout: "ignore",
        stderr: "ignore",
      })
    const partial = join(outDir, ".fineweb_downloads", "002_00000.parquet.incomplete")
    const isThere = (path: string) => existsSync(path) && statSync(path).size > 0
    const first = start()
    // The long document of the second file fills shards up to the third file.
    const last = Math.floor(plain([...parts[0]!, ...parts[1]!]).length / shardTokens) - 1
    const log = join(outDir, "fineweb_progress.json")
    const isNoted = () => isThere(log) && readFileSync(log, "utf8").includes(nameOf(last))
    while (!isThere(partial) || !isNoted()) {
      expect(first.exitCode).toBe(null)
      await Bun.sleep(20)
    }
    first.kill("SIGKILL")
    await first.exited
    expect(readdirSync(outDir).some((name) => name.endsWith(".tmp"))).toBe(true)
    const inodes = () =>
      shards.slice(0, last + 1).map((_, i) => statSync(join(outDir, nameOf(i))).ino)
    const before = inodes()

    hold = false
    server.asked.length = 0
    expect(await start().exited).toBe(0)
    expectShards(outDir)
    expect(inodes()).toEqual(before)
    const half = parquet[2]!.length >> 1
    expect(server.asked).toContain(`${third} bytes=${half}-`)
    expect(server.asked.some((asked) => asked.includes("000_00000"))).toBe(false)
  })

  test("a shard that is gone or cut short is made again, with those behind it", async () => {
    const from = join(folder, "fineweb-from")
    const outDir = join(folder, "fineweb-2")
    rmSync(join(outDir, nameOf(5)))
    await run("fineweb", { ...options, outDir, from })
    expectShards(outDir)
    const cut = join(outDir, nameOf(0))
    writeFileSync(cut, readFileSync(cut).subarray(0, -2))
    await run("fineweb", { ...options, outDir, from })
    expectShards(outDir)
  })

  test("shards of something else are neither mixed in nor overwritten", async () => {
    const from = join(folder, "fineweb-from")
    const outDir = join(folder, "fineweb-2")
    const other = { outDir, from, shardTokens: 3000 }
    expect(await refused("fineweb", other)).toContain(
      "the shards in this folder are of 2000 tokens, not 3000",
    )
    const one = { ...options, outDir, from: join(from, "0.parquet") }
    expect(await refused("fineweb", one)).toContain(
      "the shards in this folder are of other sources",
    )
    for (const content of ["", "{}", '{"shards":[{}]}', "null"]) {
      writeFileSync(join(outDir, "fineweb_progress.json"), content)
      expect(await refused("fineweb", { ...options, outDir, from })).toContain(
        "fineweb_train_000001.bin: no fineweb_progress.json beside it says what it was made of",
      )
    }
  })

  test("what cannot be read or reached is refused, and leaves nothing", async () => {
    const outDir = join(folder, "never")
    const bad = file("bad.parquet", "no parquet")
    expect(await refused("fineweb", { outDir, from: bad })).toContain(
      "bad.parquet: not a Parquet file",
    )
    const from = join(folder, "stories-from")
    expect(await refused("fineweb", { outDir, from })).toContain("no .parquet file")
    const empty = file("none.parquet", parquetOf([]))
    expect(await refused("fineweb", { outDir, from: empty })).toContain("it holds no documents")
    process.env.HF_ENDPOINT = "http://127.0.0.1:1"
    for (const source of ["fineweb", "fineweb-edu", "tinystories"]) {
      const message = await refused(source, { outDir })
      expect(message).toStartWith("http://127.0.0.1:1/api/datasets/")
      expect(message).toContain("cannot be reached")
      expect(message).toEndWith("(give a local copy with --from, or name a mirror in HF_ENDPOINT)")
    }
    using server = hub("HuggingFaceFW/fineweb", { "sample/10BT/x.txt": Buffer.from("x") })
    process.env.HF_ENDPOINT = server.url
    expect(await refused("fineweb", { outDir })).toContain("no .parquet file in sample/10BT")
    expect(await refused("tinystories", { outDir })).toContain("the server answers 404")
    expect(existsSync(outDir)).toBe(false)
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
