// Folders and files that the user may not use: one line, exit code 2, and nothing left behind. Root
// may use everything, so that its tests run ./llm as somebody else.

import { afterAll, beforeAll, expect, test } from "bun:test"
import {
  chmodSync,
  copyFileSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  rmSync,
  writeFileSync,
} from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { writeTokens } from "../../src/formats/tokens.ts"
import { buildExecutable, LLM, run } from "./executable.ts"

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

function llm(args: string, cache: string) {
  const env = { ...process.env, LLM_CACHE: path(cache) }
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
