// A folder with small tokens in three shards, and the executable that trains on them.

import { afterAll, beforeAll } from "bun:test"
import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { writeTokens } from "../../src/formats/tokens.ts"
import { buildExecutable, LLM, run, TRAIN, writeSmallTokens } from "./executable.ts"

export const TIMEOUT_MS = 120_000
const SHARDS = ["--val", "small_val.bin", ...TRAIN.slice(2)]

/** Made for the test file that calls this, and removed after it. */
export function shardedFolder(name: string) {
  const dir = mkdtempSync(join(tmpdir(), `llm-${name}-`))
  const path = (file: string) => join(dir, file)
  beforeAll(async () => {
    await buildExecutable()
    const tokens = writeSmallTokens(dir)
    for (const [i, end] of [300, 900, 1100].entries()) {
      writeTokens(path(`shard_${i}.bin`), tokens.subarray(i * 200, end))
    }
  }, TIMEOUT_MS)
  afterAll(() => rmSync(dir, { recursive: true }))
  return {
    dir,
    path,
    llm: (args: string, ...more: string[]) => run([LLM, ...args.split(" "), ...more], { cwd: dir }),
    train: (args: string) =>
      run([LLM, "train", "shard_*.bin", ...SHARDS, ...args.split(" ")], { cwd: dir }),
  }
}
