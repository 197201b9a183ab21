// Builds the CUDA kernels for the tests' emulation of a GPU (test/cuda): the same sources as C++, once
// for each kind of `real`, two at a time; once more for `bun run test:sanitize`. It is not part of the
// executable.

import { spawnSync } from "node:child_process"
import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, statSync } from "node:fs"
import { basename, dirname, join } from "node:path"
import { NATIVE_BUILD_DIR } from "../native/assets.ts"
import { INIT, CUDA_SOURCES as KERNELS } from "./cuda.ts"

const ROOT = join(import.meta.dir, "..", "..")
const EMULATION = join(ROOT, "test", "cuda")
const DIR = join(NATIVE_BUILD_DIR, "emulated")
export const EMULATED_CUDA = join(DIR, "libllm-emulated-cuda.so")
export const SANITIZED_CUDA = join(DIR, "libllm-emulated-cuda-sanitized.so")

const AT_ONCE = 2
const FLAGS = [
  ...["-x", "c++", "-std=c++17", "-fPIC", "-fvisibility=hidden", "-ffp-contract=fast"],
  ...(process.arch === "x64" ? ["-march=x86-64-v3"] : []),
  // An access that a GPU would refuse for its address is reported (test/cuda/threads.cpp).
  ...["-fsanitize=alignment", "-DLLM_EMULATED", "-Wall", "-Wextra", "-Wno-unknown-pragmas"],
  ...["-Wno-psabi", `-I${EMULATION}`, `-I${KERNELS}`, `-I${join(ROOT, "c")}`],
]

// Static arrays in shared memory stand between bytes that nobody may touch, as other variables do.
const SANITIZERS = ["-fsanitize=address", "-fsanitize-sections=emulated_shared", "-g1"]

interface Unit {
  source: string
  object: string
  flags: string[]
}

/** The C++ compiler: $CXX, or the one of gcc or clang; undefined where there is none. */
export function findCxxCompiler(): string | undefined {
  const candidates = process.env.CXX ? [process.env.CXX] : ["g++", "clang++", "c++"]
  return candidates.find((name) => spawnSync(name, ["--version"]).status === 0)
}

/** Builds a library if it is missing or older than its sources. Returns why there is none. */
export async function buildEmulatedCuda(
  log: (line: string) => void,
  library = EMULATED_CUDA,
): Promise<{ missing?: string }> {
  const isSanitized = library === SANITIZED_CUDA
  const dir = join(DIR, isSanitized ? "cuda-sanitized" : "cuda")
  const sanitizers = isSanitized ? SANITIZERS : []
  mkdirSync(dir, { recursive: true })
  const all = units(dir)
  const newest = (paths: string[]) => Math.max(...paths.map((path) => statSync(path).mtimeMs))
  const headers = [KERNELS, EMULATION, join(ROOT, "c")].flatMap((dir) => files(dir, ".h"))
  const common = newest([...headers, INIT, import.meta.path])
  const stale = all.filter(({ source, object }) => {
    return !existsSync(object) || statSync(object).mtimeMs < Math.max(common, newest([source]))
  })
  const objects = all.map(({ object }) => object)
  const isLinked = () => existsSync(library) && statSync(library).mtimeMs >= newest(objects)
  if (stale.length === 0 && isLinked()) return {}
  const compiler = findCxxCompiler()
  if (!compiler) return { missing: "no C++ compiler found (on Debian: apt install g++)" }
  const names = stale.map(({ object }) => basename(object, ".o"))
  log(`${compiler}: cuda → ${basename(library)} (${names.join(", ")})`)
  const compileSome = async () => {
    for (let unit = stale.shift(); unit; unit = stale.shift()) {
      const flags = [...FLAGS, ...unit.flags, ...sanitizers]
      await make(unit.object, [compiler, ...flags, "-c", unit.source])
    }
  }
  await Promise.all(Array.from({ length: AT_ONCE }, compileSome))
  await make(library, [compiler, "-shared", "-Wl,-Bsymbolic", ...sanitizers, ...objects])
  return {}
}

const files = (dir: string, extension: string) =>
  readdirSync(dir)
    .filter((name) => name.endsWith(extension))
    .map((name) => join(dir, name))

function units(dir: string): Unit[] {
  return [...files(KERNELS, ".cu"), ...files(EMULATION, ".cpp")].flatMap((source) => {
    const isKernel = source.startsWith(KERNELS)
    const name = `${isKernel ? "" : "test-"}${basename(source).replace(/\.\w+$/, "")}`
    // What runs the fibers counts; of kernels, more than -O1 takes long to compile.
    const level = isKernel ? "-O1" : "-O3"
    const own = { source, object: join(dir, `${name}.o`), flags: [level] }
    if (!readFileSync(source, "utf8").includes("REAL(")) return [own]
    const object = join(dir, `${name}_bf16.o`)
    return [own, { source, object, flags: [level, "-DLLM_BF16"] }]
  })
}

/** Runs a command that writes `target`, which appears when it is whole. */
async function make(target: string, command: string[]): Promise<void> {
  const temporary = join(dirname(target), `.${process.pid}.${basename(target)}`)
  const run = Bun.spawn([...command, "-o", temporary], { stderr: "pipe" })
  const messages = await new Response(run.stderr).text()
  if ((await run.exited) !== 0) throw new Error(`${command.join(" ")}:\n${messages}`)
  renameSync(temporary, target)
}
