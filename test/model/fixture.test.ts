// The whole model against PyTorch's numbers: float64 arithmetic from the same float32 weights. Each
// number is near the truth, relative to itself where it stands alone, and to its tensor's largest
// where a tensor is compared: near zero an element is a difference of larger ones.

import { describe, expect, test } from "bun:test"
import { openGpu } from "../cuda/kernels.ts"
import { fixture, fixtureTruth, fixtureWeights } from "../fixtures/weights.ts"
import { openLibraries, Run, worst } from "./run.ts"

// A rounding is 6e-8, sums have at most 192 terms whose roundings grow as √192 = 14: 8e-7 a sum, and
// the worst of a few in a row. What is measured stays below 7e-7.
const RELATIVE = 2e-6
const { config, B, T, optimizer } = fixture
const weights = fixtureWeights()
const truth = fixtureTruth()
const batch = { tokens: truth.x, targets: truth.y }
const { gradClip, lr, ...adamw } = optimizer

const relative = (got: number, expected: number) => Math.abs(got / expected - 1)

/** Rows of Vp numbers, cut to V. */
function withoutPadding(logits: Float32Array): Float32Array {
  const { V, Vp } = config
  const cut = new Float32Array(B * T * V)
  for (let n = 0; n < B * T; n++) cut.set(logits.subarray(n * Vp, n * Vp + V), n * V)
  return cut
}

function differences(got: Record<string, Float32Array>): string[] {
  return Object.entries(truth.gradients).flatMap(([name, expected]) => {
    const error = worst(got[name]!, expected)
    return error <= RELATIVE ? [] : [`d${name} is off by ${error.toExponential(1)}`]
  })
}

for (const { title, kernels } of [...(await openLibraries()), await openGpu()]) {
  describe(title, () => {
    for (const fuse of [false, true]) {
      const how = fuse ? "with fusions" : "op by op"
      const link = () => Run.link(kernels!, config, { B, T, adamw, fuse }, weights)

      test.skipIf(!kernels)(`${how}, the loss and every gradient are PyTorch's`, async () => {
        const run = await link()
        expect(relative(run.pass(batch), truth.loss)).toBeLessThan(RELATIVE)
        expect(differences(run.gradients())).toEqual([])
        run.program.run("evaluate")
        expect(relative(run.f32(run.source.loss)[0]!, truth.loss)).toBeLessThan(RELATIVE)
        run.program.free()
      })

      test.skipIf(!kernels)(`${how}, ten steps of AdamW follow PyTorch's`, async () => {
        const run = await link()
        const steps = fixture.losses.map((_, i) => run.step([batch], i + 1, lr, gradClip))
        const errors = steps.flatMap(({ losses, norm }, i) => [
          relative(losses[0]!, fixture.losses[i]!),
          relative(norm, fixture.gradNorms[i]!),
        ])
        expect(Math.max(...errors)).toBeLessThan(RELATIVE)
        run.program.free()
      })
    }

    test.skipIf(!kernels)("the logits are PyTorch's", async () => {
      const run = await Run.link(kernels!, config, { B, T, fuse: false }, weights)
      run.load(batch)
      run.program.run("forward")
      expect(worst(withoutPadding(run.logits()), truth.logits)).toBeLessThan(RELATIVE)
      run.program.free()
    })
  })
}

test("clipping is at work in the ten steps", () => {
  expect(Math.min(...fixture.gradNorms)).toBeGreaterThan(gradClip)
})
