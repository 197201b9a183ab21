// Where a library of NVIDIA's is that is no part of this executable, for its size: in a folder that the user
// names, among the system's libraries, in CUDA's toolkit, in a wheel of Python's.

import { dlopen } from "bun:ffi"
import { existsSync, readdirSync, readFileSync, realpathSync } from "node:fs"
import { delimiter, dirname, join } from "node:path"

export interface Wanted {
  /** "libnccl.so"; with one of the versions behind it the file's name, in the order of trial. */
  file: string
  versions: string[]
  /** The wheels that bring it: folders of Python's package `nvidia`. */
  wheels: string[]
  /** A function that it has. */
  symbol: string
}

/** The path of a file that this process can load; or why those that are there cannot be, if any is. */
export function findLibrary(wanted: Wanted): { path: string } | { failure?: string } {
  const loaded = loadedFile(wanted.file)
  if (loaded) return { path: loaded }
  const failures: string[] = []
  for (const candidate of candidates(wanted)) {
    try {
      dlopen(candidate, { [wanted.symbol]: { args: [], returns: "void" } })
      return { path: loadedFile(wanted.file) ?? candidate }
    } catch (error) {
      if (candidate.includes("/")) failures.push((error as Error).message)
    }
  }
  return { failure: failures[0] }
}

/** The file that is loaded already. */
function loadedFile(file: string): string | undefined {
  const maps = readFileSync("/proc/self/maps", "utf8")
  return new RegExp(`/\\S*/${file.replaceAll(".", "\\.")}\\.\\d[\\d.]*$`, "m").exec(maps)?.[0]
}

/** Files, and names that the loader knows where to find, in the order of trial. */
function* candidates({ file, versions, wheels }: Wanted): Generator<string> {
  const { LLM_CUDA_PATH, CUDA_HOME } = process.env
  const names = versions.map((version) => `${file}.${version}`)
  const files = (folders: string[]) =>
    folders.flatMap((folder) => names.map((name) => join(folder, name))).filter(existsSync)
  const toolkits = list("/usr/local").filter((name) => name.startsWith("cuda"))
  yield* files(LLM_CUDA_PATH ? [LLM_CUDA_PATH, join(LLM_CUDA_PATH, "lib64")] : [])
  yield* names // by LD_LIBRARY_PATH and the system's own folders
  yield* files([
    ...toolkits.map((name) => join("/usr/local", name, "lib64")),
    ...["/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib64"],
    ...wheelFolders(wheels),
    ...(CUDA_HOME ? [join(CUDA_HOME, "lib64"), join(CUDA_HOME, "lib")] : []),
  ])
}

/** The folders of Python's wheels, those of the interpreters at hand first. */
function wheelFolders(names: string[]): string[] {
  const packages = prefixes().flatMap((prefix) =>
    list(join(prefix, "lib")).flatMap((name) =>
      /^python3/.test(name)
        ? ["site-packages", "dist-packages"].map((each) => join(prefix, "lib", name, each))
        : [],
    ),
  )
  return packages.flatMap((folder) => names.map((name) => join(folder, "nvidia", name, "lib")))
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
