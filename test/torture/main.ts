// `bun run torture [MINUTES]`: kills runs for an hour, or so many minutes.

import { buildExecutable } from "../cli/executable.ts"
import { torture } from "./torture.ts"

const minutes = Number(process.argv[2] ?? 60)
const seed = Number(process.env.LLM_SEED ?? Date.now() % 2 ** 32)
await buildExecutable()
console.log(`${minutes} minutes, seed ${seed}`)
const end = performance.now() + minutes * 60_000
const toll = await torture(
  seed,
  () => performance.now() >= end,
  ({ runs, kills, amidWriting }, variant) => {
    console.log(`run ${runs} (${variant}): ${kills} kills so far, ${amidWriting} amid writing`)
  },
)
console.log(`${toll.runs} runs came out the same, after ${toll.kills} kills`)
