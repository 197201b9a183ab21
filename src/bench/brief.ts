// `llm info --bench`: the step's report in about ten seconds, on the largest of a few models that
// this machine's speed and memory allow.

import { parameterCount, preset, SMALL, trainingFlops } from "../model/config.ts"
import { trainingProgram } from "../model/program.ts"
import { usableMemory } from "../native/cpu.ts"
import type { Kernels } from "../native/library.ts"
import { planMemory } from "../program/plan.ts"
import { type Limits, measureLimits } from "./machine.ts"
import { ADAMW, benchStep, type StepOptions, type StepShape } from "./step.ts"

// Largest first; the last is for the reference kernels.
const MODELS: StepShape[] = [
  { config: preset("gpt2:d12")!, B: 4, T: 64 },
  { config: preset("gpt2:d6")!, B: 4, T: 64 },
  { config: SMALL, B: 4, T: 64 },
  { config: SMALL, B: 1, T: 16 },
]
const BUDGET_MS = 8000 // for the steps; limits and the first touch of the memory take the rest
const LEAST = 2 // steps timed, and passes call by call
const MOST = 7
const EXPECTED = 0.75 // of the peak
const ADAMW_BYTES = 28 // a parameter: four numbers read, three written

/** What a machine of these limits and this memory measures in the budget. */
export function chooseBrief({ peak, bandwidth }: Limits, memoryBytes: number): StepOptions {
  const stepMs = ({ config, B, T }: StepShape) =>
    (B * T * trainingFlops(config, T) * 1000) / (EXPECTED * peak) +
    (ADAMW_BYTES * parameterCount(config) * 1000) / bandwidth
  // The first step, which touches the memory, counts as one that is timed.
  const repeats = (model: StepShape) => Math.floor((BUDGET_MS / stepMs(model) - 1) / 2)
  const fits = (model: StepShape) => repeats(model) >= LEAST && arenaBytes(model) <= memoryBytes / 2
  const model = MODELS.find(fits) ?? MODELS.at(-1)!
  const times = Math.min(MOST, Math.max(LEAST, repeats(model)))
  return { ...model, steps: times, passes: times }
}

function arenaBytes({ config, B, T }: StepShape): number {
  const { phases, always } = trainingProgram(config, { B, T, accumulation: 1, adamw: ADAMW })
  return planMemory(phases, always).peak
}

/** The report. */
export function benchBriefly(kernels: Kernels): Promise<string> {
  const limits = measureLimits(kernels)
  return benchStep(kernels, chooseBrief(limits, usableMemory()), limits)
}
