// Text from a model, across the end of its context.

import { afterAll, afterEach, describe, expect, test } from "bun:test"
import { Random } from "../../src/data/random.ts"
import type { Config } from "../../src/model/config.ts"
import { initialize } from "../../src/model/initialize.ts"
import { decodeProgram } from "../../src/model/program.ts"
import { bestCpuLibrary, Kernels } from "../../src/native/library.ts"
import { Program } from "../../src/program/link.ts"
import { chooseToken, NO_FILTERS } from "../../src/sample/choose.ts"
import { type GenerateOptions, generate, Sampler, windowStart } from "../../src/sample/generate.ts"
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
  ...NO_FILTERS,
  seed: 1,
}

const write = (changes: Partial<GenerateOptions> = {}) => [
  ...generate(program, tensors, CONFIG, { ...OPTIONS, ...changes }),
]

/** The same text, read one token at a time, with nothing kept from token to token: all that the model may look back
 * on is read anew, into a cache full of NaN. The logits are other sums of the same numbers: no draw falls
 * between them. */
function withoutCache(changes: Partial<GenerateOptions>): number[] {
  const { prompt, count, context, seed, ...filters } = { ...OPTIONS, ...changes }
  const random = new Random(seed, 0)
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

test("the window is that of a reader who drops the older half when it is full", () => {
  for (const context of [1, 2, 3, 7, 8, 24]) {
    let first = 0
    for (let i = 0; i < 5 * context; i++) {
      if (i - first === context) first = i - Math.floor(context / 2)
      expect([context, i, windowStart(i, context)]).toEqual([context, i, first])
    }
  }
})

describe("a sequence of a batch", () => {
  const { prompt, count, ...options } = OPTIONS

  async function batch(B: number, index: number, changes: Partial<GenerateOptions>) {
    const own = decodeProgram(CONFIG, "fp32", B)
    const linked = await Program.link(own, kernels)
    poison(linked)
    for (const [name, tensor] of Object.entries(own.parameters)) {
      linked.bytes(tensor).set(program.bytes(tensors.parameters[name]!))
    }
    const sampler = new Sampler(linked, own, CONFIG, { ...options, ...changes, index })
    sampler.read(changes.prompt ?? prompt)
    const logProbabilities = Array.from({ length: count }, () => {
      sampler.next()
      return sampler.texts.map((_, b) => sampler.logProbability(b))
    })
    linked.free()
    return { texts: sampler.texts, logProbabilities }
  }

  test.each<[string, Partial<GenerateOptions>]>([
    ["that passes its context", {}],
    ["with a long prompt", { prompt: long }],
    ["with filters", { topK: 30, minP: 0.01, repetitionPenalty: 1.2, temperature: 0.8 }],
  ])("%s is the one that it is alone, to the last bit", async (_, changes) => {
    const { texts, logProbabilities } = await batch(5, 0, changes)
    expect(new Set(texts.map(String)).size).toBe(5)
    for (const b of [0, 2, 4]) {
      const alone = await batch(1, b, changes)
      expect(alone.texts[0]).toEqual(texts[b]!)
      expect(alone.logProbabilities.map(([p]) => p)).toEqual(logProbabilities.map((p) => p[b]))
    }
    const part = await batch(2, 3, changes)
    expect(part.texts).toEqual(texts.slice(3))
  })
})

test("log-probabilities are the model's, whatever the filters are", () => {
  const { prompt, count: _, ...options } = OPTIONS
  const sampler = new Sampler(program, tensors, CONFIG, { ...options, temperature: 0.3, topK: 2 })
  sampler.read(prompt)
  for (let i = 0; i < 5; i++) {
    const [token] = sampler.next()
    const exponentials = [...program.view(tensors.logits).subarray(0, CONFIG.V)].map(Math.exp)
    const total = exponentials.reduce((sum, x) => sum + x, 0)
    expect(sampler.logProbability(0)).toBeCloseTo(Math.log(exponentials[token!]! / total), 10)
  }
})
