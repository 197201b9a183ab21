// Every format of a person's own text, compressed or not, against tokens computed in one line.

import { afterAll, describe, expect, test } from "bun:test"
import { mkdirSync, mkdtempSync, readdirSync, rmSync, symlinkSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { dirname, join } from "node:path"
import { gzipSync } from "node:zlib"
import fc from "fast-check"
import { chunksOf } from "../../src/data/chunks.ts"
import { inputsOf, isText, jobsOf, nameOf } from "../../src/data/inputs.ts"
import { type Job, runJob } from "../../src/data/jobs.ts"
import { tokenizeJobs } from "../../src/data/pool.ts"
import { prepareTexts, type Texts } from "../../src/data/prepare.ts"
import { elementJobs } from "../../src/data/readers.ts"
import { END_OF_TEXT, loadEncoder, VOCABULARY } from "../../src/data/tokenizer.ts"
import { UserError } from "../../src/errors.ts"
import { readTokens } from "../../src/formats/tokens.ts"
import { parquetOf } from "../fixtures/archives.ts"
import { peakOf } from "../peak.ts"

const folder = mkdtempSync(join(tmpdir(), "inputs-"))
afterAll(() => rmSync(folder, { recursive: true }))

const encode = await loadEncoder()
const plain = (texts: string[]) => texts.flatMap((text) => [END_OF_TEXT, ...encode(text)])

function file(name: string, content: string | Uint8Array): string {
  const path = join(folder, name)
  mkdirSync(dirname(path), { recursive: true })
  writeFileSync(path, content)
  return path
}

async function tokensOf(paths: string[], field = "text", workers = 1): Promise<number[]> {
  const all: number[] = []
  const jobs = jobsOf(inputsOf(paths), field, { bytes: 0 })
  for await (const { tokens } of tokenizeJobs(jobs, workers)) all.push(...tokens)
  return all
}

const documents = Array.from({ length: 1200 }, (_, i) =>
  i % 97 === 5 ? "" : `Nº ${i}: “quoted”, [brackets}, a\tand \\ back\n${"word ".repeat(i % 40)}☃`,
)
const objects = documents.map((text, id) => ({ id, text, nested: { list: [1, [2]], text: "no" } }))
const text = documents.join("\n")
const lines = objects.map((object) => JSON.stringify(object)).join("\n")

const formats: [name: string, content: string | Uint8Array, texts: string[]][] = [
  ["a.txt", text, [text]],
  ["a.jsonl", lines, documents],
  ["objects.json", JSON.stringify(objects), documents],
  ["strings.json", JSON.stringify(documents, null, 2), documents],
  ["mark.json", `\ufeff ${JSON.stringify(objects)}\n`, documents],
  ["snappy.parquet", parquetOf(documents), documents],
  ["whole.parquet", parquetOf(documents, { rowGroupSize: 10_000 }), documents],
  ["plain.parquet", parquetOf(documents, { codec: "UNCOMPRESSED" }), documents],
  ["gzip.parquet", parquetOf(documents, { codec: "GZIP", rowGroupSize: 7 }), documents],
  ["zstd.parquet", parquetOf(documents, { codec: "ZSTD" }), documents],
]

describe("the tokens are those of a plain computation", () => {
  const compressed = formats
    .filter(([name]) => !name.endsWith(".parquet"))
    .flatMap(([name, content, texts]): typeof formats => {
      const bytes = Buffer.from(content)
      const half = bytes.length >> 1
      const parts = [bytes.subarray(0, half), bytes.subarray(half)]
      return [
        [`${name}.gz`, gzipSync(bytes), texts],
        [`${name}.zst`, Bun.zstdCompressSync(bytes), texts],
        [`parts-${name}.gz`, Buffer.concat(parts.map((part) => gzipSync(part))), texts],
        [
          `parts-${name}.zst`,
          Buffer.concat(parts.map((part) => Bun.zstdCompressSync(part))),
          texts,
        ],
      ]
    })
  test.each([...formats, ...compressed])("of %s", async (name, content, texts) => {
    const path = file(name, content)
    const expected = plain(texts)
    // Threads take a while to start: once for each kind of job.
    const workers = /^(a|objects|snappy)\.\w+$/.test(name) ? 2 : 1
    const tokens = await tokensOf([path], "text", workers)
    expect(tokens.length).toBe(expected.length)
    expect(Buffer.compare(bytes(tokens), bytes(expected))).toBe(0)
  })

  test("of another field", async () => {
    const stories = ["One.", "Two."]
    const rows = stories.map((story) => ({ story, text: "no" }))
    const paths = [
      file("story.jsonl", rows.map((row) => JSON.stringify(row)).join("\n")),
      file("story.json", JSON.stringify(rows)),
      file("story.parquet", parquetOf(stories, { field: "story" })),
    ]
    expect(await tokensOf(paths, "story")).toEqual(plain([...stories, ...stories, ...stories]))
  })

  test("of an array cut into pieces and blocks of any size", async () => {
    const value = fc.oneof(
      fc.string({ unit: "grapheme" }),
      fc.record({ text: fc.string(), more: fc.jsonValue() }),
    )
    await fc.assert(
      fc.asyncProperty(
        fc.array(value),
        fc.nat(3),
        fc.integer({ min: 1, max: 30 }),
        fc.integer({ min: 1, max: 200 }),
        async (values, indent, pieceBytes, blockBytes) => {
          const content = Buffer.from(JSON.stringify(values, null, indent))
          async function* pieces() {
            for (let at = 0; at < content.length; at += pieceBytes) {
              yield content.subarray(at, at + pieceBytes)
            }
          }
          const tokens: number[] = []
          for await (const job of elementJobs("x.json", "text", pieces(), blockBytes)) {
            tokens.push(...(await runJob(job, encode)))
          }
          const texts = values.map((one) => (typeof one === "string" ? one : one.text))
          // A lone surrogate is no UTF-8, and JSON.stringify escapes it.
          expect(tokens).toEqual(plain(texts))
        },
      ),
    )
  })
})

describe("folders", () => {
  file("library/b/2.txt", "Second.")
  file("library/a.jsonl", '{"text":"First."}')
  file("library/c.txt.gz", gzipSync("Third."))
  file("library/empty.txt", "")
  file("library/.hidden.txt", "Never.")
  file("library/.git/x.txt", "Never.")
  file("library/picture.png", "no text")
  const linked = file("linked.txt", "Linked.")
  symlinkSync(linked, join(folder, "library", "d.txt"))
  const library = join(folder, "library")

  test("stand for all texts below them, in the order of their paths", async () => {
    expect(await tokensOf([library])).toEqual(plain(["First.", "Second.", "Third.", "Linked."]))
  })

  test("go together with files, in the order of the command line", async () => {
    const paths = [linked, join(library, "b")]
    expect(await tokensOf(paths)).toEqual(plain(["Linked.", "Second."]))
  })

  test.each([
    [library, "library"],
    [`${library}/`, "library"],
    ["x/novel.txt", "novel"],
    ["novel.v2.jsonl.gz", "novel.v2"],
    ["rows.parquet", "rows"],
  ])("%s gives token files the name %s", (path, name) => expect(nameOf(path)).toBe(name))

  test.each([
    ["a.txt", true],
    ["A.TXT.GZ", true],
    ["a.json.zst", true],
    ["a.parquet", true],
    ["a.parquet.gz", false],
    ["a.gz", false],
    ["a.pdf", false],
    ["no-such-folder", false],
  ])("%s is text by its name: %p", (path, expected) => expect(isText(path)).toBe(expected))
})

describe("only a few jobs are in memory", () => {
  test("they are taken as they can be worked on, whatever their number", async () => {
    let taken = 0
    function* jobs(): Generator<Job> {
      while (taken < 60) {
        taken++
        yield { kind: "documents", texts: [`Text ${taken}.`] }
      }
    }
    for (const workers of [1, 2]) {
      let given = 0
      taken = 0
      for await (const { tokens } of tokenizeJobs(jobs(), workers)) {
        given++
        expect([...tokens]).toEqual(plain([`Text ${given}.`]))
        expect(taken - given).toBeLessThanOrEqual(2 * workers)
      }
      expect(given).toBe(60)
    }
  })

  test("the file behind them is closed when the tokens are no longer wanted", async () => {
    let closed = 0
    function* jobs(): Generator<Job> {
      try {
        for (;;) yield { kind: "documents", texts: ["More."] }
      } finally {
        closed++
      }
    }
    for (const workers of [1, 2]) for await (const _ of tokenizeJobs(jobs(), workers)) break
    expect(closed).toBe(2)
  })
})

test("300 MB of text are never in memory together", async () => {
  // Blank lines, which take no time to tokenize, and a document at either end.
  const blank = Buffer.alloc(1e6, `${" ".repeat(999)}\n`)
  const document = gzipSync('{"text":"A few words at the end of nowhere."}\n')
  const nothing = gzipSync(blank)
  const parts = Array.from({ length: 300 }, () => nothing)
  const path = file("large.jsonl.gz", Buffer.concat([document, ...parts, document]))
  const texts: Texts = {
    ...{ paths: [path], field: "text", valFraction: 0, folder: join(folder, "large") },
    ...{ name: "large", workers: 2 }, // each holds the vocabulary
  }
  const module = join(import.meta.dir, "..", "..", "src", "data", "prepare.ts")
  const script = `const { prepareTexts } = await import(${JSON.stringify(module)})
    console.log(JSON.stringify(await prepareTexts(${JSON.stringify(texts)})))`
  const { stdout, peakBytes } = await peakOf(script)
  expect(stdout).toContain('"tokens":20')
  expect(peakBytes).toBeGreaterThan(50e6)
  expect(peakBytes).toBeLessThan(400e6)
}, 60_000)

describe("shards of own text", () => {
  const path = file("shards.jsonl", lines)
  const out = join(folder, "shards")
  const texts = (more: Partial<Texts> = {}): Texts => ({
    ...{ paths: [path], field: "text", valFraction: 0.1, folder: out, name: "own", workers: 1 },
    ...{ shardTokens: 5000, ...more },
  })

  test("are full but for the last, and together are the whole", async () => {
    const written = await prepareTexts(texts())
    const train = written.filter(({ path: at }) => at.includes("_train_"))
    const val = written.filter(({ path: at }) => at.includes("_val_"))
    expect(train[0]!.path).toBe(join(out, "own_train_000000.bin"))
    expect(train.slice(0, -1).every(({ tokens }) => tokens === 5000)).toBe(true)
    expect(train.at(-1)!.tokens).toBeLessThanOrEqual(5000)
    expect(readdirSync(out).sort()).toEqual(
      written.map(({ path: at }) => at.slice(out.length + 1)).sort(),
    )
    const all = [...train, ...val].flatMap(({ path: at }) => [...readTokens(at, VOCABULARY)])
    expect(all).toEqual(plain(documents))
  })

  test("of an earlier run are not mixed with new ones", async () => {
    const error = await prepareTexts(texts({ shardTokens: 9000 })).catch((e) => e)
    expect(error).toBeInstanceOf(UserError)
    expect(error.message).toContain(
      "it is from an earlier run, and would be mixed with the new ones",
    )
  })
})

describe("a broken file is refused in one line that names it", () => {
  const gz = gzipSync(text)
  const zst = Bun.zstdCompressSync(text)
  const parquet = parquetOf(documents)
  const cases: [string, string | Uint8Array, string][] = [
    ["no.txt.gz", "no gzip", "not gzip, or cut short: "],
    ["cut.txt.gz", gz.subarray(0, -20), "not gzip, or cut short: unexpected end of file"],
    ["sum.txt.gz", flipped(gz, gz.length - 6), "not gzip, or cut short: "],
    ["no.txt.zst", "no zstd", "not Zstandard, or cut short: "],
    ["cut.txt.zst", zst.subarray(0, -20), "not Zstandard, or cut short: unexpected end of file"],
    ["short.txt.zst", zst.subarray(0, 5), "not Zstandard, or cut short: unexpected end of file"],
    ["more.txt.zst", Buffer.concat([zst, Buffer.from("more")]), "not Zstandard, or cut short: "],
    ["latin.txt.gz", gzipSync(Uint8Array.of(97, 0xe9, 97)), "not UTF-8 at byte 2"],
    ["empty.json", "[]", "it holds no text"],
    ["object.json", '{"text":"a"}', "not a JSON array at byte 0"],
    ["lines.json", '[{"text":"a"}]\n[]', "not a JSON array at byte 15"],
    ["curly.json", '["a"}', "not a JSON array at byte 4"],
    ["cut.json", '["a", {"text":', "it ends within its array"],
    ["comma.json", '["a",]', "not JSON from element 1 on"],
    ["bad.json", '["a", {"text" "b"}]', "not JSON from element 1 on"],
    ["number.json", '["a", "b", 7]', 'element 3 has no "text" that is a string'],
    ["null.json", '["a", null]', 'element 2 has no "text" that is a string'],
    ["none.json", '["a", {"txt":"b"}]', 'element 2 has no "text"'],
    ["no.parquet", "no parquet at all", "not a Parquet file that can be read: "],
    ["cut.parquet", parquet.subarray(0, -100), "not a Parquet file that can be read: "],
    [
      "column.parquet",
      parquetOf(["a"], { field: "story" }),
      "it has no column text (--field NAME takes one of id, story)",
    ],
    ["null.parquet", parquetOf(["a", null, "c"]), 'row 2 has no "text" that is a string'],
  ]
  test.each(cases)("%s", async (name, content, message) => {
    const path = file(`bad/${name}`, content)
    const out = join(folder, "never")
    const workers = name === "cut.json" || name === "null.parquet" ? 2 : 1
    const error = await prepareTexts({
      ...{ paths: [path], field: "text", valFraction: 0, folder: out, name: "x", workers },
    }).catch((e) => e)
    expect(error).toBeInstanceOf(UserError)
    expect(error.message).toStartWith(`${path}: `)
    expect(error.message).toContain(message)
    expect(error.message).not.toContain("\n")
    expect(readdirSync(folder)).not.toContain("never")
  })

  test("every cut of a .gz or a .zst file", async () => {
    for (const [name, whole] of [
      ["any.txt.gz", gzipSync("A text. ".repeat(9))],
      ["any.txt.zst", Bun.zstdCompressSync("A text. ".repeat(9))],
    ] as const) {
      for (let length = 1; length < whole.length; length++) {
        const path = file(name, whole.subarray(0, length))
        const error = await Array.fromAsync(chunksOf(path)).catch((e) => e)
        expect(error).toBeInstanceOf(UserError)
      }
    }
  })

  test("a column of numbers", async () => {
    const path = file("numbers.parquet", parquet)
    const error = await tokensOf([path], "id").catch((e) => e)
    expect(error.message).toContain(
      "its column id holds no text (--field NAME takes one of id, text)",
    )
  })

  test("a folder without text", () => {
    mkdirSync(join(folder, "pictures"))
    expect(() => inputsOf([join(folder, "pictures")])).toThrow("no text lies in this folder")
  })
})

function bytes(tokens: number[]): Uint8Array {
  return new Uint8Array(Uint16Array.from(tokens).buffer)
}

function flipped(content: Uint8Array, index: number): Uint8Array {
  const copy = Uint8Array.from(content)
  copy[index]! ^= 1
  return copy
}
