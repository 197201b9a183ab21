// ./llm as a person runs it, built when it is missing or older than what it is made of.

import { readdirSync, statSync } from "node:fs"
import { join } from "node:path"
import { writeTokens } from "../../src/formats/tokens.ts"

export const ROOT = join(import.meta.dir, "..", "..")
export const LLM = join(ROOT, "llm")

export const SHAPE = "--layers 2 --heads 2 --channels 16 --vocab 97 --batch 2 --context 8".split(
  " ",
)
/** A run that takes no time a step, on the tokens of writeSmallTokens. */
export const TRAIN = [
  "train",
  "small_train.bin",
  ...SHAPE,
  "--val-every",
  "2",
  "--sample-every",
  "3",
]

/** Writes small_train.bin, whose tokens are returned, and small_val.bin. */
export function writeSmallTokens(dir: string): Uint16Array {
  const tokens = Uint16Array.from({ length: 4000 }, (_, i) => (i * i + 3 * i) % 97)
  writeTokens(join(dir, "small_train.bin"), tokens)
  writeTokens(join(dir, "small_val.bin"), tokens.subarray(0, 400))
  return tokens
}

function newest(path: string): number {
  const stats = statSync(path)
  if (!stats.isDirectory()) return stats.mtimeMs
  return Math.max(...readdirSync(path).map((name) => newest(join(path, name))))
}

/** Builds ./llm if need be. */
export async function buildExecutable(): Promise<void> {
  const sources = Math.max(...["src", "c", "package.json"].map((path) => newest(join(ROOT, path))))
  const built = statSync(LLM, { throwIfNoEntry: false })?.mtimeMs ?? 0
  if (built > sources) return
  // nvcc takes minutes: the kernels for a GPU are those that somebody has built.
  const env = { LLM_CUDA_ARCHS: "none", ...process.env }
  const { code, stderr } = await run([process.execPath, "src/build/build.ts"], { env })
  if (code !== 0) throw new Error(`the build failed: ${stderr}`)
}

export interface Ran {
  code: number
  stdout: string
  stderr: string
}

/** Runs a command to its end. */
export async function run(
  command: string[],
  options: {
    cwd?: string
    env?: Record<string, string | undefined>
    uid?: number
    gid?: number
    stdin?: Blob
  } = {},
): Promise<Ran> {
  const child = Bun.spawn(command, { cwd: ROOT, stdout: "pipe", stderr: "pipe", ...options })
  const [stdout, stderr] = await Promise.all([
    new Response(child.stdout).text(),
    new Response(child.stderr).text(),
  ])
  return { code: await child.exited, stdout, stderr }
}
