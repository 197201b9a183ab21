// Activations that are made again leave every bit of a run as it is.

import { expect, test } from "bun:test"
import { bytesOf } from "../../src/formats/header.ts"
import type { Config } from "../../src/model/config.ts"
import { initialize } from "../../src/model/initialize.ts"
import type { TrainingOptions } from "../../src/model/program.ts"
import { type Arithmetic, storedIn } from "../../src/native/contract.ts"
import { BF16_LIBRARIES, Kernels, libraries } from "../../src/native/library.ts"
import { CHUNK_ALIGN } from "../../src/program/chunk.ts"
import { RECOMPUTE } from "../../src/program/recompute.ts"
import type { Tensor } from "../../src/program/tensor.ts"
import { EMULATION_NEEDS, openEmulated } from "../emulated.ts"
import { Random } from "../ops/random.ts"
import { Run } from "./run.ts"

const MODES = RECOMPUTE.filter((mode) => mode !== "0")
type Options = Partial<TrainingOptions> & { B: number; T: number }
const CONFIG: Config = { L: 3, NH: 3, C: 18, V: 67, Vp: 128, maxT: 50 }
const VARIANTS: Record<string, Options> = {
  "op by op": { B: 2, T: 33, fuse: false },
  "without GELUs in products": { B: 2, T: 33, geluFusion: 0 },
  "with GELUs in products on the way forward": { B: 2, T: 33, geluFusion: 1 },
  "with all fusions": { B: 2, T: 33, geluFusion: 2 },
  "with logits in chunks": { B: 8, T: 50, classifierRows: CHUNK_ALIGN }, // the second one of 16
}
const [STEPS, ACCUMULATION] = [2, 2]

/** Losses, norms and hashes of all that a run leaves behind. */
async function train(kernels: Kernels, options: Options) {
  const { B, T } = options
  const run = await Run.link(kernels, CONFIG, { accumulation: ACCUMULATION, ...options })
  initialize(run.program, run.source, CONFIG, kernels, 42)
  const random = new Random("recompute")
  const draw = () => random.integers(B * T, CONFIG.V)
  const steps = Array.from({ length: STEPS }, (_, i) => {
    const batches = Array.from({ length: ACCUMULATION }, () => {
      return { tokens: draw(), targets: draw() }
    })
    return run.step(batches, i + 1, 1e-2)
  })
  const { parameters, masters = {}, m, v, gradients } = run.source
  const tensors = [parameters, masters, m, v, gradients].flatMap((all) => Object.values(all))
  const hashOf = (tensor: Tensor) => Bun.hash(bytesOf(run.program.view(tensor) as never))
  const hashes = tensors.map((tensor) => [tensor.name, hashOf(tensor)])
  run.program.free()
  return { steps, hashes }
}

/** What is needed there; the classifier, whose logits may come in chunks, is in bf16. */
const IN_FP8 = ["with all fusions"]

function check(name: string, arithmetic: Arithmetic, kernels?: Kernels, reason?: string) {
  const fp8 = arithmetic === "fp8"
  for (const [how, variant] of Object.entries(VARIANTS)) {
    if (fp8 && !IN_FP8.includes(how)) continue
    const title = `${name}, ${arithmetic}, ${how}`
    test.skipIf(!kernels)(kernels ? title : `${title} (skipped: ${reason})`, async () => {
      kernels!.call("llm_threads", 2)
      const options = { ...variant, precision: storedIn(arithmetic), fp8 }
      const kept = await train(kernels!, options)
      const norms = kept.steps.map(({ norm }) => norm)
      expect(norms.every((norm) => Number.isFinite(norm) && norm > 0)).toBe(true)
      for (const mode of MODES) {
        const again = await train(kernels!, { ...options, recompute: mode })
        expect({ mode, ...again }).toEqual({ mode, ...kept })
      }
    })
  }
}

for (const { name, reason } of await libraries()) {
  const kernels = reason === undefined ? await Kernels.open(name) : undefined
  check(name, "fp32", kernels, reason)
  if (BF16_LIBRARIES.includes(name)) check(name, "bf16", kernels, reason)
  if (name === "reference") check(name, "fp8", kernels, reason)
}
check("emulated AVX-512 with BF16", "bf16", await openEmulated("bf16"), EMULATION_NEEDS)
check("emulated AMX", "bf16", await openEmulated("amx"), EMULATION_NEEDS)
