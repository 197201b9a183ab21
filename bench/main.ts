// Picks the benchmark, reads its options, prints one error line.

import { parseArgs } from "node:util"
import { benchStep } from "../src/bench/step.ts"
import { buildNative } from "../src/build/native.ts"
import { UserError } from "../src/errors.ts"
import { type Config, preset } from "../src/model/config.ts"
import type { Precision } from "../src/native/contract.ts"
import { usableCores } from "../src/native/cpu.ts"
import { openDevice } from "../src/native/device.ts"
import { bestCpuLibrary, Kernels, type LibraryName, libraries } from "../src/native/library.ts"
import { benchBudget } from "./budget.ts"
import { benchKernels } from "./kernels.ts"
import { benchRegisters } from "./registers.ts"
import { benchSample } from "./sample.ts"
import { benchShared } from "./shared.ts"
import { benchStart } from "./start.ts"

const PASSES = 5 // call by call, of a step

type BenchOptions = { kernels: Kernels; values: ReturnType<typeof parse>["values"] }

const HELP = `bun run bench [NAME] [options]   every kernel whose name contains NAME, at GPT-2 124M's shapes
bun run bench step [options]     the whole training step, by phase and by kind of kernel
bun run bench sample [options]   tokens a second of a sampler, against memory
bun run bench shared [options]   a step with one core loaded by another process
bun run bench start [options]    from the command to the first step
bun run bench budget [options]   the least time a step takes on a device of given limits
bun run bench registers          registers, spills and shared memory of every CUDA kernel

  --threads N       threads of the kernels (the cores this process may use)
  --precision NAME  fp32, bf16 (fp32); of kernels, step, sample and budget; fp8 of step and budget
  --library NAME    kernel library, such as x86-64-v3 or cuda (the best that this CPU runs)
  --help

Kernels:
  --quick           a few milliseconds each: that they run, not how fast

Step, sample, start and budget:
  --init PRESET     model (gpt2:d12)

Step and budget:
  --batch N         B (4)
  --context N       T (64)

Step:
  --steps N         steps timed (7)

Budget:
  --teraflops N     of products in bf16, or all in fp32 (790: bf16 on an H200, measured); of those in eight
                    bits twice as many
  --terabytes N     of memory, a second (4.3: the same)
  --measure         what it does take beside it, with the kernels of --library; of a GPU, who makes its
                    products

A percentage is of the peak in that precision, or of the memory bandwidth, measured in the same run. Kernels are
timed over and over on the same operands, which stay in the caches as far as they fit: more than
100 % of memory's bandwidth means that they do. Results go to stdout, progress to stderr.
`

/** Benchmarks that are not the kernels', with the options that are theirs. */
const BENCHES: Record<string, { options: string[]; run: (o: BenchOptions) => Promise<string> }> = {
  step: {
    options: ["init", "batch", "context", "steps", "precision"],
    run: ({ kernels, values }) => {
      const { config, B, T } = shape(values)
      const steps = whole("--steps", values.steps, 7)
      const kind = arithmeticOf(values.precision, kernels)
      return benchStep(kernels, { config, B, T, ...kind, steps, passes: PASSES })
    },
  },
  sample: {
    options: ["init", "precision"],
    run: ({ kernels, values }) => {
      const precision = precisionOf(values.precision, kernels)
      return benchSample(kernels, model(values.init).config, precision)
    },
  },
  budget: {
    options: ["init", "batch", "context", "precision", "teraflops", "terabytes", "measure"],
    run: ({ kernels, values }) => {
      const all = { name: "the budget", precisions: ["fp32", "bf16"], hasFp8: true } as const
      const kind = arithmeticOf(values.precision, values.measure ? kernels : all)
      const flops = 1e12 * positive("--teraflops", values.teraflops, 790)
      const bandwidth = 1e12 * positive("--terabytes", values.terabytes, 4.3)
      const limits = { flops, bandwidth }
      return benchBudget(
        { ...shape(values), ...kind },
        limits,
        values.measure ? kernels : undefined,
      )
    },
  },
  registers: { options: [], run: () => benchRegisters() },
  shared: { options: [], run: ({ kernels }) => benchShared(kernels) },
  start: {
    options: ["init"],
    run: ({ kernels, values }) => {
      const { init, config } = model(values.init)
      return benchStart(kernels, init, config)
    },
  },
}

async function main(args: string[]): Promise<number> {
  try {
    const { values, positionals } = parse(args)
    if (values.help) {
      process.stdout.write(HELP)
      return 0
    }
    if (positionals.length > 1) throw new UserError(`one name, not ${positionals.join(" and ")}`)
    const [name = ""] = positionals
    const bench = Object.hasOwn(BENCHES, name) ? BENCHES[name] : undefined
    const own = ["help", "threads", "library", ...(bench?.options ?? ["quick", "precision"])]
    const foreign = Object.keys(values).find((option) => !own.includes(option))
    if (foreign) throw new UserError(`--${foreign} is not for ${bench ? name : "kernels"}`)

    const { warning } = await buildNative((line) => console.error(line))
    const names = [...(await libraries()).map(({ name }) => name), "cuda"]
    if (values.library !== undefined && !names.includes(values.library)) {
      throw new UserError(`--library ${values.library} is not one of ${names.join(", ")}`)
    }
    const library = (values.library as LibraryName) ?? (await bestCpuLibrary())
    if (!library) throw new UserError(`no kernel library to measure: ${warning}`)
    const kernels =
      values.library === "cuda" ? await openDevice("cuda", 0) : await Kernels.open(library)
    kernels.call("llm_threads", whole("--threads", values.threads, usableCores()))
    const text = bench
      ? bench.run({ kernels, values })
      : benchKernels(kernels, {
          filter: name,
          quick: values.quick ?? false,
          precision: precisionOf(values.precision, kernels),
        })
    process.stdout.write(await text)
    return 0
  } catch (error) {
    if (!(error instanceof UserError)) throw error
    process.stderr.write(`bench: ${error.message}\n`)
    return 2
  }
}

function model(init = "gpt2:d12"): { init: string; config: Config } {
  const config = preset(init)
  if (!config) throw new UserError(`--init ${init} is no preset (try gpt2:d12)`)
  return { init, config }
}

function shape(values: BenchOptions["values"]) {
  const { init, config } = model(values.init)
  const T = whole("--context", values.context, 64)
  if (T > config.maxT) throw new UserError(`--context ${T} is longer than ${init}'s ${config.maxT}`)
  return { config, T, B: whole("--batch", values.batch, 4) }
}

type Able = Pick<Kernels, "name" | "hasFp8"> & { precisions: readonly Precision[] }

/** fp8 is bf16 with products in eight bits. */
function arithmeticOf(name: string | undefined, kernels: Able) {
  if (name !== "fp8") return { precision: precisionOf(name, kernels) }
  if (kernels.hasFp8) return { precision: "bf16" as const, fp8: true }
  throw new UserError(`--precision fp8: ${kernels.name} does not multiply in eight bits`)
}

function precisionOf(name: string | undefined, { precisions, name: library }: Able): Precision {
  const precision = precisions.find((known) => known === (name ?? "fp32"))
  if (precision) return precision
  throw new UserError(`--precision ${name}: ${library} has ${precisions.join(" and ")}`)
}

function parse(args: string[]) {
  const text = { type: "string" } as const
  const flag = { type: "boolean" } as const
  try {
    return parseArgs({
      args,
      allowPositionals: true,
      options: {
        ...{ help: flag, quick: flag, measure: flag, threads: text, library: text },
        ...{ init: text, batch: text, context: text, steps: text, precision: text },
        ...{ teraflops: text, terabytes: text },
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

function positive(flag: string, text: string | undefined, otherwise: number): number {
  const value = text === undefined ? otherwise : Number(text)
  if (value > 0 && value < Number.POSITIVE_INFINITY) return value
  throw new UserError(`${flag} ${text} is no number above 0`)
}

process.exitCode = await main(process.argv.slice(2))
