// The shape of a GPT-2-class model: presets by name, and the rules that any shape obeys.

import { UserError } from "../errors.ts"

export interface Config {
  /** Longest context. */
  maxT: number
  /** Vocabulary, and the same padded to a multiple of 128. */
  V: number
  Vp: number
  /** Layers, heads, channels. */
  L: number
  NH: number
  C: number
}

export const GPT2_VOCABULARY = 50257
const VOCABULARY_ALIGN = 128 // rows of wte: whole tiles for every kernel

export const padVocabulary = (V: number) => Math.ceil(V / VOCABULARY_ALIGN) * VOCABULARY_ALIGN

// depth: channels, heads
const GPT2: Record<number, [C: number, NH: number]> = {
  6: [384, 6],
  12: [768, 12],
  24: [1024, 16],
  36: [1280, 20],
  48: [1600, 25],
  60: [1920, 30],
  72: [2880, 30],
  84: [3456, 36],
}

// channels: layers, head size
const GPT3: Record<number, [L: number, HS: number]> = {
  384: [6, 64],
  768: [12, 64],
  1024: [24, 64],
  1536: [24, 96],
  2048: [24, 128],
  2560: [32, 80],
  4096: [32, 128],
  5120: [40, 128],
  12288: [96, 128],
}

/** What a CPU trains from scratch while one waits. */
export const SMALL: Config = makeConfig({ L: 4, NH: 4, C: 128, maxT: 64, V: GPT2_VOCABULARY })

function makeConfig(shape: Omit<Config, "Vp">): Config {
  return { ...shape, Vp: padVocabulary(shape.V) }
}

export const PRESET_NAMES = [
  ...Object.keys(GPT2).map((depth) => `gpt2:d${depth}`),
  ...Object.keys(GPT3).map((channels) => `gpt3:c${channels}`),
]

/** The preset of a name such as gpt2:d12, d12 or gpt3:c768; undefined for other texts. */
export function preset(name: string): Config | undefined {
  const gpt2 = /^(?:gpt2:)?d(\d+)$/.exec(name)
  const gpt3 = /^gpt3:c(\d+)$/.exec(name)
  const shape2 = gpt2 && GPT2[Number(gpt2[1])]
  const shape3 = gpt3 && GPT3[Number(gpt3[1])]
  const V = GPT2_VOCABULARY
  if (shape2) {
    return makeConfig({ L: Number(gpt2[1]), C: shape2[0], NH: shape2[1], maxT: 1024, V })
  }
  if (shape3) {
    const C = Number(gpt3[1])
    return makeConfig({ L: shape3[0], C, NH: C / shape3[1], maxT: 2048, V })
  }
  if (gpt2 || gpt3 || /^gpt[23]:/.test(name)) {
    throw new UserError(`--init ${name} is no preset (there are ${PRESET_NAMES.join(", ")})`)
  }
  return undefined
}

/** Parameters, without the padding rows of wte. */
export function parameterCount({ maxT, V, L, C }: Config): number {
  return V * C + maxT * C + L * (12 * C * C + 13 * C) + 2 * C
}

/** Floating-point operations of training on one token of a context of T (Kaplan et al. 2020: two for
 * the forward pass and four for the backward pass a weight, and the attention's products). */
export function trainingFlops(config: Config, T: number): number {
  return 6 * parameterCount(config) + 6 * config.L * config.C * T
}

/** Throws for shapes that cannot be. */
export function checkConfig({ NH, C }: Config): void {
  if (C % NH === 0) return
  const divisors = Array.from({ length: C }, (_, i) => i + 1).filter((n) => C % n === 0)
  const usual = divisors.filter((n) => C / n >= 32 && C / n <= 128) // head sizes that models have
  const offered = usual.length > 0 ? usual : divisors
  const near = offered.sort((a, b) => Math.abs(a - NH) - Math.abs(b - NH) || a - b).slice(0, 3)
  const list = near
    .sort((a, b) => a - b)
    .join(", ")
    .replace(/, (\d+)$/, " or $1")
  throw new UserError(`--heads ${NH} does not divide --channels ${C} (try ${list})`)
}
