// The whole model with products in eight bits, by the reference: what a GPU computes is held against
// that, kernel by kernel and as a whole, in test/cuda.

import { describe, expect, test } from "bun:test"
import { Loader } from "../../src/data/loader.ts"
import { generatePlays } from "../../src/data/plays.ts"
import type { Config } from "../../src/model/config.ts"
import { initialize } from "../../src/model/initialize.ts"
import { ALIGN } from "../../src/program/arena.ts"
import { SLOT, type Slots } from "../../src/program/fp8.ts"
import { isTensor } from "../../src/program/tensor.ts"
import { fixture, fixtureTruth, fixtureWeights } from "../fixtures/weights.ts"
import { reference as kernels } from "../libraries.ts"
import { Run, worst } from "./run.ts"

const TIMEOUT_MS = 240_000 // other work may share the cores
const { config, B, T } = fixture
const truth = fixtureTruth()

// e4m3 has 4 bits and e5m2 has 3: a number is off by up to 2⁻⁴ or 2⁻³ of itself, and by half as much
// where all sizes are as likely. A gradient has come through some ten such roundings, of random sign,
// and the largest number of a tensor has most of its terms' errors averaged away.
const RELATIVE = 2 ** -4 * Math.sqrt(10)

const open = (options = {}) =>
  Run.link(kernels, config, { B, T, precision: "bf16", fp8: true, platform: "cuda", ...options })
const batch = { tokens: truth.x, targets: truth.y }

describe("eight bits", () => {
  test("the loss and every gradient are PyTorch's, as far as eight bits can tell", async () => {
    const run = await open()
    run.setWeights(kernels, fixtureWeights())
    const loss = run.pass(batch)
    expect(Math.abs(loss / truth.loss - 1)).toBeLessThan(2 ** -7)
    for (const [name, gradient] of Object.entries(run.gradients())) {
      const error = worst(gradient, truth.gradients[name]!)
      expect([name, error < RELATIVE ? "close" : error]).toEqual([name, "close"])
    }
    run.program.free()
  })

  test("all products of blocks, and no others, are in eight bits", async () => {
    const { source, program } = await open()
    const { L } = config
    const count = (name: string, kernel: string) =>
      source.phases.find((phase) => phase.name === name)!.calls.filter((c) => c.kernel === kernel)
        .length
    expect(count("forward", "fp8_matmul_forward")).toBe(4 * L)
    expect(count("forward", "matmul_forward")).toBe(1)
    for (const kernel of ["matmul_backward_input", "matmul_backward_weight"]) {
      expect(count("backward", `fp8_${kernel}`)).toBe(4 * L)
      expect(count("backward", kernel)).toBe(1)
    }
    // Of the gradients, fc's is complete only in eight bits; others are summed where they are made.
    const backward = source.phases.find(({ name }) => name === "backward")!
    const quantized = backward.calls.filter(({ kernel }) => kernel === "e5m2_quantize")
    const sums = quantized.map(({ args }) => args[3]!).filter(isTensor)
    expect(sums.map(({ name }) => name)).toEqual(
      Array.from({ length: L }, (_, l) => `dfcb[${L - 1 - l}]`),
    )
    for (const name of ["evaluate", "prefill", "decode"]) {
      const { calls } = source.phases.find((phase) => phase.name === name)!
      const types = calls.flatMap(({ args }) => args.filter(isTensor).map(({ dtype }) => dtype))
      expect(types.filter((type) => type === "e4m3" || type === "e5m2")).toEqual([])
    }
    program.free()
  })

  test("a step's scales bring the largest numbers of the steps before near the largest there are", async () => {
    const run = await open()
    run.setWeights(kernels, fixtureWeights())
    for (let step = 1; step <= 3; step++) run.step([batch], step, 1e-3)
    run.pass(batch)
    const before = run.source.slots!.map((all) => run.f32(all).slice())
    run.program.run("next_scales")
    for (const [i, largest] of [448, 57344].entries()) {
      const after = run.f32(run.source.slots![i]!)
      expect(after.length).toBe((i === 0 ? 8 : 4) * config.L * SLOT)
      for (let at = 0; at < after.length; at += SLOT) {
        const scale = after[at + 1]!
        const most = Math.max(...before[i]!.subarray(at + 2, at + 18))
        expect(most * scale).toBeLessThanOrEqual(largest)
        expect(most * scale).toBeGreaterThan(largest / 2)
        expect(after[at]).toBe(1 / scale)
        expect(after[at + 2]).toBe(0) // the next step's
        expect(after[at + 3]).toBeGreaterThan(0)
        expect([...after.subarray(at + 3, at + 6)]).toEqual([
          ...before[i]!.subarray(at + 2, at + 5),
        ])
      }
    }
    run.program.free()
  })

  test("what products take of a slot lies on the bytes that a GPU's want it on", async () => {
    const { source, program } = await open()
    const slots = source.phases
      .flatMap(({ calls }) => calls.flatMap(({ args }) => args.filter(isTensor)))
      .filter(({ base }) => base !== undefined && source.slots!.includes(base as Slots))
    expect(new Set(slots).size).toBe(12 * config.L)
    expect(slots.filter((slot) => program.address(slot) % ALIGN !== 0)).toEqual([])
    program.free()
  })

  test("two micro-batches of a step are the batch of both, but for sums in another order", async () => {
    const [whole, halves] = [await open(), await open({ B: B / 2, accumulation: 2 })]
    const half = (i: number) => ({
      tokens: batch.tokens.subarray((i * B * T) / 2, ((i + 1) * B * T) / 2),
      targets: batch.targets.subarray((i * B * T) / 2, ((i + 1) * B * T) / 2),
    })
    for (const run of [whole, halves]) run.setWeights(kernels, fixtureWeights())
    // The first step calibrates, each micro-batch by its own numbers; the weights stay.
    const norms = [1, 2].map((step) => {
      return [
        whole.step([batch], step, 0).norm,
        halves.step([half(0), half(1)], step, 0).norm,
      ] as const
    })
    for (const [one, two] of norms) expect(Math.abs(two / one - 1)).toBeLessThan(0.02)
    for (const run of [whole, halves]) run.program.free()
  })

  const STEPS = 40
  test(
    `${STEPS} steps stay within 1 % of bf16's losses`,
    async () => {
      const losses = await Promise.all([train(false, STEPS), train(true, STEPS)])
      const [half, eight] = losses as [number[], number[]]
      expect(half.at(-1)!).toBeLessThan(0.9 * half[0]!)
      const errors = eight.map((loss, i) => Math.abs(loss / half[i]! - 1))
      expect(Math.max(...errors)).toBeLessThan(0.01)
      expect(Math.max(...errors)).toBeGreaterThan(0)
    },
    TIMEOUT_MS,
  )
})

const BYTES: Config = { L: 2, NH: 2, C: 32, V: 128, Vp: 128, maxT: 32 }
const tokens = Uint16Array.from(
  new TextEncoder().encode(generatePlays({ seed: 42, bytes: 100_000 }).text).filter((x) => x < 128),
)

/** Losses of AdamW's steps on the bytes of the built-in corpus. */
async function train(fp8: boolean, steps: number): Promise<number[]> {
  const shape = { B: 4, T: 32 }
  const run = await Run.link(kernels, BYTES, { ...shape, precision: "bf16", fp8 })
  initialize(run.program, run.source, BYTES, kernels, 42)
  const loader = Loader.over("bytes", tokens, { ...shape, vocabulary: BYTES.V })
  const losses = Array.from({ length: steps }, (_, i) => {
    const batch = { tokens: new Int32Array(4 * 32), targets: new Int32Array(4 * 32) }
    loader.next(batch.tokens, batch.targets)
    return run.step([batch], i + 1, 1e-3).losses[0]!
  })
  run.program.free()
  return losses
}
