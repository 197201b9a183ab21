// The kernels for arm64 on another machine: made by a cross compiler, run by Bun for arm64 under
// qemu-user. The tests inside are the ones that every library has, unchanged.

import { expect, test } from "bun:test"
import { existsSync } from "node:fs"
import { devDependencies } from "../../package.json"
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

/** Runs the tests whose names match on an emulated CPU. Returns the lines of those that did not pass,
 * and how many did. */
async function emulate(cpu: string, names: string, files: string[]) {
  const qemu = ["qemu-aarch64", "-L", SYSROOT, "-cpu", cpu]
  const tests = ["test", "--timeout", `${TIMEOUT_MS}`, "-t", names, ...files]
  const { stderr } = await run([...qemu, BUN, ...tests], {
    env: { ...process.env, CC: COMPILER },
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
const f32 = ["test/ops/library.test.ts", "test/ops/ops.test.ts", "test/formats/init.test.ts"]
test.skipIf(reason !== undefined)(
  title("the libraries for arm64 do what the reference does, in f32 and in bf16"),
  async () => {
    const runs = await Promise.all([
      emulate("max", "^arm64 ", f32),
      emulate("max", "^arm64-bf16 .*_bf16", ["test/ops/ops.test.ts"]),
    ])
    for (const { passed, others } of runs) {
      expect(others).toEqual([])
      expect(passed).toBeGreaterThan(20)
    }
  },
  TIMEOUT_MS,
)
