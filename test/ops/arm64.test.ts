// The kernels for arm64 on another machine: made by a cross compiler, run by Bun for arm64 under
// qemu-user. The tests inside are the ones that every library has, unchanged.

import { afterAll, expect, test } from "bun:test"
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { devDependencies } from "../../package.json"
import { bf16Source } from "../../src/native/compile.ts"
import { ROOT, run } from "../cli/executable.ts"

const SYSROOT = "/usr/aarch64-linux-gnu" // Debian's
const COMPILER = "aarch64-linux-gnu-gcc"
const BUN = `${ROOT}/build/arm64/node_modules/@oven/bun-linux-aarch64/bin/bun`
const TIMEOUT_MS = 1_200_000 // two minutes on two idle cores, which may have other work

function reasonToSkip(): string | undefined {
  if (process.arch === "arm64") return "this machine is one: its tests are these"
  const debian = "apt install qemu-user gcc-aarch64-linux-gnu libc6-dev-arm64-cross"
  for (const name of ["qemu-aarch64", COMPILER]) {
    if (!Bun.which(name)) return `no ${name} (on Debian: ${debian})`
  }
  if (existsSync(BUN)) return undefined
  const name = `@oven/bun-linux-aarch64@${devDependencies.bun}`
  return `no Bun for arm64 (npm install --prefix build/arm64 --force ${name})`
}

const reason = reasonToSkip()
const title = (text: string) => (reason ? `${text} (skipped: ${reason})` : text)

const dir = mkdtempSync(join(tmpdir(), "llm-arm64-"))
afterAll(() => rmSync(dir, { recursive: true }))

/** The reference by a compiler that optimises: under emulation it is most of what takes time. */
async function buildReference(): Promise<string> {
  const folder = join(ROOT, "c", "reference")
  const paths = readdirSync(folder).filter((name) => name.endsWith(".c"))
  const again = paths.flatMap((name) => {
    const text = bf16Source(join(folder, name), readFileSync(join(folder, name), "utf8"))
    if (text) writeFileSync(join(dir, name), text)
    return text ? [join(dir, name)] : []
  })
  const library = join(dir, "libreference.so")
  const flags = ["-std=c99", "-O2", "-fPIC", "-shared", "-ffp-contract=off", `-I${ROOT}/c`]
  const sources = [...paths.map((name) => join(folder, name)), ...again]
  const { code, stderr } = await run([COMPILER, ...flags, "-o", library, ...sources, "-lm"])
  expect({ code, stderr }).toEqual({ code: 0, stderr: "" })
  return library
}

/** Runs the tests whose names match on an emulated CPU. Returns the lines of those that did not pass,
 * and how many did. */
async function emulate(cpu: string, names: string, files: string[], reference?: string) {
  const qemu = ["qemu-aarch64", "-L", SYSROOT, "-cpu", cpu]
  const tests = ["test", "--timeout", `${TIMEOUT_MS}`, "-t", names, ...files]
  const { stderr } = await run([...qemu, BUN, ...tests], {
    env: { ...process.env, CC: COMPILER, LLM_TEST_REFERENCE: reference },
  })
  const lines = stderr.split("\n")
  return {
    passed: lines.filter((line) => line.startsWith("(pass)")).length,
    others: lines.filter((line) => /^\((fail|skip)\)|error/i.test(line)),
  }
}

test.skipIf(reason !== undefined)(
  title("a CPU for arm64 without BF16 has the library without it"),
  async () => {
    const { passed, others } = await emulate("cortex-a72", "^arm64", ["test/ops/library.test.ts"])
    expect(passed).toBeGreaterThan(0)
    expect(others.length).toBeGreaterThan(0)
    for (const line of others) expect(line).toMatch(/^\(skip\) arm64-bf16 \(.*cannot run it\)/)
  },
  TIMEOUT_MS,
)

// Each library has the kernels to itself that the other has not, or has from the same source.
test.skipIf(reason !== undefined)(
  title("the libraries for arm64 do what the reference does, in f32 and in bf16"),
  async () => {
    const reference = await buildReference()
    const ops = ["test/ops/ops.test.ts"]
    const runs = await Promise.all([
      emulate("max", "^arm64 ", ops, reference),
      emulate("max", "^arm64-bf16 .*_bf16", ops, reference),
    ])
    for (const { passed, others } of runs) {
      expect(others).toEqual([])
      expect(passed).toBeGreaterThan(20)
    }
    const rest = ["test/ops/library.test.ts", "test/formats/init.test.ts"]
    const { passed, others } = await emulate("max", "^arm64 ", rest)
    expect(others).toEqual([])
    expect(passed).toBeGreaterThan(2)
  },
  TIMEOUT_MS,
)
