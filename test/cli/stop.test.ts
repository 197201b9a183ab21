// Ctrl-C and kill: what a run of ./llm leaves behind, whenever they come.

import { afterAll, beforeAll, describe, expect, test } from "bun:test"
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
import { writeTokens } from "../../src/formats/tokens.ts"
import { buildExecutable, LLM, run, TRAIN, writeSmallTokens } from "./executable.ts"

const TIMEOUT_MS = 120_000
const dir = mkdtempSync(join(tmpdir(), "llm-stop-"))
const path = (name: string) => join(dir, name)
const read = (name: string) => readFileSync(path(name), "utf8")

beforeAll(async () => {
  await buildExecutable()
  writeSmallTokens(dir)
}, TIMEOUT_MS)

afterAll(() => rmSync(dir, { recursive: true }))

describe("a run", () => {
  for (const [signal, code] of [
    ["SIGINT", 130],
    ["SIGTERM", 143],
    ["SIGHUP", 129],
  ] as const) {
    test(
      `that gets ${signal} finishes the step, writes the model, exits ${code}`,
      async () => {
        const out = `stopped-${signal}`
        const endless = ["--steps", "1000000", "--out", out]
        const child = Bun.spawn([LLM, ...TRAIN, ...endless], { cwd: dir, stdout: "pipe" })
        while (
          !existsSync(path(`${out}/main.log`)) ||
          !read(`${out}/main.log`).includes("s:5 trl")
        ) {
          await Bun.sleep(20)
        }
        child.kill(signal)
        expect(await child.exited).toBe(code)
        const steps = read(`${out}/main.log`).match(/ trl:/g)!.length
        const model = path(`${out}/model_${`${steps}`.padStart(8, "0")}.bin`)
        expect(existsSync(model)).toBe(true)
        expect(await new Response(child.stdout).text()).toContain(`stopped after ${steps} of`)
      },
      TIMEOUT_MS,
    )
  }

  test(
    "whose reader goes away writes a checkpoint, and exits 141",
    async () => {
      const args = [...TRAIN, "--steps", "1000000", "--out", "piped"].join(" ")
      const script = `${LLM} ${args} | head -n 12 >/dev/null; echo "\${PIPESTATUS[0]}"`
      const { stdout, stderr } = await run(["bash", "-c", script], { cwd: dir })
      expect([stdout, stderr]).toEqual(["141\n", ""])
      expect(readdirSync(path("piped")).some((name) => name.startsWith("DONE_"))).toBe(true)
    },
    TIMEOUT_MS,
  )

  test(
    "whose output finds no room goes on without it",
    async () => {
      const args = [...TRAIN, "--steps", "30", "--out", "mute"].join(" ")
      const { code, stderr } = await run(["sh", "-c", `${LLM} ${args} >/dev/full`], { cwd: dir })
      expect(stderr).toBe("warning: output: cannot write: the disk is full; the run goes on\n")
      expect(code).toBe(0)
      expect(existsSync(path("mute/DONE_00000030"))).toBe(true)
    },
    TIMEOUT_MS,
  )

  test(
    "under nohup does not hear SIGHUP",
    async () => {
      // Two threads wait for each other at every kernel: minutes, where cores have other work.
      const args = [...TRAIN, "--threads 1 --steps 2000 --out nohup"].join(" ")
      const script = `trap '' HUP; ${LLM} ${args} >/dev/null & sleep 1; kill -HUP $!; wait $!`
      const { code } = await run(["sh", "-c", script], { cwd: dir })
      expect(code).toBe(0)
    },
    TIMEOUT_MS,
  )

  test(
    "that gets SIGINT before its first step is over leaves no folder",
    async () => {
      // More to validate on than a minute is enough for.
      writeTokens(path("large.bin"), new Uint16Array(20_000_000))
      const val = ["--val", "large.bin", "--val-batches", "1000000"]
      const child = Bun.spawn([LLM, ...TRAIN, ...val, "--out", "early/run"], { cwd: dir })
      while (!existsSync(path("early/run/metrics.jsonl"))) await Bun.sleep(5)
      child.kill("SIGINT")
      expect(await child.exited).toBe(130)
      expect(existsSync(path("early"))).toBe(false)
      expect(await new Response(child.stdout).text()).toContain("stopped after 0 of")
    },
    TIMEOUT_MS,
  )

  test(
    "that gets a second SIGINT within the step ends at once, and nothing is torn",
    async () => {
      // A step of a million micro-batches, which begins when step 0 has been validated.
      const endless = ["--total-batch", "16000000", "--out", "twice"]
      const child = Bun.spawn([LLM, ...TRAIN, ...endless], { cwd: dir })
      while (!existsSync(path("twice/main.log")) || read("twice/main.log") === "") {
        await Bun.sleep(5)
      }
      await Bun.sleep(500)
      child.kill("SIGINT")
      await Bun.sleep(100)
      child.kill("SIGINT")
      await child.exited
      expect(child.signalCode).toBe("SIGINT") // which a shell counts as 130
      expect(readdirSync(path("twice")).sort()).toEqual(["main.log", "metrics.jsonl", "run.toml"])
      expect(read("twice/main.log")).toMatch(/^s:0 tel:\S+\n$/)
    },
    TIMEOUT_MS,
  )

  test(
    "goes into a folder whose last run was killed before it had logged anything",
    async () => {
      mkdirSync(path("killed"))
      for (const name of ["main.log", "metrics.jsonl"]) writeFileSync(path(`killed/${name}`), "")
      const { code } = await run([LLM, ...TRAIN, "--steps", "1", "--out", "killed"], { cwd: dir })
      expect(code).toBe(0)
    },
    TIMEOUT_MS,
  )
})
