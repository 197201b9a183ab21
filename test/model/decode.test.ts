// One token at a time with a cache gives what the whole text at once gives.

import { describe, expect, test } from "bun:test"
import { fixture, fixtureTruth, fixtureWeights } from "../fixtures/weights.ts"
import { openLibraries, poison, Run, worst } from "./run.ts"

// Sums of at most 192 terms, grouped differently: √192 roundings through four layers' halves.
const RELATIVE = 1e-5

const { config, B } = fixture
const truth = fixtureTruth()
const batch = { tokens: truth.x, targets: truth.y }

for (const { title, kernels } of await openLibraries()) {
  describe(title, () => {
    for (const T of [config.maxT, 11]) {
      for (const fuse of [false, true]) {
        const name = `${T} of ${config.maxT} positions, ${fuse ? "fused" : "op by op"}`
        test.skipIf(!kernels)(`${name}: the logits are those of the forward pass`, async () => {
          const whole = await Run.link(kernels!, config, { B, T, fuse: false }, fixtureWeights())
          const single = await Run.link(kernels!, config, { B: 1, T: 1, fuse }, fixtureWeights())
          const cut = batch.tokens.slice(0, B * T)
          whole.load({ tokens: cut, targets: cut })
          whole.program.run("forward")
          const expected = whole.logits()

          const { token, position, logits } = single.source
          for (let b = 0; b < B; b++) {
            // A new text needs no other cache: rows of the old one are never read.
            if (b === 0) poison(single.program)
            for (let t = 0; t < T; t++) {
              single.program.view(token)[0] = cut[b * T + t]!
              single.program.view(position)[0] = t
              single.program.run("decode")
              const row = (b * T + t) * config.Vp
              const error = worst(single.f32(logits), expected.subarray(row, row + config.Vp))
              expect(error).toBeLessThan(RELATIVE)
            }
          }
          whole.program.free()
          single.program.free()
        })
      }
    }
  })
}
