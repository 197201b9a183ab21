// `bun run torture` does the same for an hour.

import { beforeAll, expect, test } from "bun:test"
import { buildExecutable } from "../cli/executable.ts"
import { torture } from "./torture.ts"

const KILLS = 50
const TIMEOUT_MS = 600_000

beforeAll(buildExecutable, TIMEOUT_MS)

test(
  `${KILLS} kills at random moments leave no trace in what comes out`,
  async () => {
    const seed = Number(process.env.LLM_SEED ?? Date.now() % 2 ** 32)
    const toll = await torture(seed, ({ runs, kills }) => kills >= KILLS && runs >= 5)
    console.error(`seed ${seed}: ${JSON.stringify(toll)}`)
    expect(toll.kills).toBeGreaterThanOrEqual(KILLS)
    // Otherwise the test would not be of writing at all.
    expect(toll.amidWriting).toBeGreaterThan(0)
  },
  TIMEOUT_MS,
)
