// Text from a model. A prompt goes into the caches many tokens at a time (prefill); then every
// sequence of the batch gains one token at a time (decode).

import { Random } from "../data/random.ts"
import { VOCABULARY } from "../data/tokenizer.ts"
import { assert } from "../errors.ts"
import type { Config } from "../model/config.ts"
import type { DecodeTensors } from "../model/program.ts"
import type { Program } from "../program/link.ts"
import { tensorBytes } from "../program/tensor.ts"
import { chooseToken, type Filters, logProbability } from "./choose.ts"

export interface SampleOptions extends Filters {
  /** How many tokens back the model looks: at most its longest context, and no further than it was
   * trained. */
  context: number
  seed: number
  /** Of the first sequence: with the seed, an index decides a sequence's draws. */
  index?: number
}

/** Where in a text the model begins to look when it reads token `last`. When the context is full, its
 * older half is dropped, as positions are absolute. */
export function windowStart(last: number, context: number): number {
  const dropped = Math.ceil(context / 2)
  return Math.max(0, Math.ceil((last + 1 - context) / dropped)) * dropped
}

export class Sampler {
  /** Tokens, the prompt's included: all texts are of one length. */
  readonly texts: number[][]
  private readonly seen: Set<number>[]
  private readonly draws: Random[]
  private readonly vocabulary: number
  /** The logits of what comes next, of all texts. */
  private scores: Float32Array = new Float32Array()
  /** The caches hold the tokens from `start` on and before `end`. */
  private start = 0
  private end = 0

  constructor(
    private readonly program: Program,
    private readonly tensors: DecodeTensors,
    private readonly config: Config,
    private readonly options: SampleOptions,
  ) {
    const { context, seed, index = 0 } = options
    assert(context >= 1 && context <= config.maxT, `a context of ${context}`)
    const B = tensors.token.shape[0]!
    this.texts = Array.from({ length: B }, () => [])
    this.seen = this.texts.map(() => new Set())
    this.draws = this.texts.map((_, b) => new Random(seed, index + b))
    this.vocabulary = Math.min(config.V, VOCABULARY) // a larger one's other tokens have no text
  }

  /** Whether there is text that the model does not see any more. */
  get hasDropped(): boolean {
    return this.start > 0
  }

  /** Appends tokens to all texts. */
  read(tokens: readonly number[]): void {
    for (const token of tokens) this.append(this.texts.map(() => token))
  }

  /** Chooses a token for each text, which must not be empty, and appends it. */
  next(): number[] {
    this.decode()
    const chosen = this.texts.map((_, b) => {
      const uniform = this.draws[b]!.uniform()
      return chooseToken(this.logits(b), this.vocabulary, this.options, uniform, this.seen[b])
    })
    this.append(chosen)
    return chosen
  }

  /** The log of the probability that the model itself, without any filter, gave to the token that was
   * chosen last for text b. */
  logProbability(b: number): number {
    return logProbability(this.logits(b), this.vocabulary, this.texts[b]!.at(-1)!)
  }

  private append(tokens: number[]): void {
    for (const [b, token] of tokens.entries()) {
      this.texts[b]!.push(token)
      this.seen[b]!.add(token)
    }
  }

  private logits(b: number): Float32Array {
    const { Vp } = this.config
    return this.scores.subarray(b * Vp, (b + 1) * Vp)
  }

  /** Reads the texts to their ends. */
  private decode(): void {
    const { program, tensors, texts } = this
    const last = texts[0]!.length - 1
    const start = windowStart(last, this.options.context)
    if (start > this.start) this.start = this.end = start
    if (this.end < last) this.prefill(last)
    program.write(
      tensors.token,
      Int32Array.from(texts, (text) => text[last]!),
    )
    program.write(tensors.position, new Int32Array(texts.length).fill(last - start))
    program.run("decode")
    this.scores = program.read(tensors.logits)
    this.end = last + 1
  }

  /** Fills the caches up to token `end`: those of sequence 0 with one text after another, each of which
   * is then copied to its own place. What stays there at last is text 0. */
  private prefill(end: number): void {
    const { texts, start } = this
    const from = texts.length === 1 ? this.end : start // other texts' tokens are not in sequence 0
    for (let b = texts.length - 1; b >= 0; b--) {
      const isSame = b + 1 < texts.length && equal(texts[b]!, texts[b + 1]!, start, end)
      if (!isSame) this.prefillText(texts[b]!, from, end)
      if (b > 0) this.copyCaches(b, end - start)
    }
  }

  private prefillText(text: number[], from: number, end: number): void {
    const { program, start } = this
    const { prompt, promptPosition } = this.tensors
    const T = prompt.shape[1]!
    for (let at = from; at < end; at += T) {
      // A last chunk is filled up with any tokens; where there are no places left for them, it begins
      // with tokens that have been read already.
      const position = Math.min(at - start, this.config.maxT - T)
      const first = start + position
      const tokens = new Int32Array(T)
      tokens.set(text.slice(first, Math.min(first + T, end)))
      program.write(prompt, tokens)
      program.write(promptPosition, Int32Array.of(position))
      program.run("prefill")
    }
  }

  /** The first rows of sequence 0's caches become those of sequence b. */
  private copyCaches(b: number, rows: number): void {
    for (const cache of this.tensors.caches) {
      const bytes = tensorBytes(cache) / this.texts.length
      const used = (bytes / this.config.maxT) * rows
      this.program.copyWithin(cache, b * bytes, 0, used)
    }
  }
}

function equal(a: number[], b: number[], from: number, to: number): boolean {
  for (let i = from; i < to; i++) if (a[i] !== b[i]) return false
  return true
}

export interface GenerateOptions extends SampleOptions {
  /** At least one token. */
  prompt: number[]
  /** How many tokens to write. */
  count: number
}

/** Yields `count` tokens after the prompt, of the first sequence. */
export function* generate(
  program: Program,
  tensors: DecodeTensors,
  config: Config,
  { prompt, count, ...options }: GenerateOptions,
): Generator<number> {
  const sampler = new Sampler(program, tensors, config, options)
  sampler.read(prompt)
  for (let i = 0; i < count; i++) yield sampler.next()[0]!
}
