// ./llm as a person runs it, built when it is missing or older than what it is made of.

import { readdirSync, statSync } from "node:fs"
import { join } from "node:path"

export const ROOT = join(import.meta.dir, "..", "..")
export const LLM = join(ROOT, "llm")

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
  const { code, stderr } = await run([process.execPath, "src/build/build.ts"])
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
  } = {},
): Promise<Ran> {
  const child = Bun.spawn(command, { cwd: ROOT, stdout: "pipe", stderr: "pipe", ...options })
  const [stdout, stderr] = await Promise.all([
    new Response(child.stdout).text(),
    new Response(child.stderr).text(),
  ])
  return { code: await child.exited, stdout, stderr }
}
