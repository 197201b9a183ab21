// Picks the benchmark, reads its options, prints one error line.

import { parseArgs } from "node:util"
import { benchStep } from "../src/bench/step.ts"
import { buildNative } from "../src/build/native.ts"
import { UserError } from "../src/errors.ts"
import { preset } from "../src/model/config.ts"
import { usableCores } from "../src/native/cpu.ts"
import { bestCpuLibrary, Kernels, type LibraryName } from "../src/native/library.ts"
import { benchKernels } from "./kernels.ts"

const PASSES = 5 // call by call, of a step

const HELP = `bun run bench [NAME] [options]   every kernel whose name contains NAME, at GPT-2 124M's shapes
bun run bench step [options]     the whole training step, by phase and by kind of kernel

  --threads N       threads of the kernels (the cores this process may use)
  --library NAME    kernel library, such as x86-64-v3 (the best that this CPU runs)
  --help

Kernels:
  --quick           a few milliseconds each: that they run, not how fast

Step:
  --init PRESET     model (gpt2:d12)
  --batch N         B (4)
  --context N       T (64)
  --steps N         steps timed (7)

A percentage is of the fp32 peak, or of the memory bandwidth, measured in the same run. Kernels are
timed over and over on the same operands, which stay in the caches as far as they fit: more than
100 % of memory's bandwidth means that they do. Results go to stdout, progress to stderr.
`

async function main(args: string[]): Promise<number> {
  try {
    const { values, positionals } = parse(args)
    if (values.help) {
      process.stdout.write(HELP)
      return 0
    }
    const isStep = positionals[0] === "step"
    if (positionals.length > 1) throw new UserError(`one name, not ${positionals.join(" and ")}`)
    const foreign = (isStep ? ["quick"] : ["init", "batch", "context", "steps"]).find(
      (name) => name in values,
    )
    if (foreign) throw new UserError(`--${foreign} is not for ${isStep ? "a step" : "kernels"}`)

    const { warning } = await buildNative((line) => console.error(line))
    const name = (values.library as LibraryName) ?? (await bestCpuLibrary())
    if (!name) throw new UserError(`no kernel library to measure: ${warning}`)
    const kernels = await Kernels.open(name)
    kernels.call("llm_threads", whole("--threads", values.threads, usableCores()))
    if (!isStep) {
      const options = { filter: positionals[0], quick: values.quick ?? false }
      process.stdout.write(await benchKernels(kernels, options))
      return 0
    }
    const init = values.init ?? "gpt2:d12"
    const config = preset(init)
    if (!config) throw new UserError(`--init ${init} is no preset (try gpt2:d12)`)
    const T = whole("--context", values.context, 64)
    if (T > config.maxT)
      throw new UserError(`--context ${T} is longer than ${init}'s ${config.maxT}`)
    const B = whole("--batch", values.batch, 4)
    const steps = whole("--steps", values.steps, 7)
    process.stdout.write(await benchStep(kernels, { config, B, T, steps, passes: PASSES }))
    return 0
  } catch (error) {
    if (!(error instanceof UserError)) throw error
    process.stderr.write(`bench: ${error.message}\n`)
    return 2
  }
}

function parse(args: string[]) {
  const text = { type: "string" } as const
  const flag = { type: "boolean" } as const
  try {
    return parseArgs({
      args,
      allowPositionals: true,
      options: {
        ...{ help: flag, quick: flag, threads: text, library: text },
        ...{ init: text, batch: text, context: text, steps: text },
      },
    })
  } catch (error) {
    throw new UserError(`${(error as Error).message} (see --help)`)
  }
}

function whole(flag: string, text: string | undefined, otherwise: number): number {
  if (text === undefined) return otherwise
  const value = Number(text)
  if (/^\d+$/.test(text) && value >= 1 && value <= 65536) return value
  throw new UserError(`${flag} ${text} is no whole number from 1 to 65536`)
}

process.exitCode = await main(process.argv.slice(2))
