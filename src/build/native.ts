// Builds the CPU kernel libraries ahead of time: the same sources once per instruction set, with the
// OpenMP run-time laid beside them (Debian's libgomp.a cannot go into a shared object).

import { spawnSync } from "node:child_process"
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  readdirSync,
  realpathSync,
  renameSync,
  statSync,
} from "node:fs"
import { join } from "node:path"
import { NATIVE_BUILD_DIR } from "../native/assets.ts"
import type { InstructionSet } from "../native/cpu.ts"
import { CPU_LIBRARIES, libraryFile } from "../native/library.ts"

const ROOT = join(import.meta.dir, "..", "..")
const SOURCES = join(ROOT, "c", "cpu")
const CONTRACT = join(ROOT, "c", "llm.h")

const ARCHITECTURE: Record<InstructionSet, string[]> = {
  "x86-64-v3": ["-march=x86-64-v3"],
  "x86-64-v4": ["-march=x86-64-v4", "-mprefer-vector-width=512"],
  "x86-64-v4-bf16": ["-march=x86-64-v4", "-mavx512bf16", "-mprefer-vector-width=512"],
}
// errno and traps cost speed and nobody reads them; everything that could hide a NaN stays off.
const FLAGS = "-std=gnu11 -O3 -fPIC -shared -fopenmp -fno-math-errno -fno-trapping-math"
  .concat(" -ffp-contract=fast -Wall -Wextra -Wl,-rpath,$ORIGIN -Wl,-z,noexecstack")
  .split(" ")

/** The C compiler: $CC, gcc or clang; undefined where there is none. */
export function findCompiler(): string | undefined {
  const candidates = process.env.CC ? [process.env.CC] : ["gcc", "clang", "cc"]
  return candidates.find((name) => spawnSync(name, ["--version"]).status === 0)
}

/** Builds what is missing or older than its sources. Returns what to tell the user when there is
 * nothing to build with. */
export async function buildNative(log: (line: string) => void): Promise<{ warning?: string }> {
  if (process.arch !== "x64") return { warning: `no kernel libraries for ${process.arch} yet` }
  if (isFresh()) return {}
  const compiler = findCompiler()
  if (!compiler) {
    const what = "no C compiler found: only the slow reference kernels are built in"
    return { warning: `${what} (install gcc, on Debian: apt install build-essential; build again)` }
  }
  mkdirSync(NATIVE_BUILD_DIR, { recursive: true })
  log(`${compiler}: c/cpu → ${CPU_LIBRARIES.map(libraryFile).join(", ")}`)
  await Promise.all(CPU_LIBRARIES.map((name) => compileLibrary(compiler, name)))
  copyOpenMP(compiler)
  return {}
}

function sourceFiles(): string[] {
  return readdirSync(SOURCES).map((name) => join(SOURCES, name))
}

function isFresh(): boolean {
  const products = CPU_LIBRARIES.map((name) => join(NATIVE_BUILD_DIR, libraryFile(name)))
  if (!products.every(existsSync)) return false
  const inputs = [...sourceFiles(), CONTRACT, import.meta.path]
  const newest = Math.max(...inputs.map((path) => statSync(path).mtimeMs))
  return products.every((path) => statSync(path).mtimeMs > newest)
}

async function compileLibrary(compiler: string, name: InstructionSet): Promise<void> {
  const target = join(NATIVE_BUILD_DIR, libraryFile(name))
  const temporary = `${target}.${process.pid}.tmp`
  const files = sourceFiles().filter((path) => path.endsWith(".c"))
  const args = [...FLAGS, ...ARCHITECTURE[name], `-I${join(ROOT, "c")}`, "-o", temporary, ...files]
  const run = Bun.spawn([compiler, ...args, "-lm"], { stderr: "pipe" })
  const messages = await new Response(run.stderr).text()
  if ((await run.exited) !== 0)
    throw new Error(`${compiler} failed on c/cpu, ${name}:\n${messages}`)
  renameSync(temporary, target)
}

/** Lays libgomp.so.1 beside the libraries; clang's libomp is left to the system. */
function copyOpenMP(compiler: string): void {
  const { stdout } = spawnSync(compiler, ["-print-file-name=libgomp.so.1"], { encoding: "utf8" })
  const path = stdout.trim()
  if (!path.startsWith("/")) return
  copyFileSync(realpathSync(path), join(NATIVE_BUILD_DIR, "libgomp.so.1"))
}
