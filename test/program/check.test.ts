import { beforeAll, expect, test } from "bun:test"
import { type Config, padVocabulary } from "../../src/model/config.ts"
import { initialize } from "../../src/model/initialize.ts"
import { type TrainingProgram, trainingProgram } from "../../src/model/program.ts"
import { openDevice } from "../../src/native/device.ts"
import { contract, type Kernels } from "../../src/native/library.ts"
import { findBad, findNotFinite } from "../../src/program/check.ts"
import { Program } from "../../src/program/link.ts"
import type { Tensor } from "../../src/program/tensor.ts"

const CONFIG: Config = { maxT: 8, V: 97, Vp: padVocabulary(97), L: 2, NH: 2, C: 16 }
const adamw = { beta1: 0.9, beta2: 0.95, eps: 1e-8, weightDecay: 0 }
let kernels: Kernels
let tensors: TrainingProgram
let program: Program

beforeAll(async () => {
  kernels = await openDevice("auto", 2)
  tensors = trainingProgram(CONFIG, { B: 2, T: 8, accumulation: 3, adamw })
  program = await Program.link(tensors, kernels)
})

const numbers = (name: string) =>
  program.view(tensors.parameters[name] as never as typeof tensors.loss)

/** Searches the three micro-batches of a fresh model; `spoil` is called before each. */
async function search(spoil: (micro: number) => void): Promise<string | undefined> {
  initialize(program, tensors, CONFIG, kernels, 1)
  const next = (micro: number) => {
    program.view(tensors.tokens).forEach((_, i, all) => {
      all[i] = (i * 7 + micro) % 97
    })
    program.view(tensors.targets).fill(3)
    spoil(micro)
  }
  return findBad(program, tensors, kernels, await contract(), {
    accumulation: 3,
    next,
    calibrate: 0,
  })
}

test("where all numbers are finite, nothing is found", async () => {
  expect(await search(() => {})).toBeUndefined()
})

test("the first tensor is named, with its call, its pass and its micro-batch", async () => {
  const found = await search((micro) => {
    if (micro === 1) numbers("fcw").fill(3e38, 4 * 16 * 16) // of the second layer
  })
  // The product writes its GELU as well, and first.
  expect(found).toBe(
    "h1.fch_gelu (2,8,64), made by matmul_forward in the forward pass of micro-batch 1",
  )
})

test("a gradient that overflows while the loss is finite", async () => {
  const found = await search((micro) => {
    if (micro !== 2) return
    // The product of the two is tame; on the way back only the large one counts.
    numbers("fcw").fill(1e-38)
    numbers("fcprojw").fill(3e38)
    numbers("lnfw").fill(1000)
  })
  expect(found).toMatch(
    /^dh1\.fch\S* \(2,8,64\), made by matmul_backward_input in the backward pass of/,
  )
})

test("a parameter that is bad from the start", async () => {
  initialize(program, tensors, CONFIG, kernels, 1)
  numbers("qkvb")[50] = Number.POSITIVE_INFINITY
  const signatures = await contract()
  const found = findBad(program, tensors, kernels, signatures, {
    accumulation: 3,
    next: () => {},
    calibrate: 0,
  })
  expect(found).toBe("the parameter qkvb (2,48)")
})

test("of more numbers in bf16 than are looked at at once, the first and the last", async () => {
  const config = { ...CONFIG, V: 50257, Vp: padVocabulary(50257), C: 128 }
  const wide = trainingProgram(config, { B: 1, T: 8, accumulation: 1, adamw, precision: "bf16" })
  const reference = await openDevice("reference", 1)
  const spoiled = await Program.link(wide, reference)
  const { wte, wpe } = wide.parameters as unknown as Record<string, Tensor & { dtype: "bf16" }>
  const numbers = spoiled.view(wte!)
  const found = () => findNotFinite(spoiled, wide, reference, [wpe!, wte!])?.name
  expect(numbers.length).toBeGreaterThan(2 ** 22)
  expect(found()).toBeUndefined()
  for (const [at, bits] of [
    [0, 0x7f80],
    [numbers.length - 1, 0xffc0],
  ] as const) {
    // Infinity, NaN
    numbers[at] = bits
    expect(found()).toBe("wte")
    numbers[at] = 0x7f7f // the largest that is finite
    expect(found()).toBeUndefined()
  }
  spoiled.free()
})
