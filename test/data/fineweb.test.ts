// FineWeb from small sources in its true layout, against tokens computed in one line.

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
import { parquetOf } from "../fixtures/archives.ts"
import { hub } from "../fixtures/http.ts"
import { plain, refused, run, tokensIn } from "./sets.ts"

const folder = mkdtempSync(join(tmpdir(), "fineweb-"))
const ROOT = join(import.meta.dir, "..", "..")
afterAll(() => rmSync(folder, { recursive: true }))
afterEach(() => {
  delete process.env.HF_ENDPOINT
})

function file(name: string, content: string | Uint8Array): string {
  writeFileSync(join(folder, name), content)
  return join(folder, name)
}

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
    const isBegun = () => readdirSync(outDir).some((name) => /_train_.*\.tmp$/.test(name))
    while (!isThere(partial) || !isNoted() || !isBegun()) {
      expect(first.exitCode).toBe(null)
      await Bun.sleep(20)
    }
    first.kill("SIGKILL")
    await first.exited
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
    mkdirSync(from)
    writeFileSync(join(from, "data00.json"), "[]")
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
