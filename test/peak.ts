// The most memory that a program of its own takes.

import { readFile } from "node:fs/promises"

/** Runs a script, and watches it. Not by resourceUsage(), which counts what this process had when it
 * forked. */
export async function peakOf(script: string): Promise<{ stdout: string; peakBytes: number }> {
  const child = Bun.spawn([process.execPath, "-e", script], { stdout: "pipe" })
  let peakBytes = 0
  while (child.exitCode === null) {
    const status = await readFile(`/proc/${child.pid}/status`, "utf8").catch(() => "")
    peakBytes = 1024 * Number(/VmHWM:\s*(\d+)/.exec(status)?.[1] ?? peakBytes / 1024)
    await Bun.sleep(10)
  }
  if (child.exitCode !== 0) throw new Error(`the script ended with ${child.exitCode}`)
  return { stdout: await new Response(child.stdout).text(), peakBytes }
}
