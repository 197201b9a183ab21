// Builds the CPU kernel libraries ahead of time: the same sources once per instruction set, with the
// OpenMP run-time laid beside them (Debian's libgomp.a cannot go into a shared object).

import { spawnSync } from "node:child_process"
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  realpathSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs"
import { basename, join } from "node:path"
import { NATIVE_BUILD_DIR } from "../native/assets.ts"
import { bf16Source } from "../native/compile.ts"
import { INSTRUCTION_SETS, type InstructionSet } from "../native/cpu.ts"
import { BF16_LIBRARIES, libraryFile } from "../native/library.ts"

const ROOT = join(import.meta.dir, "..", "..")
const SOURCES = join(ROOT, "c", "cpu")
const CONTRACT = join(ROOT, "c", "llm.h")

const ARCHITECTURE: Record<InstructionSet, string[]> = {
  "x86-64-v3": ["-march=x86-64-v3"],
  "x86-64-v4": ["-march=x86-64-v4", "-mprefer-vector-width=512"],
  "x86-64-v4-bf16": ["-march=x86-64-v4", "-mavx512bf16", "-mprefer-vector-width=512"],
  "x86-64-v4-amx": [
    ...["-march=x86-64-v4", "-mavx512bf16", "-mamx-tile", "-mamx-bf16"],
    "-mprefer-vector-width=512",
  ],
  // The scheduler would load all of a step's numbers first: the microkernel's sums would spill.
  arm64: ["-march=armv8-a", "-fno-schedule-insns"],
  "arm64-bf16": ["-march=armv8.2-a+bf16", "-fno-schedule-insns"],
}
/** AVX-512's vectors and bf16's products in terms of AVX2: slow, for the tests alone, which thus run
 * the code of instruction sets that this machine may lack. It is not part of the executable. */
const EMULATED_DIR = join(NATIVE_BUILD_DIR, "emulated")
export const EMULATED_LIBRARIES = {
  bf16: join(EMULATED_DIR, "libllm-emulated-bf16.so"),
  amx: join(EMULATED_DIR, "libllm-emulated-amx.so"),
}
// More than -O1 takes four times as long to compile.
const EMULATION = "-march=x86-64-v3 -O1 -DLLM_LANES_16 -Wno-psabi -Wl,-rpath,$ORIGIN/..".split(" ")

// errno and traps cost speed and nobody reads them; everything that could hide a NaN stays off.
const FLAGS = "-std=gnu11 -O3 -fPIC -shared -fopenmp -fno-math-errno -fno-trapping-math"
  .concat(" -ffp-contract=fast -Wall -Wextra -Wl,-rpath,$ORIGIN -Wl,-z,noexecstack")
  .split(" ")

/** The C compiler: $CC, gcc or clang; undefined where there is none. */
export function findCompiler(): string | undefined {
  const candidates = process.env.CC ? [process.env.CC] : ["gcc", "clang", "cc"]
  return candidates.find((name) => spawnSync(name, ["--version"]).status === 0)
}

interface Product {
  path: string
  flags: string[]
  withBf16: boolean
}

const libraries: Product[] = INSTRUCTION_SETS.map((name) => ({
  path: join(NATIVE_BUILD_DIR, libraryFile(name)),
  flags: ARCHITECTURE[name],
  withBf16: BF16_LIBRARIES.includes(name),
}))
const emulations: Product[] = [
  { path: EMULATED_LIBRARIES.bf16, flags: EMULATION, withBf16: true },
  { path: EMULATED_LIBRARIES.amx, flags: [...EMULATION, "-DLLM_EMULATED_AMX"], withBf16: true },
]

/** Builds the libraries that are missing or older than their sources, and for the tests the emulations.
 * Returns what to tell the user when there is nothing to build with. */
export async function buildNative(
  log: (line: string) => void,
  { forTests = false } = {},
): Promise<{ warning?: string }> {
  if (INSTRUCTION_SETS.length === 0) return { warning: `no kernel libraries for ${process.arch}` }
  const wanted = forTests && process.arch === "x64" ? [...libraries, ...emulations] : libraries
  const stale = wanted.filter((product) => !isFresh(product))
  if (stale.length === 0) return {}
  const compiler = findCompiler()
  if (!compiler) {
    const what = "no C compiler found: only the slow reference kernels are built in"
    return { warning: `${what} (install gcc, on Debian: apt install build-essential; build again)` }
  }
  writeBf16Sources()
  log(`${compiler}: c/cpu → ${stale.map(({ path }) => basename(path)).join(", ")}`)
  await Promise.all(stale.map((product) => compileLibrary(compiler, product)))
  copyOpenMP(compiler)
  return {}
}

const BF16_SOURCES = join(NATIVE_BUILD_DIR, "bf16")

/** A file of its own for each source that is compiled in a second kind. */
function writeBf16Sources(): void {
  rmSync(BF16_SOURCES, { recursive: true, force: true })
  for (const dir of [BF16_SOURCES, EMULATED_DIR]) mkdirSync(dir, { recursive: true })
  for (const path of sourceFiles().filter((path) => path.endsWith(".c"))) {
    const text = bf16Source(path, readFileSync(path, "utf8"))
    if (text) writeFileSync(join(BF16_SOURCES, basename(path)), text)
  }
}

function sourceFiles(): string[] {
  return readdirSync(SOURCES).map((name) => join(SOURCES, name))
}

function isFresh({ path }: Product): boolean {
  if (!existsSync(path)) return false
  const inputs = [...sourceFiles(), CONTRACT, import.meta.path]
  const newest = Math.max(...inputs.map((input) => statSync(input).mtimeMs))
  return statSync(path).mtimeMs > newest
}

async function compileLibrary(
  compiler: string,
  { path: target, flags, withBf16 }: Product,
): Promise<void> {
  const temporary = `${target}.${process.pid}.tmp`
  const again = withBf16 ? readdirSync(BF16_SOURCES).map((name) => join(BF16_SOURCES, name)) : []
  const files = [...sourceFiles().filter((path) => path.endsWith(".c")), ...again]
  const args = [...FLAGS, ...flags, `-I${join(ROOT, "c")}`, "-o", temporary, ...files]
  const run = Bun.spawn([compiler, ...args, "-lm"], { stderr: "pipe" })
  const messages = await new Response(run.stderr).text()
  if ((await run.exited) !== 0)
    throw new Error(`${compiler} failed on c/cpu, ${basename(target)}:\n${messages}`)
  renameSync(temporary, target)
}

/** Lays libgomp.so.1 beside the libraries; clang's libomp is left to the system. */
function copyOpenMP(compiler: string): void {
  const { stdout } = spawnSync(compiler, ["-print-file-name=libgomp.so.1"], { encoding: "utf8" })
  const path = stdout.trim()
  if (!path.startsWith("/")) return
  copyFileSync(realpathSync(path), join(NATIVE_BUILD_DIR, "libgomp.so.1"))
}
