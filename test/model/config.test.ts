import { describe, expect, test } from "bun:test"
import {
  type Config,
  checkConfig,
  PRESET_NAMES,
  parameterCount,
  preset,
  SMALL,
  trainingFlops,
} from "../../src/model/config.ts"
import { parameterTable } from "../../src/model/gpt2.ts"
import { refusal } from "./run.ts"

describe("presets", () => {
  test("have the published sizes", () => {
    const millions = (name: string) => Math.round(parameterCount(preset(name)!) / 1e6)
    // Radford et al. 2019; Brown et al. 2020, table 2.1, with GPT-2's vocabulary and contexts of 2048.
    expect(millions("gpt2:d12")).toBe(124)
    expect(millions("gpt2:d24")).toBe(355)
    expect(millions("gpt2:d36")).toBe(774)
    expect(millions("gpt2:d48")).toBe(1558)
    expect(millions("gpt3:c768")).toBe(125)
    expect(millions("gpt3:c12288") / 1000).toBeCloseTo(174.6, 0)
  })

  test("are all valid shapes, and their names mean one model", () => {
    for (const name of PRESET_NAMES) {
      const config = preset(name)!
      checkConfig(config)
      expect(config.Vp % 128).toBe(0)
      expect(config.Vp - config.V).toBeWithin(0, 128)
      expect(config.C / config.NH).toBeWithin(32, 129)
    }
    expect(preset("d12")).toEqual(preset("gpt2:d12")!)
  })

  test("what looks like a preset and is none is refused; other texts are files", () => {
    for (const name of ["d13", "gpt2:d7", "gpt3:c100", "gpt2:x", "gpt3:"]) {
      expect(refusal(() => preset(name))).toStartWith(
        `--init ${name} is no preset (there are gpt2:d6`,
      )
    }
    expect(preset("model.bin")).toBeUndefined()
    expect(preset("d12.bin")).toBeUndefined()
  })
})

test("the parameter count is the table's, without the padding of wte", () => {
  for (const config of [SMALL, preset("gpt2:d12")!]) {
    const sizes = parameterTable(config).map(({ shape }) => shape.reduce((a, b) => a * b, 1))
    const padding = (config.Vp - config.V) * config.C
    expect(sizes.reduce((a, b) => a + b, 0) - padding).toBe(parameterCount(config))
  }
})

test("operations a token: 6 a parameter, and the attention's grow with the context", () => {
  const config = preset("gpt2:d12")!
  const without = 6 * parameterCount(config)
  expect(trainingFlops(config, 64) - without).toBe(6 * 12 * 768 * 64)
  expect(trainingFlops(config, 1024) - without).toBe(16 * (trainingFlops(config, 64) - without))
})

test("heads must divide channels, and the refusal offers some that do", () => {
  const config: Config = { ...SMALL, C: 768, NH: 13 }
  expect(refusal(() => checkConfig(config))).toBe(
    "--heads 13 does not divide --channels 768 (try 8, 12 or 16)",
  )
  expect(refusal(() => checkConfig({ ...SMALL, C: 7, NH: 3 }))).toContain("(try 1 or 7)")
})
