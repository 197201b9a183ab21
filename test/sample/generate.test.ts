// Text from a model, across the end of its context.

import { afterAll, afterEach, describe, expect, test } from "bun:test"
import { Random } from "../../src/data/random.ts"
import type { Config } from "../../src/model/config.ts"
import { initialize } from "../../src/model/initialize.ts"
import { decodeProgram } from "../../src/model/program.ts"
import { bestCpuLibrary, Kernels } from "../../src/native/library.ts"
import { Program } from "../../src/program/link.ts"
import { chooseToken } from "../../src/sample/choose.ts"
import { type GenerateOptions, generate } from "../../src/sample/generate.ts"
import { poison } from "../model/run.ts"

const CONFIG: Config = { L: 2, NH: 3, C: 48, V: 61, Vp: 128, maxT: 24 }

const kernels = await Kernels.open((await bestCpuLibrary()) ?? "reference")
const tensors = decodeProgram(CONFIG)
const program = await Program.link(tensors, kernels)
afterAll(() => program.free())
const oneThread = () => kernels.call("llm_threads", 1) // so small a model only waits for several
oneThread()
afterEach(oneThread)
poison(program)
initialize(program, tensors, CONFIG, kernels, 42)
// Ten times as far apart as at the start of a training: what came before then decides.
for (const name of ["wte", "wpe", "qkvw", "attprojw", "fcw", "fcprojw"]) {
  const weights = program.view(tensors.parameters[name] as typeof tensors.logits)
  for (let i = 0; i < weights.length; i++) weights[i]! *= 10
}

const OPTIONS: GenerateOptions = {
  prompt: [5, 6, 7],
  count: 60,
  context: CONFIG.maxT,
  temperature: 1,
  topK: 0,
  topP: 1,
  seed: 1,
}

const write = (changes: Partial<GenerateOptions> = {}) => [
  ...generate(program, tensors, CONFIG, { ...OPTIONS, ...changes }),
]

/** The same text with nothing kept from token to token: all that the model may look back on is read
 * anew, into a cache full of NaN. */
function withoutCache(changes: Partial<GenerateOptions>): number[] {
  const { prompt, count, context, seed, ...filters } = { ...OPTIONS, ...changes }
  const random = new Random(seed)
  const text: number[] = []
  let first = 0 // of the tokens that the model looks back on
  const read = (token: number) => {
    if (text.length - first === context) first = text.length - Math.floor(context / 2)
    text.push(token)
  }
  for (const token of prompt) read(token)
  while (text.length < prompt.length + count) {
    poison(program)
    text.slice(first).forEach((token, position) => {
      program.view(tensors.token)[0] = token
      program.view(tensors.position)[0] = position
      program.run("decode")
    })
    read(chooseToken(program.view(tensors.logits), CONFIG.V, filters, random.uniform()))
  }
  return text.slice(prompt.length)
}

const long = Array.from({ length: 2 * CONFIG.maxT + 3 }, (_, i) => (i * i) % CONFIG.V)

describe("the cache only saves work", () => {
  test.each<[string, Partial<GenerateOptions>]>([
    ["the model's longest context", {}],
    ["a shorter one, of odd length", { context: 7 }],
    ["a context of 2", { context: 2 }],
    ["a context of 1", { context: 1 }],
    ["a prompt that fills the context", { prompt: long.slice(0, CONFIG.maxT) }],
    ["a prompt longer than the context", { prompt: long }],
    ["a prompt longer than a shorter context", { prompt: long, context: 10 }],
    ["filters", { topK: 20, topP: 0.9, temperature: 0.7 }],
    ["temperature 0", { temperature: 0 }],
  ])("%s", async (_, changes) => {
    const text = write(changes)
    expect(text).toEqual(withoutCache(changes))
    expect(text).toHaveLength(OPTIONS.count)
    expect(text.every((token) => token >= 0 && token < CONFIG.V)).toBe(true)
  })
})

test("1 and 2 threads write the same text", async () => {
  const texts = []
  for (const threads of kernels.name === "reference" ? [1, 1] : [1, 2]) {
    expect(kernels.call("llm_threads", threads)).toBe(threads)
    texts.push(write())
  }
  expect(texts[1]).toEqual(texts[0]!)
})

test("the seed, the prompt and the context decide the text", async () => {
  const text = write()
  expect(write()).toEqual(text)
  expect(write({ count: 9 })).toEqual(text.slice(0, 9))
  expect(write({ seed: 2 })).not.toEqual(text)
  expect(write({ prompt: [5, 6, 8] })).not.toEqual(text)
  // The first tokens come before either context is full.
  const short = write({ context: 12 })
  expect(short.slice(0, 9)).toEqual(text.slice(0, 9))
  expect(short).not.toEqual(text)
})

test("a reader that stops early stops the model", async () => {
  const text = []
  for (const token of generate(program, tensors, CONFIG, OPTIONS)) {
    text.push(token)
    if (text.length === 4) break
  }
  expect(program.view(tensors.position)[0]).toBe(OPTIONS.prompt.length + 4 - 2)
  expect(text).toEqual(write().slice(0, 4))
})
