// llm info --bench measures what a machine can do in ten seconds.

import { describe, expect, test } from "bun:test"
import { chooseBrief } from "../../src/bench/brief.ts"
import { preset } from "../../src/model/config.ts"
import { buildExecutable, LLM, run } from "../cli/executable.ts"

const TIMEOUT_MS = 120_000
const GIGA = 1e9
const MACHINE = { precision: "fp32", peak: 500e9, bandwidth: 60e9 } as const

describe("the model", () => {
  test("is GPT-2 124M where a step of 4×64 takes half a second", () => {
    const { config, B, T, steps, passes } = chooseBrief(MACHINE, 24 * GIGA)
    expect({ config, B, T }).toEqual({ config: preset("gpt2:d12")!, B: 4, T: 64 })
    expect([steps, passes]).toEqual([6, 6])
  })

  test("is smaller on a slower machine, and where it would take half of the memory", () => {
    const d6 = preset("gpt2:d6")!
    expect(chooseBrief({ ...MACHINE, peak: 50e9 }, 24 * GIGA).config).toEqual(d6)
    expect(chooseBrief(MACHINE, 4 * GIGA).config).toEqual(d6)
  })

  test("is the smallest for kernels too slow for any, and each of its figures a median", () => {
    const { B, T, steps, passes } = chooseBrief({ ...MACHINE, peak: 1e8, bandwidth: 1e9 }, GIGA)
    expect([B, T, steps, passes]).toEqual([1, 16, 2, 2])
  })
})

test(
  "llm info --bench says what was measured, and what is lost where",
  async () => {
    await buildExecutable()
    const { code, stdout, stderr } = await run([LLM, "info", "--bench"])
    expect({ code, stderr }).toEqual({ code: 0, stderr: "" })
    expect(stdout).toMatch(/^version .*^library reference.*^GPT-2, [\d.]+ M parameters: /ms)
    expect(stdout).toMatch(/^step +[\d.]+ \S+ \(median of \d, /m)
    expect(stdout).toMatch(/^MFU +[\d.]+ %/m)
    for (const kind of ["products", "attention", "norms", "classifier", "optimizer", "rest"]) {
      expect(stdout).toMatch(new RegExp(`^\\| ${kind} .* %  *\\|$`, "m"))
    }
  },
  TIMEOUT_MS,
)
