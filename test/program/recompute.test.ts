// What recompute makes of GPT-2's lists, and how much memory that saves.

import { describe, expect, test } from "bun:test"
import { workOfCalls } from "../../src/bench/work.ts"
import { preset } from "../../src/model/config.ts"
import { type TrainingOptions, trainingProgram } from "../../src/model/program.ts"
import { contract } from "../../src/native/library.ts"
import { CHUNK_ALIGN } from "../../src/program/chunk.ts"
import { planMemory } from "../../src/program/plan.ts"
import { RECOMPUTE, type Recompute } from "../../src/program/recompute.ts"
import { ADAMW } from "../model/run.ts"

// Activations weigh more than all else in this one.
const config = preset("gpt2:d12")!
const { L, C } = config
const [B, T] = [4, 1024]

function planned(recompute: Recompute, options: Partial<TrainingOptions> = {}) {
  const program = trainingProgram(config, {
    ...{ B, T, accumulation: 1, adamw: ADAMW, recompute },
    ...options,
  })
  const { phases, always } = program
  const [forward, backward] = phases as [(typeof phases)[0], (typeof phases)[0]]
  const plan = planMemory(phases, always)
  /** What the forward pass makes or scribbles on, and the backward pass uses. */
  const across = plan.placements
    .filter(({ tensor: { role } }) => role === "activation" || role === "scratch")
    .filter(({ first, last }) => first < forward.calls.length && last >= forward.calls.length)
    .map(({ tensor }) => tensor.name)
  return { forward, backward, plan, across }
}

describe("GPT-2 124M at 4×1024", () => {
  const variants: Partial<TrainingOptions>[] = [
    {},
    { precision: "bf16" },
    { classifierRows: CHUNK_ALIGN },
    { precision: "bf16", classifierRows: CHUNK_ALIGN },
    { geluFusion: 0 },
    { fuse: false },
  ]
  for (const options of variants) {
    test(`each mode needs less than the one before, without gaps: ${JSON.stringify(options)}`, () => {
      const plans = RECOMPUTE.map((mode) => planned(mode, options).plan)
      const peaks = plans.map(({ peak }) => peak)
      expect(peaks).toEqual(peaks.toSorted((a, b) => b - a))
      expect(new Set(peaks).size).toBe(RECOMPUTE.length)
      for (const { peak, lowerBound } of plans) expect(peak / lowerBound).toBeLessThanOrEqual(1.05)
    })
  }

  test("what is saved is what is made again, down to a byte", () => {
    const [none, gelu, norms] = RECOMPUTE.map((mode) => planned(mode).plan.peak)
    const row = B * T * 4 // bytes of one number a token
    expect(none! - gelu!).toBe(L * 4 * C * row)
    expect(gelu! - norms!).toBe(L * 2 * (C + 2) * row) // two norms, with their means and deviations
  })

  test("the modes keep no GELUs, no norms of a block, nothing of a block", () => {
    const { across: all } = planned("0")
    const made = (...names: string[]) =>
      Array.from({ length: L }, (_, l) => names.map((name) => `h${l}.${name}`)).flat()
    const without = (names: string[]) => all.filter((name) => !names.includes(name))
    const gelus = made("fch_gelu")
    const norms = ["ln1", "ln2"].flatMap((ln) => made(ln, `${ln}.mean`, `${ln}.rstd`))
    expect(planned("1").across).toEqual(without(gelus))
    expect(planned("2").across).toEqual(without([...gelus, ...norms]))
    const outside = ["lnf", "lnf.mean", "lnf.rstd", "logits"]
    expect(planned("block").across).toEqual(["encoded", ...made("residual3"), ...outside])
  })

  test("a block is made again by the calls of its forward pass but the last, before its gradients", () => {
    const { forward, backward } = planned("block")
    const kernels = backward.calls.map(({ kernel }) => kernel)
    const block = forward.calls.slice(1, 8).map(({ kernel }) => kernel) // after the embedding
    // After the classifier's two products and the last norm; a layer's own gradients are 11 calls.
    expect(kernels.slice(3, 9)).toEqual(block.slice(0, 6))
    expect(kernels.slice(3 + 17, 9 + 17)).toEqual(block.slice(0, 6))
    expect(kernels.filter((kernel) => kernel.endsWith("_forward"))).toHaveLength(6 * L)
  })

  test("operations grow by those of the products and the attention of the blocks", async () => {
    const signatures = await contract()
    const flops = (mode: Recompute) => {
      const { forward, backward } = planned(mode)
      return workOfCalls([...forward.calls, ...backward.calls], signatures, "fp32").flops
    }
    const none = flops("0")
    expect(flops("1")).toBe(none)
    expect(flops("2")).toBe(none)
    // qkv, attproj and fch have 8·C² weights; q·k and the sum of v are causal.
    expect(flops("block") - none).toBe(L * B * T * (2 * 8 * C * C + 2 * C * (T + 1)))
  })
})
