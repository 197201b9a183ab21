// Where cuBLASLt is: half a gigabyte that is no part of this executable. It comes with CUDA's toolkit
// and with PyTorch, and by itself from PyPI.

import { dlopen } from "bun:ffi"
import { existsSync, readdirSync, readFileSync, realpathSync } from "node:fs"
import { delimiter, dirname, join } from "node:path"

const VERSIONS = ["13", "12"]
export const GET_CUBLASLT =
  "pip install nvidia-cublas, or nvidia-cublas-cu12 for CUDA 12; or name its folder by LLM_CUDA_PATH"

/** The path of a cuBLASLt that this process can load, or why there is none. */
export function findCublasLt(): { path: string } | { missing: string } {
  const loaded = loadedFile()
  if (loaded) return { path: loaded }
  const failures: string[] = []
  for (const candidate of candidates()) {
    try {
      dlopen(candidate, { cublasLtGetVersion: { args: [], returns: "u64" } })
      return { path: loadedFile() ?? candidate }
    } catch (error) {
      if (candidate.includes("/")) failures.push((error as Error).message)
    }
  }
  const why = failures[0] ? `: ${failures[0]}` : ""
  return { missing: `cuBLASLt is missing${why} (${GET_CUBLASLT})` }
}

/** The file that is loaded already. */
function loadedFile(): string | undefined {
  const maps = readFileSync("/proc/self/maps", "utf8")
  return /\/\S*\/libcublasLt\.so\.\d[\d.]*$/m.exec(maps)?.[0]
}

/** Files, and names that the loader knows where to find, in the order of trial. */
function* candidates(): Generator<string> {
  const { LLM_CUDA_PATH, CUDA_HOME } = process.env
  const toolkits = list("/usr/local").filter((name) => name.startsWith("cuda"))
  const own = LLM_CUDA_PATH ? [LLM_CUDA_PATH, join(LLM_CUDA_PATH, "lib64")] : []
  yield* files(own)
  yield* names() // by LD_LIBRARY_PATH and the system's own folders
  yield* files([
    ...toolkits.map((name) => join("/usr/local", name, "lib64")),
    ...["/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib64"],
    ...wheels(),
    ...(CUDA_HOME ? [join(CUDA_HOME, "lib64"), join(CUDA_HOME, "lib")] : []),
  ])
}

const names = () => VERSIONS.map((version) => `libcublasLt.so.${version}`)

const files = (folders: string[]) =>
  folders.flatMap((folder) => names().map((name) => join(folder, name))).filter(existsSync)

/** The folders of Python's wheels, those of the interpreters at hand first. */
function wheels(): string[] {
  const packages = prefixes().flatMap((prefix) =>
    list(join(prefix, "lib")).flatMap((name) =>
      /^python3/.test(name)
        ? ["site-packages", "dist-packages"].map((each) => join(prefix, "lib", name, each))
        : [],
    ),
  )
  return packages.flatMap((folder) =>
    ["cu13", "cublas"].map((name) => join(folder, "nvidia", name, "lib")),
  )
}

/** Where Pythons live: the environment that is active, what PATH leads to, as it is named and as links
 * resolve, the user's own packages, and pyenv's versions, to which PATH leads by a script. */
function prefixes(): string[] {
  const { VIRTUAL_ENV, CONDA_PREFIX, PATH = "", HOME = "" } = process.env
  const interpreters = PATH.split(delimiter).flatMap((folder) =>
    ["python3", "python"].map((name) => join(folder, name)).filter(existsSync),
  )
  const real = interpreters.flatMap((path) => [path, realpathSync(path)])
  const versions = join(HOME, ".pyenv", "versions")
  return [
    ...[VIRTUAL_ENV, CONDA_PREFIX].filter((prefix) => prefix !== undefined),
    ...real.map((path) => dirname(dirname(path))),
    join(HOME, ".local"),
    "/usr/local",
    ...list(versions).map((name) => join(versions, name)),
  ]
}

function list(folder: string): string[] {
  try {
    return readdirSync(folder).sort()
  } catch {
    return []
  }
}
