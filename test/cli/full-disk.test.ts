// A disk without room: one line, exit code 2, and nothing half-written stays on it.

import { afterAll, beforeAll, describe, expect, test } from "bun:test"
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { writeTokens } from "../../src/formats/tokens.ts"
import { buildExecutable, LLM, run } from "./executable.ts"

const TIMEOUT_MS = 60_000
const dir = mkdtempSync(join(tmpdir(), "llm-full-"))
mkdirSync(join(dir, "disk"))

// A small file system that only the command sees, and that goes with it.
const mount = (size: string) => `mount -t tmpfs -o size=${size} tmpfs disk`
const inside = (script: string) => ["unshare", "-rm", "sh", "-c", script]
const { exitCode } = Bun.spawnSync(inside(mount("16k")), { cwd: dir })
const title = exitCode === 0 ? "" : " (skipped: a file system may not be mounted here)"

beforeAll(async () => {
  await buildExecutable()
  writeFileSync(join(dir, "text.txt"), "word".concat(" word".repeat(99_999))) // 100,000 tokens
  writeTokens(
    join(dir, "toks.bin"),
    new Uint16Array(4000).map((_, i) => i % 13),
  )
}, TIMEOUT_MS)
afterAll(() => rmSync(dir, { recursive: true }))

/** Runs `llm ARGS` beside a disk of `size` on which `before` was done, and lists it afterwards. */
async function onDisk(size: string, args: string, before = "true") {
  const list = "find disk -mindepth 1 | sort >&2; cat disk/*/*.jsonl disk/*/*.log 2>&-; exit $code"
  const script = `${mount(size)}; ${before}; ${LLM} ${args} >stdout; code=$?; echo "--" >&2; ${list}`
  const { code, stdout, stderr } = await run(inside(script), { cwd: dir })
  const [said = "", left = ""] = stderr.split("--\n")
  return { code, said, left, logs: stdout }
}

const TINY = "toks.bin --layers 1 --heads 2 --channels 8 --vocab 13 --context-max 8 --context 8"

// The tiny model: (128 + 8 + 2)·8 + 12·8² + 13·8 = 1,976 numbers. A checkpoint holds three for each,
// two headers, and two windows of 128 numbers.
const ROWS: [title: string, size: string, args: string, message: string, before: string][] = [
  // The text's 200 kB of tokens wait there until it is known where they are cut.
  [
    "the tokens of a text",
    "64k",
    "data text.txt --out-dir disk/new/er",
    "disk/new/er: cannot write there: the disk is full",
    "true",
  ],
  [
    "a training file",
    "300k",
    "data text.txt --out-dir disk/new/er",
    "disk/new/er/text_train.bin: cannot write: the disk is full",
    "true",
  ],
  [
    "a validation file, which takes its training file along",
    "350k",
    "data text.txt --out-dir disk/new --val-fraction 0.5",
    "disk/new/text_val.bin: cannot write: the disk is full",
    "true",
  ],
  [
    "a checkpoint: seen before the first step",
    "4k",
    `train ${TINY} --out disk/run`,
    "--out disk/run: a checkpoint will take 27,808 bytes, but 4,096 are free there",
    "true",
  ],
  [
    "anything at all",
    "16k",
    `train ${TINY} --out disk/new/run`,
    "but 0 are free there",
    "head -c 16384 /dev/zero >disk/fill",
  ],
]

describe.skipIf(exitCode !== 0)(`a disk too small for${title}`, () => {
  test.each(ROWS)(
    "%s",
    async (_, size, args, message, before) => {
      const { code, said, left } = await onDisk(size, args, before)
      expect(readFileSync(join(dir, "stdout"), "utf8")).toBe("")
      const lines = said.trimEnd().split("\n")
      expect(lines.at(-1)).toStartWith("llm: ")
      expect(lines.at(-1)).toContain(message)
      expect(lines.filter((line) => line.startsWith("llm: "))).toHaveLength(1)
      expect({ code, left }).toEqual({ code: 2, left: before === "true" ? "" : "disk/fill\n" })
    },
    TIMEOUT_MS,
  )

  const LONG = `train ${TINY} --batch 1 --val-every 0 --sample-every 0 --out disk/run`

  test(
    "the logs of a long run: it goes on, and they end with a whole line",
    async () => {
      const { code, said, left, logs } = await onDisk("32k", `${LONG} --steps 300`)
      // Each log warns once; the last line says that the run could not be kept.
      const [last, ...warnings] = said.trimEnd().split("\n").reverse()
      expect(last).toMatch(/^llm: disk\/run\/\S+: cannot write: the disk is full \([^\n]+\)$/)
      expect(warnings.length).toBeWithin(1, 3)
      for (const line of warnings) {
        expect(line).toMatch(
          /^warning: disk\/run\/\S+: cannot write: the disk is full; its lines wait/,
        )
      }
      expect(code).toBe(2)
      expect(readFileSync(join(dir, "stdout"), "utf8")).toContain("step 299/300")
      expect(left).toBe(
        ["", "/main.log", "/metrics.jsonl", "/run.toml"]
          .map((name) => `disk/run${name}\n`)
          .join(""),
      )
      expect(logs).toEndWith("\n")
      const lines = logs.trimEnd().split("\n")
      const objects = lines.filter((line) => line.startsWith("{")).map((line) => JSON.parse(line))
      expect(objects.length).toBeGreaterThan(20)
      expect(objects.map(({ step }) => step)).toEqual(objects.map((_, i) => i))
      const others = lines.filter((line) => !line.startsWith("{"))
      for (const line of others) {
        expect(line).toMatch(/^s:\d+ trl:\d\.\d{4} lr:0\.000300 norm:\d+\.\d\d$/)
      }
    },
    TIMEOUT_MS,
  )

  test(
    "all checkpoints: the run warns, goes on, and the last good ones stay",
    async () => {
      // Three fit beside the logs of 100 steps.
      const { code, said, left } = await onDisk("144k", `${LONG} --steps 100 --checkpoint-every 10`)
      const warnings = said.split("\n").filter((line) => line.startsWith("warning: no checkpoint"))
      expect(warnings.length).toBeGreaterThan(2)
      for (const line of warnings) {
        expect(line).toMatch(
          /of step \d+0, training goes on: disk\/run\/\S+: cannot write: the disk/,
        )
      }
      expect(said.trimEnd().split("\n").at(-1)).toStartWith("llm: disk/run/")
      expect(code).toBe(2)
      expect(readFileSync(join(dir, "stdout"), "utf8")).toContain("step  99/100")
      const names = left
        .trimEnd()
        .split("\n")
        .map((path) => path.replace(/^disk\/run\/?/, ""))
      const steps = names.flatMap((name) => /^DONE_0*(\d+)$/.exec(name)?.[1] ?? [])
      expect(steps.length).toBeGreaterThan(1)
      expect(names.filter((name) => name.startsWith("."))).toEqual([])
      // No half of a checkpoint takes room.
      expect(names.filter((name) => /^(model|state)_/.test(name))).toHaveLength(2 * steps.length)
    },
    TIMEOUT_MS,
  )
})

test.each(["info", "emit", "plan", "--help", "train --help"])(
  "llm %s into a full device says so",
  async (args) => {
    const { code, stderr } = await run(["sh", "-c", `${LLM} ${args} >/dev/full`], { cwd: dir })
    expect(stderr).toMatch(/^llm: output: cannot write: the disk is full[^\n]*\n$/)
    expect(code).toBe(2)
  },
  TIMEOUT_MS,
)
