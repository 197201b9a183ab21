// A new model's weights: what PyTorch draws for the same seed, tensor by tensor, in every library.

import { describe, expect, test } from "bun:test"
import { bytesOf } from "../../src/formats/header.ts"
import { initialize } from "../../src/model/initialize.ts"
import { fixture } from "../fixtures/weights.ts"
import { openLibraries, Run } from "./run.ts"

for (const { title, kernels } of await openLibraries()) {
  describe(title, () => {
    for (const { config, seed, sha256, first } of fixture.initial) {
      const { V, C } = config
      test.skipIf(!kernels)(`a new model of V ${V}, C ${C} has PyTorch's weights`, async () => {
        const run = await Run.link(kernels!, config, { B: 1, T: 1 })
        const { parameters } = run.source
        initialize(run.program, run.source, config, kernels!, seed)

        const starts = Object.keys(first).map((name) => [
          name,
          [...run.f32(parameters[name]!).subarray(0, 2)],
        ])
        expect(Object.fromEntries(starts)).toEqual(first)
        const hash = new Bun.CryptoHasher("sha256")
        for (const tensor of Object.values(parameters)) hash.update(bytesOf(run.f32(tensor)))
        expect(hash.digest("hex")).toBe(sha256)
        run.program.free()
      })
    }
  })
}
