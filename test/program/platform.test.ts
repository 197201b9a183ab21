// What a program is planned for decides what room its kernels are given.

import { expect, test } from "bun:test"
import { SMALL } from "../../src/model/config.ts"
import { trainingProgram } from "../../src/model/program.ts"
import type { Platform } from "../../src/native/contract.ts"
import { planMemory } from "../../src/program/plan.ts"

const adamw = { beta1: 0.9, beta2: 0.95, eps: 1e-8, weightDecay: 0 }

function planned(platform: Platform) {
  const options = { B: 4, T: 64, accumulation: 1, adamw, platform }
  const { phases, always } = trainingProgram(SMALL, options)
  return planMemory(phases, always)
}

test("a GPU's products are given no room, and the arena is that much smaller", () => {
  const [cpu, cuda] = [planned("cpu"), planned("cuda")]
  const packed = (plan: typeof cpu) =>
    plan.placements.filter(({ tensor }) => tensor.name.endsWith(".packed"))
  expect(packed(cpu).length).toBeGreaterThan(0)
  expect(packed(cuda)).toEqual([])
  expect(cuda.peak).toBeLessThan(cpu.peak)
})
