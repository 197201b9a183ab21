// What a training run does, resolved from the options: every default filled in, every pair of
// options that contradict each other refused.

import { existsSync } from "node:fs"
import { builtinCorpus, type Corpus, natsOfFirst } from "../data/corpus.ts"
import { Loader, type LoaderOptions } from "../data/loader.ts"
import { UserError } from "../errors.ts"
import type { Choices } from "../eval/choices.ts"
import {
  type Config,
  checkConfig,
  GPT2_VOCABULARY,
  PRESET_NAMES,
  padVocabulary,
  preset,
  SMALL,
} from "../model/config.ts"
import type { TrainingOptions } from "../model/program.ts"
import type { Platform } from "../native/contract.ts"
import { USUAL } from "../native/device.ts"
import type { Kernels } from "../native/library.ts"
import type { Options } from "../options.ts"
import { CHUNK_ALIGN } from "../program/chunk.ts"
import type { GeluFusion } from "../program/fuse.ts"
import type { ProgramSource } from "../program/link.ts"
import { planMemory } from "../program/plan.ts"
import type { Recompute } from "../program/recompute.ts"
import { hubName, openModel } from "../weights/open.ts"
import type { WeightSource } from "../weights/source.ts"

export interface ModelChoice {
  config: Config
  /** Weights to start from; otherwise they are drawn. */
  source?: WeightSource
}

const MAX_ROWS = 2 ** 31 - 1 // a kernel counts rows in an int
const SHAPE_OPTIONS = ["layers", "heads", "channels", "context-max", "vocab"]

/** Whether --init is a path or a model of the hub, not a preset's name. */
export function namesWeights(options: Options): boolean {
  const init = options.text("init")
  return init !== undefined && preset(init) === undefined
}

/** The model that --init and the shape options name; `usual` is the context of a run that names none. */
export async function chooseModel(
  options: Options,
  usual = USUAL.cpu.context,
): Promise<ModelChoice> {
  const init = options.text("init")
  const base = init === undefined ? SMALL : preset(init)
  if (init !== undefined && base === undefined) {
    if (!existsSync(init) && hubName(init) === undefined) {
      const presets = `presets: ${PRESET_NAMES.join(", ")}; of the hub: gpt2, OWNER/NAME`
      throw new UserError(`--init ${init}: no such file and no preset (${presets})`)
    }
    const shape = SHAPE_OPTIONS.find((name) => options.isGiven(name))
    if (shape) {
      throw new UserError(
        `--${shape} ${options.number(shape)} contradicts --init ${init}, whose weights fix the model's shape (leave one out)`,
      )
    }
    const source = await openModel(init)
    return { config: source.config, source }
  }
  const { L, NH, C, V } = base!
  // The small model is made for its run: positions that it never trains would only spoil samples.
  const maxT = init === undefined ? (options.optionalNumber("context") ?? usual) : base!.maxT
  const chosenV = options.optionalNumber("vocab") ?? V
  const config = {
    L: options.optionalNumber("layers") ?? L,
    NH: options.optionalNumber("heads") ?? NH,
    C: options.optionalNumber("channels") ?? C,
    maxT: options.optionalNumber("context-max") ?? maxT,
    V: chosenV,
    Vp: padVocabulary(chosenV),
  }
  checkConfig(config)
  return { config }
}

export interface Validation {
  val: Loader
  /** The entropy of the first `count` targets of the built-in corpus, in nats a token: no model's loss
   * over them can be expected below it. */
  valEntropy?: (count: number) => number
}

export interface Data extends Partial<Validation> {
  name: string
  train: Loader
  /** Why there is no validation, when there is none. */
  noVal?: string
  /** Questions to answer at every validation. */
  hellaswag?: Choices
}

/** Opens the token files, or makes the built-in corpus. */
export async function openData(options: Options, shape: LoaderOptions): Promise<Data> {
  const tokens = options.text("tokens")
  const given = options.text("val")
  const valShape = { ...shape, shuffle: false }
  if (tokens === undefined) {
    if (given !== undefined) {
      throw new UserError(
        `--val ${given} needs TOKENS (the built-in corpus has its own validation)`,
      )
    }
    if (shape.vocabulary < GPT2_VOCABULARY) {
      throw new UserError(
        `--vocab ${shape.vocabulary} is below ${GPT2_VOCABULARY}, the built-in corpus's vocabulary (leave it out, or give TOKENS)`,
      )
    }
    const corpus = await builtinCorpus()
    return {
      name: "the built-in corpus of plays",
      train: Loader.over("the built-in corpus", corpus.train, shape),
      ...builtinValidation(corpus, valShape),
    }
  }
  const train = Loader.open(tokens, shape)
  if (given !== undefined) return { name: tokens, train, val: Loader.open(given, valShape) }

  const guess = tokens.replace(/_train(?!.*_train)/, "_val")
  if (guess === tokens)
    return { name: tokens, train, noVal: `${tokens} has no _train to replace by _val` }
  const isThere =
    existsSync(guess) || (/[*?[{]/.test(guess) && !new Bun.Glob(guess).scanSync().next().done)
  if (!isThere) return { name: tokens, train, noVal: `there is no ${guess}` }
  return { name: tokens, train, val: Loader.open(guess, valShape) }
}

/** The built-in corpus's part for validation. */
export function builtinValidation({ val, valScenes }: Corpus, shape: LoaderOptions): Validation {
  return {
    val: Loader.over("the built-in corpus's validation part", val, shape),
    // The first token is no target; it is certain and adds no nats.
    valEntropy: (count: number) => natsOfFirst(valScenes, count + 1) / count,
  }
}

export interface Shape {
  B: number
  T: number
  accumulation: number
  totalBatch: number
}

/** B, T and the micro-steps of an optimizer step; T is by default `usual`. */
export function chooseShape(options: Options, config: Config, usual = USUAL.cpu.context): Shape {
  const { B, T } = chooseBatch(options, config, usual)
  const totalBatch = options.optionalNumber("total-batch") ?? B * T
  if (totalBatch % (B * T) !== 0) {
    const below = Math.floor(totalBatch / (B * T)) * B * T
    const above = below + B * T
    throw new UserError(
      `--total-batch ${totalBatch} is not a multiple of --batch ${B} × --context ${T} = ${B * T} tokens (try ${below > 0 ? `${below} or ` : ""}${above})`,
    )
  }
  return { B, T, accumulation: totalBatch / (B * T), totalBatch }
}

/** B and T, by default `usual` or the model's longest context. */
export function chooseBatch(options: Options, { maxT }: Config, usual: number) {
  const B = options.number("batch")
  const T = options.optionalNumber("context") ?? Math.min(usual, maxT)
  if (T > maxT) {
    throw new UserError(
      `--context ${T} is above the model's longest context of ${maxT} (try --context ${maxT}, or a model with a larger --context-max)`,
    )
  }
  if (B * T > MAX_ROWS) {
    throw new UserError(
      `--batch ${B} × --context ${T} = ${B * T} tokens are above ${MAX_ROWS}, the most of one pass (lower one; a training run reaches the same --total-batch by accumulation)`,
    )
  }
  return { B, T }
}

/** How the list of a step's calls is rewritten. */
export type Rewrites = Pick<TrainingOptions, "classifierRows" | "recompute" | "geluFusion">

export function chooseRewrites(options: Options): Rewrites {
  const fusion = options.text("gelu-fusion")
  if (options.text("precision") === "fp8" && fusion !== "auto") {
    throw new UserError(
      `--gelu-fusion ${fusion} contradicts --precision fp8, whose GELUs join what stores a product's input (try --gelu-fusion auto)`,
    )
  }
  return {
    classifierRows: chooseClassifierRows(options),
    recompute: options.text("recompute") as Recompute,
    geluFusion: (fusion === "auto" ? 2 : Number(fusion)) as GeluFusion,
  }
}

/** Rows of logits that exist at once by --classifier-rows; undefined: all. */
function chooseClassifierRows(options: Options): number | undefined {
  const rows = options.optionalNumber("classifier-rows")
  if (!rows) return undefined
  if (rows % CHUNK_ALIGN !== 0) {
    const above = Math.ceil(rows / CHUNK_ALIGN) * CHUNK_ALIGN
    throw new UserError(
      `--classifier-rows ${rows} is not a multiple of ${CHUNK_ALIGN} (try ${above}, or 0 for all rows)`,
    )
  }
  return rows
}

// A CPU is as fast on few rows; a GPU wants as many as there is room for.
const CHUNKS: Record<Platform, number[]> = { cpu: [1], cuda: [64, 16, 4, 1] }

/** The program whose classifier works on as many rows at once as --classifier-rows says, or as the
 * kernels' memory has room for. */
export function fitting<P extends ProgramSource>(
  options: Options,
  kernels: Kernels,
  make: (classifierRows?: number) => P,
) {
  const given = chooseClassifierRows(options)
  const memory = kernels.usableMemory()
  const fits = ({ phases, always }: P) => planMemory(phases, always).peak <= memory
  const whole = make(given)
  const isLeft = options.optionalNumber("classifier-rows") === undefined
  if (!isLeft || fits(whole)) return { tensors: whole, classifierRows: given }
  const sizes = CHUNKS[kernels.platform].map((chunks) => chunks * CHUNK_ALIGN)
  const rows = sizes.find((size) => fits(make(size))) ?? CHUNK_ALIGN
  return { tensors: make(rows), classifierRows: rows }
}
