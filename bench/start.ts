// `bun run bench start`: how long ./llm takes to come to its first step, the file cache warm, and
// how much of that is reading the weights.

import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { duration, median, table } from "../src/bench/table.ts"
import { UserError } from "../src/errors.ts"
import { writeModel } from "../src/formats/model.ts"
import { writeTokens } from "../src/formats/tokens.ts"
import type { Config } from "../src/model/config.ts"
import { initialize } from "../src/model/initialize.ts"
import { decodeProgram, describeConfig } from "../src/model/program.ts"
import { loadWeights, places } from "../src/model/weights.ts"
import type { Kernels } from "../src/native/library.ts"
import { Program } from "../src/program/link.ts"
import { openBin } from "../src/weights/bin.ts"

const ROOT = join(import.meta.dir, "..")
const LLM = join(ROOT, "llm")
const SEED = 42
const TOKENS = 1_000_000
const RUNS = 7
const LAST_LINE = /^arena /m // of what train says before its first step
const ONE_STEP = "--steps 1 --val-every 0 --sample-every 0".split(" ")

/** A table of start-up times; builds ./llm first, with the GPU's kernels as they are. */
export async function benchStart(kernels: Kernels, init: string, config: Config): Promise<string> {
  const env = { LLM_CUDA_ARCHS: "none", ...process.env }
  const build = Bun.spawnSync([process.execPath, "src/build/build.ts"], { cwd: ROOT, env })
  if (!build.success) throw new UserError(`the build failed: ${build.stderr}`)
  const dir = mkdtempSync(join(tmpdir(), "llm-start-"))
  const [tokens, model] = [join(dir, "tokens.bin"), join(dir, "model.bin")]
  try {
    writeTokens(
      tokens,
      Uint16Array.from({ length: TOKENS }, (_, i) => (i * 31) % config.V),
    )
    const reading = await writeAndRead(kernels, config, model)
    const toFirstStep = (...args: string[]) => repeat(["train", ...args, ...ONE_STEP], LAST_LINE)
    const times: [string, number[]][] = [
      ["llm --help", await repeat(["--help"])],
      ["llm train --help", await repeat(["train", "--help"])],
      ["llm train TOKENS --init FILE, to the first step", await toFirstStep(tokens, "-e", model)],
      ["reading the weights alone", reading],
      [`llm train TOKENS --init ${init}, to the first step`, await toFirstStep(tokens, "-e", init)],
      ["llm train, to the first step (small model, built-in corpus)", await toFirstStep()],
    ]
    const rows = times.map(([what, ms]) => {
      return [what, ...[median(ms), Math.min(...ms), Math.max(...ms)].map(duration)]
    })
    const shape = `${describeConfig(config)}; ${kernels.name}; ${RUNS} runs each`
    return `${shape}\n\n${table(["what", "median:", "best:", "worst:"], rows)}`
  } finally {
    rmSync(dir, { recursive: true })
  }
}

/** Milliseconds of ./llm, each run to its end or until its output matches. */
async function repeat(args: string[], until?: RegExp): Promise<number[]> {
  await timeOnce(args, until) // fills the caches
  const times: number[] = []
  while (times.length < RUNS) times.push(await timeOnce(args, until))
  return times
}

async function timeOnce(args: string[], until?: RegExp): Promise<number> {
  const start = performance.now()
  const child = Bun.spawn([LLM, ...args], { stdout: "pipe", stderr: "inherit" })
  let text = ""
  let ms = 0
  for await (const bytes of child.stdout) {
    text += new TextDecoder().decode(bytes)
    if (!until?.test(text)) continue
    ms = performance.now() - start
    child.kill()
    break
  }
  await child.exited
  if (until && ms === 0) throw new UserError(`llm ${args.join(" ")} ended before its first step`)
  return until ? ms : performance.now() - start
}

/** Writes a model file; milliseconds of reading it into fresh memory, as train does. */
async function writeAndRead(kernels: Kernels, config: Config, path: string): Promise<number[]> {
  const tensors = decodeProgram(config)
  const times: number[] = []
  for (let run = -1; run < RUNS; run++) {
    const program = await Program.link(tensors, kernels)
    if (run < 0) {
      initialize(program, tensors, config, kernels, SEED)
      writeModel(path, config, [...places(program, tensors.parameters, config)])
    } else {
      const start = performance.now()
      const source = openBin(path)
      loadWeights(source, program, tensors, kernels)
      source.close()
      times.push(performance.now() - start)
    }
    program.free()
  }
  return times
}
