// The executable in a root that holds glibc and nothing else: what a server without packages has.
// The system's own /proc is mounted, as in every container: Bun's engine asks it for the stack's
// bounds before any code of ours runs, and aborts without.

import { afterAll, describe, expect, test } from "bun:test"
import { copyFileSync, existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { dirname, join } from "node:path"
import { libraries } from "../../src/native/library.ts"
import { buildExecutable, LLM, run } from "./executable.ts"

const CHROOT = ["/usr/sbin/chroot", "/usr/bin/chroot", "/sbin/chroot"].find(existsSync)
const GLIBC = /^(ld-linux.*|libc|libm|libdl|libpthread|librt)\.so\.\d+$/
const TIMEOUT_MS = 120_000

const root = mkdtempSync(join(tmpdir(), "llm-root-"))
const proc = join(root, "proc")

/** Makes the root; returns why it cannot be. */
async function makeRoot(): Promise<string | undefined> {
  if (!CHROOT) return "there is no chroot"
  if (process.getuid!() !== 0) return "chroot is not permitted"
  await buildExecutable()
  for (const folder of ["tmp", "proc"]) mkdirSync(join(root, folder))
  copyFileSync(LLM, join(root, "llm"))
  const { stdout } = await run(["ldd", LLM])
  for (const [path] of stdout.matchAll(/\/\S+\.so\.\d+/g)) {
    const name = path.split("/").at(-1)!
    if (!GLIBC.test(name)) throw new Error(`./llm needs ${name}, which is not glibc's`)
    mkdirSync(dirname(join(root, path)), { recursive: true })
    copyFileSync(path, join(root, path))
  }
  const mounted = await run(["mount", "-t", "proc", "proc", proc])
  return mounted.code === 0 ? undefined : "mounting /proc is not permitted"
}

const reason = await makeRoot()
const hasCpuLibrary = (await libraries()).some(
  ({ name, reason }) => name !== "reference" && !reason,
)
const title = reason ? ` (skipped: ${reason})` : ""
const inRoot = (...args: string[]) => run([CHROOT!, root, "/llm", ...args], { env: {} })

afterAll(async () => {
  if (existsSync(join(proc, "self"))) await run(["umount", proc])
  if (!existsSync(proc) || readdirSync(proc).length === 0) rmSync(root, { recursive: true })
})

describe.skipIf(reason !== undefined)(`in a root with nothing but glibc${title}`, () => {
  const step = ["train", "--steps", "1", "--batch", "1", "--context", "8", "--val-every", "0"]

  test.skipIf(!hasCpuLibrary)(
    "a step is trained with the prebuilt kernels, and text written",
    async () => {
      const { code, stdout, stderr } = await inRoot(
        ...step,
        "--sample-every",
        "1",
        "--device",
        "cpu",
      )
      expect({ code, stderr }).toEqual({ code: 0, stderr: "" })
      expect(stdout).toMatch(/^kernels {5}x86-64/m)
      expect(stdout).toMatch(/^step 0\/1 {2}loss 10\.\d+/m)
    },
    TIMEOUT_MS,
  )

  test(
    "a step is trained with the reference kernels",
    async () => {
      const small = ["--sample-every", "0", "--device", "reference"]
      const { code, stdout, stderr } = await inRoot(...step, ...small)
      expect({ code, stderr }).toEqual({ code: 0, stderr: "" })
      expect(stdout).toMatch(/^kernels {5}reference, 1 thread, fp32$/m)
      expect(stdout).toMatch(/^step 0\/1 {2}loss 10\.\d+/m)
    },
    TIMEOUT_MS,
  )

  test("a GPU that is asked for is missed in one line", async () => {
    const { code, stdout, stderr } = await inRoot(...step, "--device", "cuda")
    expect(stderr).toMatch(/^llm: --device cuda: no [^\n]*\(or try --device cpu\)\n$/)
    expect({ code, stdout }).toEqual({ code: 2, stdout: "" })
  })

  test(
    "info describes the machine",
    async () => {
      const { code, stdout } = await inRoot("info")
      expect(code).toBe(0)
      expect(stdout).toMatch(/^f32 peak +\d+\.\d GFLOP\/s, measured$/m)
    },
    TIMEOUT_MS,
  )
})
