// ./llm as a person runs it: a run folder, a sample, a run continued, a run stopped.

import { afterAll, beforeAll, describe, expect, test } from "bun:test"
import {
  chmodSync,
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
import { CORPUS_SEED, makeCorpus } from "../../src/data/corpus.ts"
import { Decoder, VOCABULARY } from "../../src/data/tokenizer.ts"
import { readModelHeader } from "../../src/formats/model.ts"
import { readTokens, writeTokens } from "../../src/formats/tokens.ts"
import { VERSION } from "../../src/version.ts"
import { parquetOf } from "../fixtures/archives.ts"
import { buildExecutable, LLM, run, SHAPE, TRAIN, writeSmallTokens } from "./executable.ts"
import { metricsOf, TIMING, untimed } from "./runs.ts"

const TIMEOUT_MS = 120_000
const dir = mkdtempSync(join(tmpdir(), "llm-run-"))
const path = (name: string) => join(dir, name)
const read = (name: string) => readFileSync(path(name), "utf8")
const llm = (...args: string[]) => run([LLM, ...args], { cwd: dir })

beforeAll(async () => {
  await buildExecutable()
  const tokens = writeSmallTokens(dir)
  writeTokens(path("alone.bin"), tokens)
  const { code, stderr } = await llm(...TRAIN, "--steps", "3", "--out", "a")
  expect({ code, stderr }).toEqual({ code: 0, stderr: "" })
}, TIMEOUT_MS)

afterAll(() => rmSync(dir, { recursive: true }))

const metrics = (folder: string) => metricsOf(path(folder))

describe("a run folder", () => {
  test("holds the log, the metrics, the options and the checkpoint", () => {
    expect(readdirSync(path("a")).sort()).toEqual([
      "DONE_00000003",
      "main.log",
      "metrics.jsonl",
      "model_00000003.bin",
      "run.toml",
      "state_00000003_00000.bin",
    ])
    const { config } = readModelHeader(path("a/model_00000003.bin"))
    expect(config).toEqual({ L: 2, NH: 2, C: 16, V: 97, Vp: 128, maxT: 8 })
  })

  test("main.log is llm.c's", () => {
    const lines = read("a/main.log").trim().split("\n")
    const shape = lines.map((line) =>
      line
        .replace(/\d+\.\d{6}/g, "6")
        .replace(/\d+\.\d{4}/g, "4")
        .replace(/\d+\.\d{2}/g, "2"),
    )
    expect(shape).toEqual([
      "s:0 tel:4",
      "s:0 trl:4 lr:6 norm:2",
      "s:1 trl:4 lr:6 norm:2",
      "s:2 tel:4",
      "s:2 trl:4 lr:6 norm:2",
      "s:3 tel:4",
    ])
  })

  test("metrics.jsonl has every number of every step, and losses to the last digit", () => {
    const lines = metrics("a")
    const steps = lines.filter((line) => "trainLoss" in line)
    expect(steps.map(({ step }) => step)).toEqual([0, 1, 2])
    for (const step of steps) {
      expect(Object.keys(step)).toEqual(["step", "trainLoss", "lr", "gradNorm", ...TIMING])
    }
    const vals = lines.filter((line) => "valLoss" in line)
    expect(vals.map(({ step }) => step)).toEqual([0, 2, 3])
    const losses = lines.map(({ trainLoss, valLoss }) => trainLoss ?? valLoss!)
    expect(losses).toEqual(losses.map(Math.fround))
  })

  test(
    "run.toml names the version and every option, and repeats the run",
    async () => {
      expect(read("a/run.toml")).toStartWith(`version = "${VERSION}"\ncommand = "train"\n`)
      const { code, stderr } = await llm("train", "--config", "a/run.toml", "--out", "b")
      expect({ code, stderr }).toEqual({ code: 0, stderr: "" })
      expect(untimed(metrics("b"))).toEqual(untimed(metrics("a")))
      const model = "model_00000003.bin"
      expect(readFileSync(path(`b/${model}`)).equals(readFileSync(path(`a/${model}`)))).toBe(true)
    },
    TIMEOUT_MS,
  )
})

describe("the model that a run has written", () => {
  const sample = (...args: string[]) =>
    llm("sample", "a/model_00000003.bin", "--tokens", "40", ...args)

  test(
    "writes the same text for the same seed, on one thread and on two",
    async () => {
      const [one, two, other] = await Promise.all([
        sample("--threads", "1"),
        sample("--threads", "2"),
        sample("--seed", "7"),
      ])
      expect(one.code).toBe(0)
      expect(one.stdout.length).toBeGreaterThan(20)
      expect(two.stdout).toBe(one.stdout)
      expect(other.stdout).not.toBe(one.stdout)
      expect(one.stderr).toMatch(/^40 tokens, [\d,.]+ tokens\/s/m)
    },
    TIMEOUT_MS,
  )

  test(
    "is taken from the run's folder, the newest of several",
    async () => {
      const whole = await sample()
      const model = readFileSync(path("a/model_00000003.bin"))
      writeFileSync(path("a/model_00000002.bin"), model.subarray(0, 100))
      const { stdout } = await llm("sample", "a", "--tokens", "40")
      rmSync(path("a/model_00000002.bin"))
      expect(stdout).toBe(whole.stdout)
    },
    TIMEOUT_MS,
  )

  test(
    "is where another run goes on from",
    async () => {
      const init = ["--init", "a/model_00000003.bin", "--batch", "2", "--context", "8"]
      const { code } = await llm("train", "small_train.bin", ...init, "--steps", "1", "--out", "c")
      expect(code).toBe(0)
      expect(metrics("c")[0]).toEqual(metrics("a").at(-1)! && { ...metrics("a").at(-1)!, step: 0 })
    },
    TIMEOUT_MS,
  )
})

describe("a run", () => {
  test(
    "leaves the same model and the same metrics on 1, 2 and 3 threads",
    async () => {
      const model = "model_00000003.bin"
      for (const threads of ["1", "2", "3"]) {
        const out = `threads-${threads}`
        const args = ["--total-batch", "64", "--steps", "3", "--threads", threads, "--out", out]
        const { code, stderr } = await llm(...TRAIN, ...args)
        expect({ code, stderr }).toEqual({ code: 0, stderr: "" })
        expect(untimed(metrics(out))).toEqual(untimed(metrics("threads-1")))
        const [first, own] = ["threads-1", out].map((name) =>
          readFileSync(path(`${name}/${model}`)),
        )
        expect(own!.equals(first!)).toBe(true)
      }
    },
    TIMEOUT_MS,
  )

  test(
    "without validation tokens says so, and trains",
    async () => {
      const { code, stdout } = await llm(
        "train",
        "alone.bin",
        ...SHAPE,
        "--steps",
        "2",
        "--sample-every",
        "0",
      )
      expect(code).toBe(0)
      expect(stdout).toContain("nothing is kept without --out FOLDER\n")
      expect(stdout).toContain(
        "no validation: alone.bin has no _train to replace by _val (name one with --val)",
      )
      expect(stdout).toMatch(
        /^step 1\/2 {2}loss \d\.\d{4} {2}norm \d+\.\d\d {2}lr 3\.00e-4 {2}\d+ ms/m,
      )
    },
    TIMEOUT_MS,
  )

  test(
    "whose loss is no number ends with exit code 3 and names the step",
    async () => {
      const { code, stderr } = await llm(...TRAIN, "--steps", "50", "--lr", "1e30")
      expect(stderr).toMatch(
        /^llm: step \d+: the (loss|gradient's norm) is (NaN|-?Infinity); first in \S+ \([\d,]+\).* \(try a lower --lr.*\n$/,
      )
      expect(code).toBe(3)
    },
    TIMEOUT_MS,
  )

  const noTerminal = Bun.which("script") ? "" : " (skipped: there is no script command)"
  test.skipIf(noTerminal !== "")(
    `on a terminal shows one live line${noTerminal}`,
    async () => {
      const command = `${LLM} ${TRAIN.join(" ")} --steps 3`
      const { code, stdout } = await run(["script", "-qec", command, "/dev/null"], { cwd: dir })
      expect(code).toBe(0)
      expect(stdout).toContain("\r\x1b[Kstep 1/3  loss ")
      expect(stdout).toContain(" left")
    },
    TIMEOUT_MS,
  )
})

test(
  "the corpus that it carries is the one that its sources make",
  async () => {
    const { code, stdout } = await llm("data", "plays", "--out-dir", "plays")
    const { train, val, trainNatsPerToken } = await makeCorpus(CORPUS_SEED)
    expect(readTokens(path("plays/plays_train.bin"), VOCABULARY)).toEqual(Int32Array.from(train))
    expect(readTokens(path("plays/plays_val.bin"), VOCABULARY)).toEqual(Int32Array.from(val))
    expect(stdout).toContain(`train ${trainNatsPerToken.toFixed(4)}, `)
    expect(code).toBe(0)
  },
  TIMEOUT_MS,
)

test(
  "its threads read every format of text",
  async () => {
    const texts = ["A first text.", "A second one."]
    writeFileSync(path("rows.parquet"), parquetOf(texts, { codec: "ZSTD", rowGroupSize: 1 }))
    writeFileSync(path("list.json.zst"), Bun.zstdCompressSync(JSON.stringify(texts)))
    writeFileSync(path("lines.jsonl.gz"), gzipSync('{"text":"A third."}'))
    const files = ["rows.parquet", "list.json.zst", "lines.jsonl.gz"]
    const { code } = await llm("data", ...files, "--val-fraction", "0", "--out-dir", "formats")
    expect(code).toBe(0)
    const tokens = readTokens(path("formats/rows_train.bin"), VOCABULARY)
    const text = (await Decoder.load()).decode(tokens)
    const all = [...texts, ...texts, "A third."]
    expect(text).toBe(all.map((one) => `<|endoftext|>${one}`).join(""))
  },
  TIMEOUT_MS,
)

test(
  "settings of Bun that lie in the folder are none of its business",
  async () => {
    mkdirSync(path("foreign"))
    writeFileSync(path("foreign/bunfig.toml"), 'preload = ["./missing.ts"]\n')
    writeFileSync(path("foreign/.env"), `LLM_CACHE=${path("foreign/cache")}\n`)
    const { code, stderr } = await run([LLM, "info"], { cwd: path("foreign") })
    expect({ code, stderr }).toEqual({ code: 0, stderr: "" })
    expect(existsSync(path("foreign/cache"))).toBe(false)
  },
  TIMEOUT_MS,
)

describe("the cache folder", () => {
  const info = (cache: string) =>
    run([LLM, "info"], { env: { ...process.env, LLM_CACHE: path(cache) } })

  test(
    "is its owner's alone, and what was changed in it is not loaded",
    async () => {
      expect((await info("cache")).code).toBe(0)
      const [hash] = readdirSync(path("cache"))
      const folder = path(`cache/${hash}`)
      expect(statSync(folder).mode & 0o777).toBe(0o700)
      for (const name of readdirSync(folder)) {
        if (/\.(so|c|h)/.test(name)) writeFileSync(join(folder, name), "not this")
      }
      expect((await info("cache")).code).toBe(0)
      chmodSync(folder, 0o777)
      const { code, stderr } = await info("cache")
      expect(stderr).toMatch(/^llm: .*the cache folder belongs to, or is writable by, someone else/)
      expect(code).toBe(2)
    },
    TIMEOUT_MS,
  )
})
