// The kernels for arm64 on another machine: made by a cross compiler, run by Bun for arm64 under
// qemu-user. The tests inside are the ones that every library has, unchanged.

import { expect, test } from "bun:test"
import { existsSync } from "node:fs"
import { devDependencies } from "../../package.json"
import { ROOT, run } from "../cli/executable.ts"

const SYSROOT = "/usr/aarch64-linux-gnu" // Debian's
const COMPILER = "aarch64-linux-gnu-gcc"
const BUN = `${ROOT}/build/arm64/node_modules/@oven/bun-linux-aarch64/bin/bun`
const TIMEOUT_MS = 600_000 // emulated, a test takes several times as long

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

/** Runs the tests of the libraries for arm64 on an emulated CPU; the others have been run here. */
async function emulate(cpu: string, files: string[]) {
  const qemu = ["qemu-aarch64", "-L", SYSROOT, "-cpu", cpu]
  const tests = ["test", "--timeout", `${TIMEOUT_MS}`, "-t", "^arm64", ...files]
  const { code, stderr } = await run([...qemu, BUN, ...tests], {
    env: { ...process.env, CC: COMPILER },
  })
  return { code, report: stderr.split("\n").filter((line) => !line.startsWith("(pass)")) }
}

test.skipIf(reason !== undefined)(
  title("the libraries for arm64 do what the reference does"),
  async () => {
    const files = ["test/ops/library.test.ts", "test/ops/ops.test.ts", "test/formats/init.test.ts"]
    const { code, report } = await emulate("max", files)
    expect(report.filter((line) => /^\((fail|skip)\)/.test(line))).toEqual([])
    expect({ code, report }).toMatchObject({ code: 0 })
  },
  TIMEOUT_MS,
)

test.skipIf(reason !== undefined)(
  title("a CPU for arm64 without BF16 has the library without it"),
  async () => {
    const { code, report } = await emulate("cortex-a72", ["test/ops/library.test.ts"])
    const skipped = report.filter((line) => line.startsWith("(skip)"))
    expect(skipped.length).toBeGreaterThan(0)
    for (const line of skipped) expect(line).toMatch(/^\(skip\) arm64-bf16 \(.*cannot run it\)/)
    expect({ code, report }).toMatchObject({ code: 0 })
  },
  TIMEOUT_MS,
)
