// `npm start`: builds ./llm, and trains on the built-in corpus what two cores can in two minutes.

import { spawnSync } from "node:child_process"
import { join } from "node:path"
import { bestCpuLibrary } from "../native/library.ts"
import { demo } from "./demo.ts"

const root = join(import.meta.dir, "..", "..")
await import("./build.ts")
const isFast = (await bestCpuLibrary()) !== undefined
if (!isFast)
  console.error("a tiny model instead of the demo's: the reference kernels are that slow")
const { status } = spawnSync(join(root, "llm"), ["train", ...demo(isFast)], { stdio: "inherit" })
process.exitCode = status ?? 1
