// Where the executable's words go: results to stdout, mistakes to stderr, and what happens when
// nobody reads them or they cannot be written.

import { afterAll, beforeAll, describe, expect, test } from "bun:test"
import { existsSync, mkdirSync, mkdtempSync, openSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { writeTokens } from "../../src/formats/tokens.ts"
import { libraries } from "../../src/native/library.ts"
import { VERSION } from "../../src/version.ts"
import { buildExecutable, LLM, run } from "./executable.ts"

const TIMEOUT_MS = 60_000
const dir = mkdtempSync(join(tmpdir(), "llm-output-"))
const llm = (...args: string[]) => run([LLM, ...args], { cwd: dir })
const COMMANDS = ["train", "sample", "data", "eval", "plan", "emit", "info"]
const SMALL = "--layers 1 --heads 1 --channels 8 --batch 1 --context 8".split(" ")
const MANY = ["plan", "--layers", "300"] // more lines than any pipe holds

beforeAll(buildExecutable, TIMEOUT_MS)
afterAll(() => rmSync(dir, { recursive: true }))

describe("results go to stdout", () => {
  test("--version", async () => {
    expect(await llm("--version")).toEqual({ code: 0, stdout: `llm ${VERSION}\n`, stderr: "" })
  })

  test.each(["--help", "-h", "help"])("%s names every command", async (name) => {
    const { code, stdout, stderr } = await llm(name)
    expect({ code, stderr }).toEqual({ code: 0, stderr: "" })
    for (const command of COMMANDS) expect(stdout).toMatch(new RegExp(`^  ${command} +\\w`, "m"))
  })

  test("COMMAND --help, whatever else is said", async () => {
    for (const command of COMMANDS) {
      const { code, stdout, stderr } = await llm(command, "--nonsense", "--help")
      expect({ code, stderr }).toEqual({ code: 0, stderr: "" })
      expect(stdout).toStartWith(`llm ${command}`)
    }
  })

  test("info describes one file after the other, up to one that is not sound", async () => {
    const tokens = Uint16Array.of(1, 2, 3)
    for (const name of ["a.bin", "b.bin"]) writeTokens(join(dir, name), tokens)
    const one = await llm("info", "a.bin")
    expect(one).toEqual({ code: 0, stdout: expect.stringContaining("tokens  "), stderr: "" })
    const { code, stdout, stderr } = await llm("info", "a.bin", "b.bin", "none.bin")
    expect({ code, stdout }).toEqual({ code: 2, stdout: `${one.stdout}\n${one.stdout}` })
    expect(stderr).toMatch(/^llm: none\.bin: cannot read: .*\n$/)
  })

  test("info prints the table of a run that is damaged, then the damage", async () => {
    mkdirSync(join(dir, "run"))
    writeFileSync(join(dir, "run", "DONE_00000010"), "nothing\n")
    const { code, stdout, stderr } = await llm("info", "run")
    expect({ code, stdout }).toEqual({ code: 2, stdout: expect.stringContaining("| no ") })
    expect(stderr).toBe("llm: run/DONE_00000010: line 1 is no checksum and name\n")
  })

  test("info has every row", async () => {
    const { code, stdout } = await llm("info")
    expect(code).toBe(0)
    const rows = new Map(
      stdout.match(/.+/g)!.map((row) => [row.slice(0, 24).trim(), row.slice(24)]),
    )
    expect(rows.get("version")).toBe(VERSION)
    expect(rows.get("CPU")).toMatch(/\w/)
    expect(rows.get("instruction set")).toMatch(/\w/)
    expect(rows.get("cores")).toMatch(/^[1-9]\d* that this process may use$/)
    expect(rows.get("f32 peak")).toMatch(/^\d+\.\d GFLOP\/s, measured$/)
    const all = await libraries()
    for (const { name, reason } of all) expect(rows.get(`library ${name}`)).toBe(reason ?? "usable")
    const usable = all.filter(({ reason }) => reason === undefined).map(({ name }) => `${name}`)
    expect(usable).toContain(rows.get("kernels")!)
  })

  test("plan has a line a tensor and the sums", async () => {
    const { code, stdout, stderr } = await llm("plan", ...SMALL)
    expect({ code, stderr }).toEqual({ code: 0, stderr: "" })
    const count = Number(/^tensors +(\d+) in /m.exec(stdout)![1])
    expect(stdout.match(/^ +[\d,]+ {2} +[\d,]+ {2}\S+ +\([\d,]+\) (f32|f64|i32) /gm)).toHaveLength(
      count,
    )
    const bytes = (row: string) =>
      Number(new RegExp(`^${row} +([\\d,]+) bytes`, "m").exec(stdout)![1]!.replaceAll(",", ""))
    expect(bytes("peak")).toBeGreaterThanOrEqual(bytes("lower bound"))
    expect(bytes("lower bound")).toBeGreaterThanOrEqual(bytes("always alive"))
  })

  test("plan ends with what each kind of recompute saves and costs", async () => {
    const args = ["plan", "--context", "512", "--context-max", "512", "--vocab", "256"]
    const table = async (mode: string) => {
      const { stdout } = await llm(...args, "--recompute", mode)
      const peak = /^peak +([\d,]+ bytes)$/m.exec(stdout)![1]!
      return { peak, rows: stdout.split("\n").slice(-6, -1) }
    }
    const { peak, rows } = await table("0")
    const cells = rows.map((row) => row.trim().split(/ {2,}/))
    expect(cells[0]).toEqual(["recompute", "peak", "saved", "extra FLOPs", "extra traffic"])
    expect(cells[1]).toEqual(["0", peak, "0 bytes", "0.0 %", "0 bytes"])
    for (const [i, mode] of ["1", "2", "block"].entries()) {
      const other = await table(mode)
      expect(other.rows).toEqual(rows) // whatever is in force
      expect(cells[2 + i]!.slice(0, 2)).toEqual([mode, other.peak])
    }
    const saved = cells.slice(1).map((row) => Number.parseInt(row[2]!.replaceAll(",", ""), 10))
    expect(saved).toEqual(saved.toSorted((a, b) => a - b))
    expect(new Set(saved).size).toBe(4)
    expect(cells.map((row) => row[3]).slice(1, 4)).toEqual(["0.0 %", "0.0 %", "0.0 %"])
    expect(Number.parseFloat(cells[4]![3]!)).toBeGreaterThan(10)
  })

  test("emit prints the same C file every time, with every phase", async () => {
    const [{ stdout, stderr }, again] = [await llm("emit", ...SMALL), await llm("emit", ...SMALL)]
    expect(stderr).toBe("")
    expect(again.stdout).toBe(stdout)
    for (const phase of [
      "forward",
      "backward",
      "gradient_norm",
      "update",
      "evaluate",
      "prefill",
      "decode",
    ]) {
      expect(stdout).toMatch(new RegExp(`^int ${phase}\\(`, "m"))
    }
  })
})

describe("mistakes go to stderr", () => {
  test("no command at all gets the overview", async () => {
    const { code, stdout, stderr } = await llm()
    expect({ code, stdout }).toEqual({ code: 2, stdout: "" })
    expect(stderr).toBe((await llm("--help")).stdout)
  })

  test("control characters are spelled out, so that a mistake stays one line", async () => {
    const stderr = "llm: no command a\\u000ab\\u001b[31m (see llm --help)\n"
    expect(await llm("a\nb\x1b[31m")).toEqual({ code: 2, stdout: "", stderr })
    const { stderr: file } = await llm("train", "no\nfile\u009b")
    expect(file).toStartWith("llm: no\\u000afile\\u009b: cannot read: no such file or folder (")
  })

  test.each(["constructor", "__proto__", "toString"])("%s is no command", async (name) => {
    const stderr = `llm: no command ${name} (see llm --help)\n`
    expect(await llm(name)).toEqual({ code: 2, stdout: "", stderr })
  })
})

describe("output that is lost", () => {
  const noFull = existsSync("/dev/full") ? "" : " (skipped: there is no /dev/full)"
  test.skipIf(noFull !== "")(`a full disk is named${noFull}`, async () => {
    for (const args of [["--help"], ["plan"], ["emit"], ["train", ...SMALL, "--steps", "2"]]) {
      const child = Bun.spawn([LLM, ...args], {
        cwd: dir,
        stdout: openSync("/dev/full", "w"),
        stderr: "pipe",
      })
      const stderr = await new Response(child.stderr).text()
      expect(stderr).toBe("llm: output: cannot write: the disk is full\n")
      expect(await child.exited).toBe(2)
    }
  })

  test("a reader that leaves ends the program, without a word", async () => {
    for (const args of [MANY, ["train", ...SMALL, "--steps", "1000000"]]) {
      const child = Bun.spawn([LLM, ...args], { cwd: dir, stdout: "pipe", stderr: "pipe" })
      const reader = child.stdout.getReader()
      await reader.read()
      await reader.cancel()
      expect(await new Response(child.stderr).text()).toBe("")
      expect(await child.exited).toBe(128 + 13) // as SIGPIPE ends a program
    }
  })

  test("a slow reader gets everything", async () => {
    const child = Bun.spawn([LLM, ...MANY], { cwd: dir, stdout: "pipe" })
    await Bun.sleep(500) // the pipe is full by now
    const text = await new Response(child.stdout).text()
    expect(await child.exited).toBe(0)
    expect(text).toMatch(/^ratio +\d\.\d{4}\n$/m)
    expect(text.length).toBeGreaterThan(2 ** 20)
  })
})
