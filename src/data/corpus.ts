// The built-in corpus as tokens. Writing and tokenizing it takes half a second, so `bun run build`
// puts the usual one into the executable; a run from a checkout, or another seed, makes it anew.

import { assetNames, readAsset } from "../native/assets.ts"
import type { Scene } from "./plays.ts"
import { END_OF_TEXT, type Encode } from "./tokenizer.ts"

export type Corpus = {
  train: Uint16Array
  val: Uint16Array
  trainNatsPerToken: number
  valNatsPerToken: number
  valScenes: TokenizedScene[]
}
export type TokenizedScene = { tokens: number; nats: number }

export const CORPUS_SEED = 1
export const CORPUS_FILE = "plays.bin"
const CORPUS_BYTES = 1_100_000
const VAL_FRACTION = 0.1
const COUNTS = 4 // numbers of the packed corpus before its scenes

/** The corpus, each scene after an end-of-text token. The last scenes are for validation. The
 * entropy per token counts the end-of-text tokens, which are certain. */
export async function builtinCorpus(seed = CORPUS_SEED): Promise<Corpus> {
  const isStored = seed === CORPUS_SEED && assetNames().includes(CORPUS_FILE)
  return isStored ? unpackCorpus(await readAsset(CORPUS_FILE)) : makeCorpus(seed)
}

export async function makeCorpus(seed: number): Promise<Corpus> {
  const { generatePlays } = await import("./plays.ts")
  const { loadEncoder } = await import("./tokenizer.ts")
  const encode = await loadEncoder()
  const { scenes } = generatePlays({ seed, bytes: CORPUS_BYTES })
  const cut = Math.round(scenes.length * (1 - VAL_FRACTION))
  const train = tokenize(scenes.slice(0, cut), encode)
  const val = tokenize(scenes.slice(cut), encode)
  return {
    train: train.tokens,
    trainNatsPerToken: train.natsPerToken,
    val: val.tokens,
    valNatsPerToken: val.natsPerToken,
    valScenes: val.scenes,
  }
}

function tokenize(scenes: Scene[], encode: Encode) {
  const parts = scenes.map(({ text }) => [END_OF_TEXT, ...encode(text)])
  const tokens = Uint16Array.from(parts.flat())
  const nats = scenes.reduce((sum, scene) => sum + scene.nats, 0)
  const sizes = scenes.map((scene, i) => ({ tokens: parts[i]!.length, nats: scene.nats }))
  return { tokens, natsPerToken: nats / tokens.length, scenes: sizes }
}

/** Nats in the first `count` tokens of scenes. One that ends within a scene takes its share. */
export function natsOfFirst(scenes: TokenizedScene[], count: number): number {
  let left = count
  let sum = 0
  for (const { tokens, nats } of scenes) {
    sum += (nats * Math.min(left, tokens)) / tokens
    left -= Math.min(left, tokens)
  }
  return sum
}

/** The corpus as one file: f64 numbers (two entropies, two counts, the scenes), then tokens. */
export function packCorpus(corpus: Corpus): Uint8Array {
  const { train, val, trainNatsPerToken, valNatsPerToken, valScenes } = corpus
  const scenes = valScenes.flatMap(({ tokens, nats }) => [tokens, nats])
  const numbers = [trainNatsPerToken, valNatsPerToken, train.length, valScenes.length, ...scenes]
  const bytes = new Uint8Array(8 * numbers.length + train.byteLength + val.byteLength)
  new Float64Array(bytes.buffer, 0, numbers.length).set(numbers)
  const tokens = new Uint16Array(bytes.buffer, 8 * numbers.length)
  tokens.set(train)
  tokens.set(val, train.length)
  return bytes
}

export function unpackCorpus(bytes: Uint8Array): Corpus {
  const whole = bytes.slice().buffer // a buffer of its own: the numbers are aligned
  const [trainNats, valNats, trainTokens, scenes] = new Float64Array(whole, 0, COUNTS)
  const pairs = new Float64Array(whole, 8 * COUNTS, 2 * scenes!)
  const tokens = new Uint16Array(whole, 8 * (COUNTS + pairs.length))
  return {
    train: tokens.subarray(0, trainTokens),
    trainNatsPerToken: trainNats!,
    val: tokens.subarray(trainTokens),
    valNatsPerToken: valNats!,
    valScenes: Array.from({ length: scenes! }, (_, i) => {
      return { tokens: pairs[2 * i]!, nats: pairs[2 * i + 1]! }
    }),
  }
}
