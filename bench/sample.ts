// `bun run bench sample`: tokens a second of a sampler with a cache. Every weight is read once a
// token, so that memory sets the pace; what the loop around the decode phase adds is shown apart.

import { bestLimits, describeLimits, measureLimits } from "../src/bench/machine.ts"
import { digits, duration, giga, median, percent, table } from "../src/bench/table.ts"
import { roundToBf16 } from "../src/data/bf16.ts"
import { type Config, parameterCount } from "../src/model/config.ts"
import { type DecodeTensors, decodeProgram } from "../src/model/program.ts"
import type { Precision } from "../src/native/contract.ts"
import type { Kernels } from "../src/native/library.ts"
import { Program } from "../src/program/link.ts"
import { BYTES, type Tensor, tensorBytes } from "../src/program/tensor.ts"
import { NO_FILTERS } from "../src/sample/choose.ts"
import { generate } from "../src/sample/generate.ts"

const SEED = 42
const WEIGHT = 0.02
const WINDOW = 64 // tokens of a row
const READS = 20

interface Row {
  what: string
  /** The first position of the window. */
  from: number
  times: number[]
}

/** A table of the decode phase at the cache's beginning and end, and of the sampler as it is used. */
export async function benchSample(
  kernels: Kernels,
  config: Config,
  precision: Precision,
): Promise<string> {
  const limits = [measureLimits(kernels, precision)]
  const tensors = decodeProgram(config, precision)
  const program = await Program.link(tensors, kernels)
  // Any weights will do: a token takes the same time.
  for (const tensor of Object.values(tensors.parameters)) {
    program.view(tensor).fill(precision === "bf16" ? roundToBf16(WEIGHT) : WEIGHT)
  }
  decode(program, tensors, 0, 2) // touches every page

  const last = config.maxT - WINDOW
  const rows: Row[] = [
    { what: "decode", from: 0, times: decode(program, tensors, 0, WINDOW) },
    { what: "decode", from: last, times: decode(program, tensors, last, WINDOW) },
    { what: "generate", from: 0, times: await sample(program, tensors, config) },
  ]
  limits.push(measureLimits(kernels, precision))
  const reading = readingSpeed(kernels, program, tensors.parameters.wte!)
  const bandwidth = Math.max(reading, bestLimits(limits).bandwidth)
  program.free()
  const body = rows.map(({ what, from, times }) => {
    const perSecond = 1000 / median(times)
    const size = BYTES[tensors.parameters.wte!.dtype]
    const weights = size * weightsRead(config) * perSecond
    const all = weights + size * cacheRead(config, from) * perSecond
    return [
      ...[what, `${from} to ${from + times.length - 1}`, duration(median(times))],
      ...[digits(perSecond), `${giga(weights)} GB/s`, percent(weights / bandwidth)],
      ...[
        percent(all / bandwidth),
        percent((all * median(times)) / Math.min(...times) / bandwidth),
      ],
    ]
  })
  const headings = [
    "what",
    "positions",
    "a token:",
    "tokens/s:",
    "over the weights:",
    "% of memory:",
  ]
  const more = ["with the cache:", "best token:"]
  const text = table([...headings, ...more], body)
  const head = `${tensors.title}\n${describeLimits(kernels, limits)}; reading ${giga(reading)} GB/s`
  return `${head}\n\n${text}`
}

/** Bytes a second of reading alone, which is what a token does. */
function readingSpeed(kernels: Kernels, program: Program, large: Tensor): number {
  const out = kernels.allocate(8)
  let best = 0
  for (let run = 0; run < READS; run++) {
    const start = performance.now()
    kernels.call("squared_norm", out.address, program.address(large), tensorBytes(large) / 4)
    kernels.wait()
    best = Math.max(best, (tensorBytes(large) * 1000) / (performance.now() - start))
  }
  out.free()
  return best
}

/** Numbers that a token reads: of wte all rows, as the classifier; of wpe one. */
const weightsRead = (config: Config) => parameterCount(config) - (config.maxT - 1) * config.C
const cacheRead = ({ L, C }: Config, position: number) => 2 * L * C * (position + WINDOW / 2)

/** Milliseconds of the decode phase at each of `count` positions. */
function decode(program: Program, tensors: DecodeTensors, from: number, count: number): number[] {
  const position = program.view(tensors.position)
  return Array.from({ length: count }, (_, i) => {
    position[0] = from + i
    const start = performance.now()
    program.run("decode")
    return performance.now() - start
  })
}

/** Milliseconds of each token of text, with the choice of the token. */
async function sample(program: Program, tensors: DecodeTensors, config: Config): Promise<number[]> {
  const fixed = { prompt: [0], count: WINDOW, context: config.maxT, seed: SEED }
  const options = { ...fixed, ...NO_FILTERS }
  const times: number[] = []
  let last = performance.now()
  for await (const _ of generate(program, tensors, config, options)) {
    times.push(performance.now() - last)
    last = performance.now()
  }
  return times.slice(1) // the first waits for the prompt
}
