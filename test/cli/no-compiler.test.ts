// Without a C compiler the build still makes an executable, and says what is missing.

import { expect, test } from "bun:test"
import { cpSync, mkdirSync, mkdtempSync, rmSync, symlinkSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { ROOT, run } from "./executable.ts"

test("a build without a C compiler warns, and trains with the reference kernels", async () => {
  const tree = mkdtempSync(join(tmpdir(), "llm-tree-"))
  try {
    for (const name of ["src", "c", "package.json", "tsconfig.json"]) {
      cpSync(join(ROOT, name), join(tree, name), { recursive: true })
    }
    symlinkSync(join(ROOT, "node_modules"), join(tree, "node_modules"))
    mkdirSync(join(tree, "bin"))
    const env = { PATH: join(tree, "bin"), LLM_CACHE: join(tree, "cache") }
    const build = await run([process.execPath, "src/build/build.ts"], { cwd: tree, env })
    expect(build.stderr).toMatch(/^warning: no C compiler found: .*install gcc/m)
    expect(build.code).toBe(0)

    const llm = join(tree, "llm")
    const info = await run([llm, "info"], { env })
    expect(info.stderr).toMatch(/^warning: using the slow reference kernels \(.*install gcc/)
    expect(info.stderr.match(/no C compiler/g)).toHaveLength(1)
    expect(info.stdout).toMatch(/^kernels +reference$/m)
    const step = ["--steps", "1", "--batch", "1", "--context", "8", "--val-every", "0"]
    const train = await run([llm, "train", ...step, "--sample-every", "0"], { env })
    expect(train.stdout).toMatch(/^step 0\/1 {2}loss 10\.\d+/m)
    expect(train.code).toBe(0)
    const refused = await run([llm, "train", "--device", "cpu"], { env })
    expect(refused.stderr).toMatch(/^llm: --device cpu: no kernel library fits \(.*\n$/)
    expect(refused.code).toBe(2)
  } finally {
    rmSync(tree, { recursive: true })
  }
}, 120_000)
