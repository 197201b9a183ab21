// npm start takes two minutes at most, with a C compiler or without.

import { expect, test } from "bun:test"
import { demo } from "../../src/build/demo.ts"
import { TRAIN } from "../../src/commands/train-spec.ts"
import { trainingFlops } from "../../src/model/config.ts"
import { parseOptions } from "../../src/options.ts"
import { chooseModel, chooseShape } from "../../src/train/settings.ts"

// What small products reach on the slowest machines that these have been measured on: two cores with
// AVX2, and one core with the reference kernels.
test.each([
  ["the kernels of a C compiler", true, 100e9],
  ["the reference kernels", false, 0.3e9],
])("with %s", async (_, isFast, flopsASecond) => {
  const options = parseOptions(TRAIN, demo(isFast))
  const { config } = await chooseModel(options)
  const { T, totalBatch } = chooseShape(options, config)
  const flops = trainingFlops(config, T) * totalBatch * options.number("steps")
  expect(flops / flopsASecond).toBeLessThan(120)
  expect(flops / flopsASecond).toBeGreaterThan(10)
})
