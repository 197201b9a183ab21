// Folders and files that the user may not use: one line, exit code 2, and nothing left behind. Root
// may use everything, so that its tests run ./llm as somebody else.

import { afterAll, beforeAll, describe, expect, test } from "bun:test"
import {
  chmodSync,
  copyFileSync,
  lchownSync,
  linkSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readlinkSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { writeTokens } from "../../src/formats/tokens.ts"
import { buildExecutable, LLM, run, SHAPE } from "./executable.ts"

const NOBODY = 65534
const isRoot = process.getuid!() === 0
const dir = mkdtempSync(join(tmpdir(), "llm-permissions-"))
const path = (name: string) => join(dir, name)

const ROWS: [args: string, message: string][] = [
  [
    "data text.txt --out-dir locked",
    "--out-dir locked: cannot write there: permission denied (choose another)",
  ],
  [
    "data text.txt --out-dir locked/new",
    "--out-dir locked/new: cannot make the folder: permission denied (choose another)",
  ],
  ["data plays --out-dir locked", "--out-dir locked: cannot write there: permission denied"],
  ["data secret.txt --out-dir cache/out", "secret.txt: cannot read: permission denied"],
  [
    "data tinyshakespeare --from secret.txt --out-dir cache/out",
    "--from secret.txt: cannot read: permission denied",
  ],
  ["train --out locked", "--out locked: cannot write there: permission denied (choose another)"],
  ["train --out locked/new", "--out locked/new: cannot make the folder: permission denied"],
  ["train secret.bin", "secret.bin: cannot read: permission denied"],
  [
    "train toks.bin --val secret.bin --batch 1 --context 8",
    "secret.bin: cannot read: permission denied",
  ],
  ["train --init secret.bin", "secret.bin: cannot read: permission denied"],
  ["train --config secret.bin", "--config secret.bin: cannot read: permission denied"],
  ["sample secret.bin", "secret.bin: cannot read: permission denied"],
]

beforeAll(async () => {
  await buildExecutable()
  copyFileSync(LLM, path("llm")) // its own folder may be root's alone
  chmodSync(dir, 0o755)
  const text = "A text of some words. ".repeat(50)
  writeFileSync(path("text.txt"), text)
  writeFileSync(path("secret.txt"), text)
  writeTokens(path("toks.bin"), new Uint16Array(100))
  writeTokens(path("secret.bin"), new Uint16Array(100))
  for (const name of ["secret.txt", "secret.bin"]) chmodSync(path(name), 0o200)
  mkdirSync(path("locked"), { mode: 0o555 })
  mkdirSync(path("cache"), { mode: 0o777 })
  chmodSync(path("cache"), 0o777)
})
afterAll(() => {
  chmodSync(path("locked"), 0o755)
  rmSync(dir, { recursive: true })
})

function llm(args: string, cache: string, variables = {}) {
  const env = { ...process.env, LLM_CACHE: path(cache), ...variables }
  const user = isRoot ? { uid: NOBODY, gid: NOBODY } : {}
  return run([path("llm"), ...args.split(" ")], { cwd: dir, env, ...user })
}

test.each(ROWS)("llm %s", async (args, message) => {
  const { code, stdout, stderr } = await llm(args, "cache")
  expect(stderr).toStartWith(`llm: ${message}`)
  expect(stderr.match(/\n/g)).toHaveLength(1) // nothing had begun before
  expect({ code, stdout }).toEqual({ code: 2, stdout: "" })
  expect(readdirSync(path("locked"))).toEqual([])
})

test("a cache folder that cannot be made, or written, is named with the way out", async () => {
  const inside = await llm("info", "locked/cache")
  const way = "(set LLM_CACHE to a folder that you can write)\n"
  expect(inside.stderr).toMatch(/^llm: \S+locked\/cache\/\w+: cannot make the cache folder: /)
  expect(inside.stderr).toEndWith(`: permission denied ${way}`)
  expect((await llm("info", "cache")).code).toBe(0)
  const folder = path(`cache/${readdirSync(path("cache"))[0]}`)
  for (const name of readdirSync(folder)) rmSync(join(folder, name), { recursive: true })
  chmodSync(folder, 0o500)
  const { code, stderr } = await llm("info", "cache")
  expect(stderr).toMatch(/^llm: \S+: cannot unpack: permission denied \(set LLM_CACHE to .*\n$/)
  expect(code).toBe(2)
  chmodSync(folder, 0o700)
})

describe("the cache folder", () => {
  let folder = ""
  beforeAll(async () => {
    mkdirSync(path("own"))
    chmodSync(path("own"), 0o777)
    expect((await llm("info", "own")).code).toBe(0)
    folder = path(`own/${readdirSync(path("own"))[0]}`)
  })
  const giveAway = (name: string) => isRoot && lchownSync(name, NOBODY, NOBODY)

  test("is refused where others may write in it, and where it is a link", async () => {
    chmodSync(folder, 0o770)
    const shared = await llm("info", "own")
    chmodSync(folder, 0o700)
    expect(shared.stderr).toBe(
      `llm: ${folder}: the cache folder belongs to, or is writable by, someone else (set LLM_CACHE to a folder that you can write)\n`,
    )
    renameSync(folder, `${folder}.moved`)
    symlinkSync(`${folder}.moved`, folder)
    giveAway(folder)
    const linked = await llm("info", "own")
    rmSync(folder)
    renameSync(`${folder}.moved`, folder)
    expect(linked.stderr).toStartWith(`llm: ${folder}: cannot make the cache folder: `)
    expect([shared.code, linked.code]).toEqual([2, 2])
  })

  test("is used as it was when it was looked at, whatever takes its place later", async () => {
    const { code, stderr } = await llm("info", "own", { LD_DEBUG: "files" })
    expect(code).toBe(0)
    const loaded = stderr.match(/(?<=calling init: ).*$/gm)!
    for (const name of ["libllm-", "libgomp"]) {
      const its = loaded.filter((line) => line.includes(name))
      expect(its.length).toBeGreaterThan(0)
      for (const line of its) expect(line).toMatch(/^\/proc\/self\/fd\/\d+\//)
    }
  })

  test.each([
    ["is a link", (file: string, other: string) => symlinkSync(other, file)],
    ["has another name elsewhere", (file: string, other: string) => linkSync(other, file)],
    ["is writable by others", (file: string) => renameSync(`${file}.copy`, file)],
  ])("gets a file anew that %s", async (_, replace) => {
    const file = join(folder, "cpuid.c")
    const other = path("own/other")
    copyFileSync(file, other)
    copyFileSync(file, `${file}.copy`)
    chmodSync(`${file}.copy`, 0o666)
    for (const name of [other, `${file}.copy`]) giveAway(name)
    rmSync(file)
    replace(file, other)
    expect((await llm("info", "own")).code).toBe(0)
    const { mode, nlink } = lstatSync(file)
    expect({ mode: mode.toString(8), nlink }).toEqual({ mode: "100600", nlink: 1 })
  })

  test("gets its links to libc and libm anew where they lead astray", async () => {
    const command = `train toks.bin --steps 1 --val-every 0 ${SHAPE.join(" ")}`
    expect((await llm(command, "own")).code).toBe(0)
    const link = join(folder, "link", "libm.so")
    const target = readlinkSync(link)
    rmSync(link)
    symlinkSync("/nowhere/libm.so.6", link)
    giveAway(link)
    const { code, stderr } = await llm(command, "own")
    expect({ code, stderr }).toEqual({ code: 0, stderr: "" })
    expect(readlinkSync(link)).toBe(target)
    expect(readdirSync(folder).filter((name) => /^step-|tmp$/.test(name))).toEqual([])
  })
})
