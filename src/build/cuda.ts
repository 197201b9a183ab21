// Builds the CUDA kernel library ahead of time, where nvcc is: every source once for each kind of
// `real`, for every architecture, two at a time. A GPU is not needed.
//
// While developing, LLM_CUDA_ARCHS=90a (a list by commas) builds for those alone, and LLM_CUDA_ARCHS=none
// leaves the library that is there as it is.

import { spawnSync } from "node:child_process"
import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, statSync } from "node:fs"
import { basename, join } from "node:path"
import { UserError } from "../errors.ts"
import { NATIVE_BUILD_DIR } from "../native/assets.ts"
import { CUDA_FILE } from "../native/library.ts"
import { findCompiler } from "./native.ts"

const ROOT = join(import.meta.dir, "..", "..")
export const CUDA_SOURCES = join(ROOT, "cuda")
export const INIT = join(ROOT, "c", "reference", "init.c") // that cuda/init.cu includes
const TARGET = join(NATIVE_BUILD_DIR, CUDA_FILE)

// Ampere, Ada, Hopper with its own instructions, Blackwell; what comes later compiles the last one's
// PTX when it first runs it.
const ARCHITECTURES = ["80", "89", "90a", "100"]
const OLDEST = 80 // it has the instructions that the kernels are made of
const PTX = ["100", "90"] // the first that this nvcc knows
const VERSIONS = [12, 13]
const AT_ONCE = 2

// A kernel that calls another means this library's, whatever else the process has loaded by that name.
const OWN = "-Bsymbolic"
// Of C++'s run-time nothing is needed: the library loads where there is only glibc. New weights are the
// same bits wherever they are drawn, so that no product and sum of theirs may become one operation.
const HOST = ["-fPIC", "-fvisibility=hidden", "-fno-exceptions", "-fno-rtti"]
  .concat("-fno-threadsafe-statics", "-ffp-contract=off")
  .join()
const FLAGS = ["-std=c++17", "-O3", `-I${join(ROOT, "c")}`, "-Xcompiler", HOST]
// Registers, spills and shared memory of every kernel, kept beside the object.
const TELL = "-Xptxas=-v"
export const TOLD = ".ptxas.txt"
const LINK = [
  "-shared",
  "-cudart=static",
  `-Xlinker=--as-needed,--exclude-libs=ALL,-znoexecstack,${OWN}`,
]

/** A source in one of its kinds. */
interface Unit {
  source: string
  object: string
  flags: string[]
}

/** Builds the library if it is missing or older than its sources. Returns why there is none, or the
 * folder of what it was made of. */
export async function buildCuda(
  log: (line: string) => void,
): Promise<{ missing?: string; folder?: string }> {
  const asked = process.env.LLM_CUDA_ARCHS
  if (asked === "none") return existsSync(TARGET) ? {} : { missing: "LLM_CUDA_ARCHS is none" }
  const found = findNvcc()
  if ("missing" in found) return found
  const { nvcc, known } = found
  const chosen = asked === undefined ? usual(known) : chooseArchitectures(asked, known)
  const ptx = asked === undefined ? PTX.find((arch) => known.includes(arch)) : undefined
  const codes = chosen.map((arch) => `-gencode=arch=compute_${arch},code=sm_${arch}`)
  if (ptx) codes.push(`-gencode=arch=compute_${ptx},code=compute_${ptx}`)

  // By what they are compiled for: who narrows that does not lose what was compiled before.
  const folder = join(NATIVE_BUILD_DIR, "cuda", [...chosen, ptx ? `ptx${ptx}` : "no-ptx"].join("-"))
  mkdirSync(folder, { recursive: true })
  const all = units(folder)
  const stale = all.filter((unit) => !isFresh(unit))
  const library = join(folder, CUDA_FILE)
  const newest = () => Math.max(...all.map(({ object }) => statSync(object).mtimeMs))
  if (stale.length > 0) {
    const names = stale.map(({ object }) => basename(object, ".o")).join(", ")
    log(`${nvcc}: cuda for ${[...chosen, ...(ptx ? ["later"] : [])].join(", ")}: ${names}`)
    await compileAll(nvcc, codes, stale)
  }
  if (!existsSync(library) || statSync(library).mtimeMs < newest()) {
    await run(nvcc, [...LINK, "-o", library, ...all.map(({ object }) => object)])
  }
  const isOurs = existsSync(TARGET) && readFileSync(TARGET).equals(readFileSync(library))
  if (!isOurs) {
    await Bun.write(`${TARGET}.tmp`, Bun.file(library))
    renameSync(`${TARGET}.tmp`, TARGET)
  }
  return { folder }
}

const digits = (arch: string) => arch.replace(/\D/g, "")
const usual = (known: string[]) => ARCHITECTURES.filter((arch) => known.includes(digits(arch)))

/** The architectures of a list by commas, of those that nvcc knows. Not 90 without the a: a Hopper would
 * run kernels that are empty where they take instructions of its own. */
export function chooseArchitectures(asked: string, known: string[]): string[] {
  const able = known.filter((arch) => Number(arch) >= OLDEST).map((a) => (a === "90" ? "90a" : a))
  const chosen = asked.split(",").map((arch) => arch.trim())
  const strange = chosen.find((arch) => {
    return !/^\d+[af]?$/.test(arch) || !(able.includes(arch) || able.includes(digits(arch)))
  })
  if (strange === undefined) return chosen
  throw new UserError(
    `LLM_CUDA_ARCHS: "${strange}" is no architecture for these kernels and this nvcc (try ${able.join(", ")}; none builds without)`,
  )
}

/** nvcc, and the architectures that it knows by number; or why there is none. */
function findNvcc(): { nvcc: string; known: string[] } | { missing: string } {
  if (!findCompiler()) return { missing: "nvcc needs a C compiler" }
  const folders = [process.env.CUDA_HOME, "/usr/local/cuda"].filter(
    (folder) => folder !== undefined,
  )
  const candidates = ["nvcc", ...folders.map((folder) => join(folder, "bin", "nvcc"))]
  const ask = (name: string, question: string) =>
    spawnSync(name, [question], { encoding: "utf8" }).stdout ?? ""
  const nvcc = candidates.find((name) => ask(name, "--version") !== "")
  if (!nvcc) return { missing: "no nvcc (install CUDA's toolkit 13, or 12; build again)" }
  const version = Number(/release (\d+)\./.exec(ask(nvcc, "--version"))?.[1])
  if (!VERSIONS.includes(version)) {
    return { missing: `${nvcc} is of CUDA ${version} (install CUDA's toolkit 13, or 12)` }
  }
  const known = ask(nvcc, "--list-gpu-arch").matchAll(/compute_(\d+)/g)
  return { nvcc, known: [...known].map(([, arch]) => arch!) }
}

function units(folder: string): Unit[] {
  const names = readdirSync(CUDA_SOURCES).filter((name) => name.endsWith(".cu"))
  return names.flatMap((name) => {
    const source = join(CUDA_SOURCES, name)
    const object = (suffix: string) => join(folder, `${basename(name, ".cu")}${suffix}.o`)
    const own: Unit = { source, object: object(""), flags: [] }
    const hasBf16 = readFileSync(source, "utf8").includes("REAL(")
    return hasBf16 ? [own, { source, object: object("_bf16"), flags: ["-DLLM_BF16"] }] : [own]
  })
}

function isFresh({ source, object }: Unit): boolean {
  if (!existsSync(object)) return false
  const headers = readdirSync(CUDA_SOURCES).filter((name) => name.endsWith(".h"))
  const inputs = [source, join(ROOT, "c", "llm.h"), INIT, import.meta.path].concat(
    headers.map((name) => join(CUDA_SOURCES, name)),
  )
  return inputs.every((input) => statSync(input).mtimeMs < statSync(object).mtimeMs)
}

async function compileAll(nvcc: string, codes: string[], units: Unit[]): Promise<void> {
  const left = [...units]
  const work = async () => {
    for (let unit = left.shift(); unit; unit = left.shift()) {
      const { source, object, flags } = unit
      const options = [...codes, ...FLAGS, TELL, ...flags]
      const told = await run(nvcc, [...options, "-c", source, "-o", `${object}.tmp`])
      await Bun.write(object.replace(/\.o$/, TOLD), told)
      renameSync(`${object}.tmp`, object)
    }
  }
  await Promise.all(Array.from({ length: AT_ONCE }, work))
}

async function run(nvcc: string, args: string[]): Promise<string> {
  const child = Bun.spawn([nvcc, ...args], { stdout: "pipe", stderr: "pipe" })
  const [out, errors] = await Promise.all([
    new Response(child.stdout).text(),
    new Response(child.stderr).text(),
  ])
  if ((await child.exited) !== 0) throw new Error(`${nvcc} ${args.join(" ")}:\n${out}${errors}`)
  return out + errors
}
