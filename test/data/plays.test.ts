import { describe, expect, test } from "bun:test"
import fc from "fast-check"
import {
  builtinCorpus,
  natsOfFirst,
  packCorpus,
  type TokenizedScene,
  unpackCorpus,
} from "../../src/data/corpus.ts"
import { type Choices, generatePlays, writeScene } from "../../src/data/plays.ts"
import { loadEncoder } from "../../src/data/tokenizer.ts"

const { text, scenes, nats } = generatePlays({ seed: 1, bytes: 300_000 })

/** Finds the choices that wrote a text. At every choice exactly one option may fit what follows. */
class Reader implements Choices {
  at = 0
  nats = 0

  constructor(private readonly text: string) {}

  say(expected: string): void {
    expect(this.text.slice(this.at, this.at + expected.length)).toBe(expected)
    this.at += expected.length
  }

  pick<T extends string>(options: readonly T[], weights?: readonly number[]): T {
    const fits = options.map((option) => this.fits(option))
    expect(fits.filter(Boolean).length).toBe(1)
    const index = fits.indexOf(true)
    const total = weights?.reduce((sum, weight) => sum + weight, 0) ?? options.length
    this.nats -= Math.log((weights?.[index] ?? 1) / total)
    this.at += options[index]!.length
    return options[index]!
  }

  // A word fits only whole: "well" is not the start of "wellspring".
  private fits(option: string): boolean {
    const after = this.text[this.at + option.length] ?? ""
    const cutsWord = /[A-Za-z]$/.test(option) && /[A-Za-z]/.test(after)
    return this.text.startsWith(option, this.at) && !cutsWord
  }
}

describe("plays", () => {
  test("the text tells which choices were made, and so its exact probability", () => {
    for (const scene of scenes) {
      const reader = new Reader(scene.text)
      writeScene(reader)
      expect(reader.at).toBe(scene.text.length)
      expect(reader.nats).toBeCloseTo(scene.nats, 8)
    }
    expect(scenes.reduce((sum, scene) => sum + scene.nats, 0)).toBeCloseTo(nats, 6)
  })

  test("a text that was tampered with is not read", () => {
    const changed = scenes[0]!.text.replace("SCENE. The ", "SCENE. The grand ")
    expect(() => writeScene(new Reader(changed))).toThrow()
  })

  test("choices come as often as their probabilities say", () => {
    // The sum of −log p over the choices made then stays close to the sum of the choices' entropies.
    // Its standard deviation comes from the choices that are not uniform.
    let difference = 0
    let variance = 0
    for (const scene of scenes) {
      const reader = new Reader(scene.text)
      const pick = reader.pick.bind(reader)
      reader.pick = (options, weights) => {
        const before = reader.nats
        const option = pick(options, weights)
        if (weights) {
          const total = weights.reduce((sum, weight) => sum + weight, 0)
          const logs = weights.map((weight) => -Math.log(weight / total))
          const mean = logs.reduce((sum, log, i) => sum + (log * weights[i]!) / total, 0)
          difference += reader.nats - before - mean
          variance += logs.reduce(
            (sum, log, i) => sum + ((log - mean) ** 2 * weights[i]!) / total,
            0,
          )
        }
        return option
      }
      writeScene(reader)
    }
    expect(variance).toBeGreaterThan(100)
    expect(Math.abs(difference) / Math.sqrt(variance)).toBeLessThan(4)
  })

  test("a seed gives the same text every time, another seed another text", () => {
    fc.assert(
      fc.property(fc.nat(), (seed) => {
        const once = generatePlays({ seed, bytes: 5000 })
        expect(generatePlays({ seed, bytes: 5000 })).toEqual(once)
        expect(generatePlays({ seed: seed + 1, bytes: 5000 }).text).not.toBe(once.text)
        expect(once.text.length).toBeGreaterThanOrEqual(5000)
      }),
      { numRuns: 20 },
    )
  })

  test("scenes are made of a few hundred words, nearly all of them single tokens", async () => {
    const encode = await loadEncoder()
    const words = new Set(text.match(/[a-z]+/g))
    const single = [...words].filter((word) => encode(` ${word}`).length === 1)
    expect(words.size).toBeGreaterThan(200)
    expect(words.size).toBeLessThan(600)
    expect(single.length / words.size).toBeGreaterThan(0.95)
  })

  test("a scene keeps its object, its refrain and who may speak", () => {
    for (const { text } of scenes) {
      const object = /Enter [A-Z]+, with the (\w+ \w+)\./.exec(text)![1]!
      const given = /(?:gives|breaks) the (\w+ \w+)/.exec(text)![1]!
      expect(given).toBe(object)
      const entered = [...text.matchAll(/Enter (\w+)(?: and (\w+))?/g)].flatMap((m) => m.slice(1))
      const speakers = [...text.matchAll(/^([A-Z]+):$/gm)].map((match) => match[1]!)
      for (const speaker of speakers) expect(entered).toContain(speaker)
      const refrains = text.match(/^(?:Sing|Ring|Turn|Blow|Hush|Sail) \w+, .*$/gm) ?? []
      expect(new Set(refrains).size).toBeLessThan(2)
    }
  })
})

describe("the built-in corpus", () => {
  test("has about a megabyte and a known entropy", async () => {
    const corpus = await builtinCorpus()
    expect(corpus.train.length).toBeGreaterThan(250_000)
    expect(corpus.val.length).toBeGreaterThan(25_000)
    for (const entropy of [corpus.trainNatsPerToken, corpus.valNatsPerToken]) {
      expect(entropy).toBeGreaterThan(0.9)
      expect(entropy).toBeLessThan(1.9)
    }
    expect(corpus).toEqual(await builtinCorpus())
    expect(unpackCorpus(packCorpus(corpus))).toEqual(corpus)
  })

  test("tells the nats of its first validation tokens, a scene in part as a part of it", async () => {
    const { val, valScenes, valNatsPerToken } = await builtinCorpus()
    const [first, second] = valScenes as [TokenizedScene, TokenizedScene]
    expect(natsOfFirst(valScenes, first.tokens)).toBe(first.nats)
    const half = natsOfFirst(valScenes, first.tokens + second.tokens / 2)
    expect(half).toBeCloseTo(first.nats + second.nats / 2, 9)
    const all = natsOfFirst(valScenes, val.length)
    expect(all / val.length).toBeCloseTo(valNatsPerToken, 9)
  })

  test("no 4-gram model of the training tokens reaches the entropy", async () => {
    const { train, val, valNatsPerToken } = await builtinCorpus()
    expect(ngramLoss(train, val, 4)).toBeGreaterThan(valNatsPerToken * 1.3)
  })
})

/** Mean −log p of a model that interpolates the counts of the last n−1 tokens (Witten, Bell). */
function ngramLoss(train: Uint16Array, val: Uint16Array, n: number): number {
  const counts = Array.from({ length: n }, () => new Map<string, Map<number, number>>())
  for (let i = n; i < train.length; i++) {
    for (let k = 0; k < n; k++) {
      const context = train.subarray(i - k, i).join()
      const next = counts[k]!.get(context) ?? new Map<number, number>()
      counts[k]!.set(context, next.set(train[i]!, (next.get(train[i]!) ?? 0) + 1))
    }
  }
  let nats = 0
  for (let i = n; i < val.length; i++) {
    let p = 1 / 50257
    for (let k = 0; k < n; k++) {
      const next = counts[k]!.get(val.subarray(i - k, i).join())
      if (!next) break
      const total = next.values().reduce((sum, count) => sum + count, 0)
      p = ((next.get(val[i]!) ?? 0) + next.size * p) / (total + next.size)
    }
    nats -= Math.log(p)
  }
  return nats / (val.length - n)
}
