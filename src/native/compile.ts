// `cc`, TinyCC inside Bun: compiles the emitted program and the reference kernels in milliseconds.
// No file of libc's development package is needed: the sources include no system header, and the
// two names that TinyCC looks for, libm.so and libc.so, are links to the run-time libraries.

import { cc } from "bun:ffi"
import { randomBytes } from "node:crypto"
import { existsSync, mkdirSync, readlinkSync, renameSync, symlinkSync } from "node:fs"
import { basename, dirname, join } from "node:path"
import { assert, UserError } from "../errors.ts"
import { assetNames, assetPaths, cacheDir, readAsset, unpack } from "./assets.ts"
import type { Signature } from "./contract.ts"
import { ffiSymbols, type NativeFunctions } from "./functions.ts"

const TRIPLET = process.arch === "arm64" ? "aarch64-linux-gnu" : "x86_64-linux-gnu" // Debian's
const LIBRARY_FOLDERS = [`/lib/${TRIPLET}`, `/usr/lib/${TRIPLET}`]
  .concat("/lib64", "/usr/lib64", "/lib", "/usr/lib")
  .concat(`/usr/${TRIPLET}/lib`) // of another architecture, which is emulated

/** A folder with libm.so and libc.so. */
async function linkFolder(): Promise<string> {
  const dir = join(await cacheDir(), "link")
  mkdirSync(dir, { recursive: true, mode: 0o700 })
  for (const name of ["libm.so", "libc.so"]) {
    const target = LIBRARY_FOLDERS.map((folder) => join(folder, `${name}.6`)).find(existsSync)
    if (!target) throw new UserError(`${name}.6 is in none of ${LIBRARY_FOLDERS.join(", ")}`)
    const link = join(dir, name)
    if (pointsAt(link) === target) continue
    // Absent, or another machine's that has the same home.
    const temporary = `${link}.${randomBytes(6).toString("hex")}.tmp`
    symlinkSync(target, temporary)
    renameSync(temporary, link)
  }
  return dir
}

function pointsAt(link: string): string | undefined {
  try {
    return readlinkSync(link)
  } catch {
    return undefined
  }
}

/** Paths of the reference kernels' sources, and of a second file for each that llm.h's REAL asks to be
 * compiled twice. */
export async function referenceSources(): Promise<string[]> {
  const names = assetNames().filter((name) => name.endsWith(".c"))
  const again = await Promise.all(
    names.map(async (name) => secondKind(name, await readAsset(name))),
  )
  return [...(await assetPaths(names)), ...again.flat()]
}

async function secondKind(name: string, content: Uint8Array): Promise<string[]> {
  const text = bf16Source(name, new TextDecoder().decode(content))
  return text
    ? [unpack(await cacheDir(), `bf16_${basename(name)}`, new TextEncoder().encode(text))]
    : []
}

/** The file that compiles a source in its bf16 kind; undefined where it has none. */
export function bf16Source(path: string, text: string): string | undefined {
  return text.includes("REAL(") ? `#define LLM_BF16\n#include "${path}"\n` : undefined
}

/** Compiles C files, links them with a prebuilt library when one is given (path of lib*.so), and
 * returns the functions named by the signatures. */
export async function compile(
  sources: string[],
  signatures: Iterable<Signature>,
  libraryPath?: string,
): Promise<NativeFunctions> {
  const headers = assetNames().filter((name) => name.endsWith(".h"))
  const [headerPath] = await assetPaths(headers)
  assert(headerPath, "no llm.h among the assets")
  const include = new Set((await assetPaths(headers)).map((path) => dirname(path)))
  const flags = ["-nostdlib", `-L${await linkFolder()}`]
  for (const dir of include) flags.push(`-I${dir}`)
  const library = ["m"]
  if (libraryPath) {
    const name = /lib([^/]+)\.so$/.exec(libraryPath)?.[1]
    assert(name, `${libraryPath} is not a lib*.so`)
    flags.push(`-L${dirname(libraryPath)}`)
    library.unshift(name)
  }
  const { symbols } = cc({
    // bun-types knows one source only; several are compiled into one program.
    source: sources as unknown as string,
    flags,
    library,
    symbols: ffiSymbols(signatures),
  })
  return symbols as unknown as NativeFunctions
}
