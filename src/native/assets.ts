// The files that travel inside the executable: the contract, the reference kernels' source, and the
// prebuilt libraries. `cc` and the dynamic loader read real files only, so they are unpacked once
// into a cache folder named by their content; run from a checkout, they are used where they lie.

import { createHash, randomBytes } from "node:crypto"
import {
  constants,
  fstatSync,
  lstatSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  realpathSync,
  renameSync,
  writeFileSync,
} from "node:fs"
import { tmpdir } from "node:os"
import { basename, join } from "node:path"
import { reason } from "../data/files.ts"
import { assert, UserError } from "../errors.ts"

const ROOT = join(import.meta.dir, "..", "..")
// By architecture: a checkout may serve two machines, or one and another that is emulated on it.
const BUILD_DIR = join(ROOT, "build", process.arch)
export const NATIVE_BUILD_DIR = join(BUILD_DIR, "native")

const embedded = Bun.embeddedFiles as (Blob & { name: string })[]
const isCompiled = embedded.length > 0

/** Names of all assets: llm.h, the reference's *.c and *.h, and the *.so files that were built. */
export function assetNames(): string[] {
  if (isCompiled) return embedded.map((file) => basename(file.name))
  return [...checkoutPaths().keys()]
}

function checkoutPaths(): Map<string, string> {
  const list = (dir: string) => {
    try {
      return readdirSync(dir).map((name) => join(dir, name))
    } catch {
      return [] // nothing built yet: the caller reports the missing asset by name
    }
  }
  const paths = [
    join(ROOT, "c", "llm.h"),
    ...list(join(ROOT, "c", "reference")),
    ...list(NATIVE_BUILD_DIR).filter((path) => /\.so(\.\d+)?$/.test(path)),
  ]
  return new Map(paths.map((path) => [basename(path), path]))
}

/** An asset's bytes. */
export async function readAsset(name: string): Promise<Uint8Array> {
  if (!isCompiled) {
    const path = checkoutPaths().get(name)
    assert(path, `no asset ${name}`)
    return readFileSync(path)
  }
  const file = embedded.find((candidate) => basename(candidate.name) === name)
  assert(file, `no asset ${name}`)
  return new Uint8Array(await file.arrayBuffer())
}

/** Paths of the named assets as real files. */
export async function assetPaths(names: string[]): Promise<string[]> {
  if (!isCompiled) {
    const paths = checkoutPaths()
    return names.map((name) => {
      const path = paths.get(name)
      assert(path, `no asset ${name}`)
      return path
    })
  }
  const dir = await cacheDir()
  return Promise.all(names.map(async (name) => unpack(dir, name, await readAsset(name))))
}

/** Makes sure that dir/name holds exactly these bytes. Returns its path. */
export function unpack(dir: string, name: string, content: Uint8Array): string {
  const path = join(dir, name)
  try {
    if (isOwn(path) && Buffer.compare(readFileSync(path), content) === 0) return path
  } catch {
    // absent: written below
  }
  const temporary = `${path}.${randomBytes(6).toString("hex")}.tmp`
  try {
    writeFileSync(temporary, content, { mode: 0o600 })
    renameSync(temporary, path)
  } catch (error) {
    const named = join(realpathSync(dir), name)
    throw new UserError(`${named}: cannot unpack: ${reason(error)} (${CACHE_HINT})`)
  }
  return path
}

// By a link that was laid when the folder was less strict, somebody could change what was compared.
function isOwn(path: string): boolean {
  const stats = lstatSync(path)
  return stats.isFile() && stats.nlink === 1 && belongsToUser(stats)
}

function belongsToUser({ uid, mode }: { uid: number; mode: number }): boolean {
  return uid === process.getuid!() && (mode & 0o022) === 0
}

const CACHE_HINT = "set LLM_CACHE to a folder that you can write"

let cache: Promise<string> | undefined
/** The folder for unpacked and generated files, mode 0700, named by what the executable holds: a path
 * to the folder itself as it was opened and checked, for this process. Whoever may write in a folder
 * above it can put another in its place, but not here. */
export function cacheDir(): Promise<string> {
  cache ??= makeCacheDir()
  return cache
}

async function makeCacheDir(): Promise<string> {
  const dir = isCompiled ? join(cacheRoot(), await contentHash()) : join(BUILD_DIR, "cache")
  let folder: number
  try {
    mkdirSync(dir, { recursive: true, mode: 0o700 })
    folder = openSync(dir, constants.O_RDONLY | constants.O_DIRECTORY | constants.O_NOFOLLOW)
  } catch (error) {
    throw new UserError(`${dir}: cannot make the cache folder: ${reason(error)} (${CACHE_HINT})`)
  }
  // Libraries are loaded from here: nobody else may be able to replace them.
  if (!belongsToUser(fstatSync(folder))) {
    throw new UserError(
      `${dir}: the cache folder belongs to, or is writable by, someone else (${CACHE_HINT})`,
    )
  }
  return `/proc/self/fd/${folder}`
}

async function contentHash(): Promise<string> {
  const hash = createHash("sha256")
  for (const name of assetNames().sort()) hash.update(name).update(await readAsset(name))
  return hash.digest("hex").slice(0, 32)
}

function cacheRoot(): string {
  const { LLM_CACHE, XDG_CACHE_HOME, HOME } = process.env
  if (LLM_CACHE) return LLM_CACHE
  if (XDG_CACHE_HOME) return join(XDG_CACHE_HOME, "llm")
  if (HOME) return join(HOME, ".cache", "llm")
  return join(tmpdir(), `llm-${process.getuid!()}`)
}
