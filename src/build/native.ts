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
const CPU = join(ROOT, "c", "cpu")
const REFERENCE = join(ROOT, "c", "reference")
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
const FOR_TESTS = ["-O1", "-Wno-psabi", "-Wl,-rpath,$ORIGIN/.."]
const WIDE = ["-march=x86-64-v3", "-DLLM_LANES_16"]

// The first mistake ends the process. UndefinedBehaviorSanitizer is told so when it runs: where the
// compiler knows it, AddressSanitizer first clears the stack of signals, and trips over Bun's.
// pointer-overflow takes as long to compile as all the rest, and what such a pointer touches is seen.
// ThreadSanitizer is left out: it does not understand libgomp's barriers, and reports every loop.
export const SANITIZERS = [
  ...["-fsanitize=address,undefined,float-cast-overflow", "-fno-sanitize=pointer-overflow"],
  ...["-fsanitize-recover=undefined,float-cast-overflow", "-g1"],
]
const SANITIZED_DIR = join(NATIVE_BUILD_DIR, "sanitized")

// errno and traps cost speed and nobody reads them; everything that could hide a NaN stays off. All
// libraries have the contract's names: a kernel that calls another means its own library's, whichever
// the process loaded first.
const FLAGS = "-std=gnu11 -O3 -fPIC -shared -fopenmp -fno-math-errno -fno-trapping-math"
  .concat(" -ffp-contract=fast -Wall -Wextra -Wl,-rpath,$ORIGIN -Wl,-z,noexecstack -Wl,-Bsymbolic")
  .split(" ")

/** The C compiler: $CC, gcc or clang; undefined where there is none. */
export function findCompiler(): string | undefined {
  const candidates = process.env.CC ? [process.env.CC] : ["gcc", "clang", "cc"]
  return candidates.find((name) => spawnSync(name, ["--version"]).status === 0)
}

interface Product {
  path: string
  sources: string // their folder
  flags: string[]
  withBf16: boolean
}

const libraries: Product[] = INSTRUCTION_SETS.map((name) => ({
  path: join(NATIVE_BUILD_DIR, libraryFile(name)),
  sources: CPU,
  flags: ARCHITECTURE[name],
  withBf16: BF16_LIBRARIES.includes(name),
}))
const emulations: Product[] = [
  { path: EMULATED_LIBRARIES.bf16, flags: [...WIDE, ...FOR_TESTS] },
  { path: EMULATED_LIBRARIES.amx, flags: [...WIDE, "-DLLM_EMULATED_AMX", ...FOR_TESTS] },
].map((product) => ({ ...product, sources: CPU, withBf16: true }))

/** A library for `bun run test:sanitize`, and the instruction set that it takes. */
export interface Sanitized extends Product {
  name: string
  needs?: InstructionSet
}
function sanitized(name: string, flags: string[], more: Partial<Sanitized> = {}): Sanitized {
  const path = join(SANITIZED_DIR, `libllm-${name.replaceAll(" ", "-")}.so`)
  const all = [...flags, ...FOR_TESTS, ...SANITIZERS]
  return { name, path, sources: CPU, flags: all, withBf16: true, ...more }
}
export const SANITIZED_REFERENCE = sanitized("reference", [], { sources: REFERENCE })
/** What AVX2's masked loads and stores touch is not seen; other widths go number by number. */
export const SANITIZED: Sanitized[] =
  process.arch === "arm64"
    ? [
        sanitized("arm64", ARCHITECTURE.arm64, { withBf16: false }),
        sanitized("arm64-bf16", ARCHITECTURE["arm64-bf16"], { needs: "arm64-bf16" }),
      ]
    : [
        sanitized("4 lanes", ["-mfma"], { needs: "x86-64-v3" }), // as on arm64
        sanitized("8 lanes", ["-march=x86-64-v3"], { withBf16: false, needs: "x86-64-v3" }),
        sanitized("16 lanes", WIDE, { needs: "x86-64-v3" }),
        sanitized("AMX", [...WIDE, "-DLLM_EMULATED_AMX"], { needs: "x86-64-v3" }),
      ]

const PRODUCTS = {
  use: libraries,
  tests: process.arch === "x64" ? [...libraries, ...emulations] : libraries,
  sanitizers: [SANITIZED_REFERENCE, ...SANITIZED],
}
type Purpose = keyof typeof PRODUCTS

/** Builds the libraries for a purpose that are missing or older than their sources. Returns what to
 * tell the user when there is nothing to build with. */
export async function buildNative(
  log: (line: string) => void,
  purpose: Purpose = "use",
): Promise<{ warning?: string }> {
  if (INSTRUCTION_SETS.length === 0) return { warning: `no kernel libraries for ${process.arch}` }
  const stale = PRODUCTS[purpose].filter((product) => !isFresh(product))
  if (stale.length === 0) return {}
  const compiler = findCompiler()
  if (!compiler) {
    const what = "no C compiler found: only the slow reference kernels are built in"
    return { warning: `${what} (install gcc, on Debian: apt install build-essential; build again)` }
  }
  for (const dir of [EMULATED_DIR, SANITIZED_DIR]) mkdirSync(dir, { recursive: true })
  const folders = new Set(stale.map((product) => product.sources))
  for (const sources of folders) writeBf16Sources(sources, bf16Folder(purpose, sources))
  log(`${compiler}: c → ${stale.map(({ path }) => basename(path)).join(", ")}`)
  const compileOne = (product: Product) =>
    compileLibrary(compiler, product, bf16Folder(purpose, product.sources))
  await Promise.all(stale.map(compileOne))
  copyOpenMP(compiler)
  return {}
}

/** Builds for several purposes may run at once. */
const bf16Folder = (purpose: Purpose, sources: string) =>
  join(NATIVE_BUILD_DIR, "bf16", purpose, basename(sources))
const paths = (dir: string) => readdirSync(dir).map((name) => join(dir, name))
const cFiles = (dir: string) => paths(dir).filter((path) => path.endsWith(".c"))

/** A file of its own for each source that is compiled in a second kind. */
function writeBf16Sources(sources: string, dir: string): void {
  rmSync(dir, { recursive: true, force: true })
  mkdirSync(dir, { recursive: true })
  for (const path of cFiles(sources)) {
    const text = bf16Source(path, readFileSync(path, "utf8"))
    if (text) writeFileSync(join(dir, basename(path)), text)
  }
}

function isFresh({ path, sources }: Product): boolean {
  if (!existsSync(path)) return false
  const inputs = [...paths(sources), CONTRACT, import.meta.path]
  const newest = Math.max(...inputs.map((input) => statSync(input).mtimeMs))
  return statSync(path).mtimeMs > newest
}

async function compileLibrary(
  compiler: string,
  { path: target, sources, flags, withBf16 }: Product,
  bf16Sources: string,
): Promise<void> {
  const temporary = `${target}.${process.pid}.tmp`
  const files = [...cFiles(sources), ...(withBf16 ? cFiles(bf16Sources) : [])]
  const args = [...FLAGS, ...flags, `-I${join(ROOT, "c")}`, "-o", temporary, ...files]
  const run = Bun.spawn([compiler, ...args, "-lm"], { stderr: "pipe" })
  const messages = await new Response(run.stderr).text()
  if ((await run.exited) !== 0) {
    const what = run.signalCode ? `was ended by ${run.signalCode}` : "failed"
    throw new Error(`${compiler} ${what} on ${sources}, ${basename(target)}:\n${messages}`)
  }
  renameSync(temporary, target)
}

/** Lays libgomp.so.1 beside the libraries, whole at once: another process may have loaded it. clang's
 * libomp is left to the system. */
function copyOpenMP(compiler: string): void {
  const { stdout } = spawnSync(compiler, ["-print-file-name=libgomp.so.1"], { encoding: "utf8" })
  const path = stdout.trim()
  if (!path.startsWith("/")) return
  const target = join(NATIVE_BUILD_DIR, "libgomp.so.1")
  copyFileSync(realpathSync(path), `${target}.${process.pid}.tmp`)
  renameSync(`${target}.${process.pid}.tmp`, target)
}
