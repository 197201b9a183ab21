// Broken files: whatever is done to a file, its reader refuses it in one line or reads exactly what
// its bytes say. LLM_SEED=N tries other files, LLM_SEED=random others each time.

import { afterAll, describe, expect, test } from "bun:test"
import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { messageOf } from "../formats/broken.ts"
import { READERS } from "./readers.ts"

const FIXED = 20240520
const CASES = 2500 // drawn for each reader, beside the systematic ones
const LIMIT_MS = 60_000 // of a reader: it takes about one second

const given = process.env.LLM_SEED
const SEED = given === "random" ? Math.floor(Math.random() * 2 ** 32) : Number(given ?? FIXED)

const folder = mkdtempSync(join(tmpdir(), "mutation-"))
let isKept = false // for whoever looks into a failure
afterAll(() => {
  if (!isKept) rmSync(folder, { recursive: true })
})

describe.each(READERS)("$name", (reader) => {
  test(
    `mutated with seed ${SEED}, it is refused in one line or read as it stands`,
    async () => {
      const main = join(import.meta.dir, "main.ts")
      const file = join(folder, `${reader.name.replaceAll(/\W+/g, "-")}.bin`)
      const args = [reader.name, `${SEED}`, `${CASES}`, file]
      const child = Bun.spawn([process.execPath, main, ...args], {
        stdout: "pipe",
        stderr: "pipe",
        timeout: LIMIT_MS,
        killSignal: "SIGKILL",
      })
      const [out, problem] = await Promise.all([child.stdout.text(), child.stderr.text()])
      await child.exited
      const { signalCode: signal, exitCode } = child
      if (exitCode !== 0) {
        isKept = true
        throw new Error(`seed ${SEED}, ${file}: ${problem || `ended by ${signal}`}`)
      }
      const tally = JSON.parse(out)
      expect(tally.read + tally.refused).toBeGreaterThan(CASES)
      // Both answers are given often, or the files say nothing about the reader.
      expect(Math.min(tally.read, tally.refused)).toBeGreaterThan(CASES / 50)
    },
    LIMIT_MS + 10_000,
  )

  test("a folder, a missing file and a pipe are refused by name", () => {
    const missing = join(folder, "missing.bin")
    const pipe = join(folder, "pipe.bin")
    Bun.spawnSync(["mkfifo", pipe])
    for (const path of [folder, missing, ...(reader.readsPipes ? [] : [pipe])]) {
      expect(messageOf(() => reader.read(path))).toContain(path)
    }
  })
})
