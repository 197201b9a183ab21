// The whole model in bf16. Where this CPU has no instructions for it, the kernels that do are run
// through their emulation, and where that cannot be, the reference takes their place.

import { describe, expect, test } from "bun:test"
import { readFileSync } from "node:fs"
import { Loader } from "../../src/data/loader.ts"
import { generatePlays } from "../../src/data/plays.ts"
import { bytesOf } from "../../src/formats/header.ts"
import type { Config } from "../../src/model/config.ts"
import { initialize } from "../../src/model/initialize.ts"
import type { TrainingOptions } from "../../src/model/program.ts"
import { BF16_LIBRARIES, bestCpuLibrary, Kernels } from "../../src/native/library.ts"
import { openEmulated } from "../emulated.ts"
import { fixture, fixtureTruth, fixtureWeights } from "../fixtures/weights.ts"
import { Run, worst } from "./run.ts"

const best = await bestCpuLibrary()

async function openBf16(): Promise<Kernels> {
  if (best && BF16_LIBRARIES.includes(best)) return Kernels.open(best)
  return (await openEmulated("bf16")) ?? Kernels.open("reference")
}

const TIMEOUT_MS = 120_000 // other work may share the cores
const kernels = await openBf16()
const fp32Kernels = await Kernels.open(best ?? "reference")
for (const each of [kernels, fp32Kernels]) each.call("llm_threads", 2)

// bf16 has 8 bits: a number is off by 2⁻⁹ of itself, and a gradient has come through some twenty
// roundings, of random sign, on its way.
const RELATIVE = 2 ** -9 * Math.sqrt(20)
const { config, B, T } = fixture
const truth = fixtureTruth()

describe(`bf16, ${kernels.name}`, () => {
  for (const fuse of [false, true]) {
    const how = fuse ? "with fusions" : "op by op"
    test(`${how}, the loss and every gradient are PyTorch's, as far as bf16 can tell`, async () => {
      const run = await Run.link(kernels, config, { B, T, fuse, precision: "bf16" })
      run.setWeights(kernels, fixtureWeights())
      const loss = run.pass({ tokens: truth.x, targets: truth.y })
      expect(Math.abs(loss / truth.loss - 1)).toBeLessThan(2 ** -9)
      for (const [name, gradient] of Object.entries(run.gradients())) {
        const error = worst(gradient, truth.gradients[name]!)
        expect([name, error < 2 * RELATIVE ? "close" : error]).toEqual([name, "close"])
      }
      run.program.free()
    })
  }

  test(
    "1, 2, 3 and 5 threads leave the same bits everywhere",
    async () => {
      const shape = { B: 3, T: 33, accumulation: 2 }
      const bf16 = { masters: false, stochastic: true, seed: 3 }
      const leave = async (threads: number) => {
        kernels.call("llm_threads", threads)
        const { run } = await train(BYTES, { ...shape, precision: "bf16", bf16 }, 3)
        const { parameters, m, v } = run.source
        const tensors = [parameters, m, v].flatMap((of) => Object.values(of))
        const hashes = tensors.map((tensor) => Bun.hash(bytesOf(run.program.view(tensor) as never)))
        run.program.free()
        return hashes
      }
      const alone = await leave(1)
      for (const threads of [2, 3, 5]) expect(await leave(threads)).toEqual(alone)
      kernels.call("llm_threads", 2)
    },
    TIMEOUT_MS,
  )

  const STEPS = 200
  const bf16 = { seed: 1, stochastic: false, masters: true }
  const updates = {
    "with masters": bf16,
    "with masters, rounded at random": { ...bf16, stochastic: true },
    "without masters, rounded at random": { ...bf16, stochastic: true, masters: false },
  }
  for (const [how, update] of Object.entries(updates)) {
    test(
      `${how}, ${STEPS} steps on ${SOURCE} stay within 1 % of fp32's losses`,
      async () => {
        const shape = { B: 4, T: 32, accumulation: 1 }
        const half = await train(BYTES, { ...shape, precision: "bf16", bf16: update }, STEPS)
        const full = await fp32Losses()
        const errors = half.losses.map((loss, i) => Math.abs(loss / full[i]! - 1))
        expect(full.at(-1)!).toBeLessThan(0.7 * full[0]!)
        expect(Math.max(...errors)).toBeLessThan(0.01)
        half.run.program.free()
      },
      TIMEOUT_MS,
    )
  }

  test(
    "rounding to nearest without masters would lose small steps",
    async () => {
      const shape = { B: 4, T: 32, accumulation: 1, precision: "bf16" as const }
      const lost = { masters: false, stochastic: false, seed: 1 }
      const { run, losses } = await train(BYTES, { ...shape, bf16: lost }, STEPS, 1e-4)
      const kept = await train(
        BYTES,
        { ...shape, bf16: { ...lost, stochastic: true } },
        STEPS,
        1e-4,
      )
      expect(kept.losses.at(-1)!).toBeLessThan(losses.at(-1)!)
      for (const { program } of [run, kept.run]) program.free()
    },
    TIMEOUT_MS,
  )
})

const BYTES: Config = { L: 2, NH: 3, C: 48, V: 256, Vp: 256, maxT: 37 }
const path = process.env.LLM_TINYSHAKESPEARE
const SOURCE = path ? "Tiny Shakespeare" : "the built-in corpus"
const text = path ? readFileSync(path, "utf8") : generatePlays({ seed: 42, bytes: 200_000 }).text
const tokens = Uint16Array.from(new TextEncoder().encode(text))

let full: Promise<number[]> | undefined
function fp32Losses(): Promise<number[]> {
  full ??= train(BYTES, { B: 4, T: 32, accumulation: 1 }, 200).then(({ run, losses }) => {
    run.program.free()
    return losses
  })
  return full
}

/** Steps of AdamW on the bytes of the text, from seed 42. */
async function train(config: Config, options: Shape, steps: number, lr = 1e-3) {
  const { B, T, accumulation } = options
  const own = options.precision === "bf16" ? kernels : fp32Kernels
  const run = await Run.link(own, config, options)
  initialize(run.program, run.source, config, own, 42)
  const loader = Loader.over("bytes", tokens, { B, T, vocabulary: config.V })
  const losses = Array.from({ length: steps }, (_, i) => {
    const batches = Array.from({ length: accumulation }, () => {
      const batch = { tokens: new Int32Array(B * T), targets: new Int32Array(B * T) }
      loader.next(batch.tokens, batch.targets)
      return batch
    })
    return run.step(batches, i + 1, lr).losses[0]!
  })
  return { run, losses }
}
type Shape = Partial<TrainingOptions> & { B: number; T: number; accumulation: number }
