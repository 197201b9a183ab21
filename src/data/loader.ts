// Batches from token files. Consecutive batches advance by B·T tokens a rank and read one more, as
// the targets are the inputs shifted by one. What is left at a shard's end, less than one batch of
// all ranks, is skipped.

import { existsSync } from "node:fs"
import { assert, UserError } from "../errors.ts"
import { checkTokens, openTokens, type Tokens } from "../formats/tokens.ts"
import { thousands } from "./files.ts"
import { Random } from "./random.ts"

/** Where the next batch comes from. Plain data: a checkpoint can hold it. */
export type LoaderPosition = { epoch: number; shard: number; batch: number }

export type LoaderOptions = {
  B: number
  T: number
  vocabulary: number
  shuffle?: boolean
  seed?: number
  rank?: number
  ranks?: number
}

type Shard = { name: string; tokens: Tokens; batches: number }

export class Loader {
  readonly tokenCount: number
  readonly batchesPerEpoch: number
  private readonly batchTokens: number // of all ranks
  private epoch = 0
  private shard = 0
  private batch = 0
  // The orders of the epoch and of the shard that are being read; rebuilt from the seed when needed.
  private shardOrder: Uint32Array | undefined
  private batchOrder: Uint32Array | undefined

  private constructor(
    private readonly shards: Shard[],
    private readonly options: Required<LoaderOptions>,
  ) {
    this.batchTokens = options.B * options.T * options.ranks
    this.tokenCount = shards.reduce((sum, s) => sum + s.tokens.length, 0)
    this.batchesPerEpoch = shards.reduce((sum, s) => sum + s.batches, 0)
  }

  /** From token files: a path or a glob, in the order of their names. Every token is checked now: a
   * bad one that is found after hours of training would end the run. */
  static open(pattern: string, options: LoaderOptions): Loader {
    const shards = findFiles(pattern).map((name) =>
      Loader.cut(name, openTokens(name, options.vocabulary), options),
    )
    return new Loader(shards, Loader.complete(options))
  }

  /** From tokens in memory. */
  static over(name: string, tokens: Tokens, options: LoaderOptions): Loader {
    return new Loader([Loader.cut(name, tokens, options)], Loader.complete(options))
  }

  private static complete(options: LoaderOptions): Required<LoaderOptions> {
    const all = { shuffle: false, seed: 42, rank: 0, ranks: 1, ...options }
    assert(all.B >= 1 && all.T >= 1 && all.rank >= 0 && all.rank < all.ranks, "bad loader options")
    return all
  }

  private static cut(name: string, tokens: Tokens, options: LoaderOptions): Shard {
    const { B, T, vocabulary, ranks = 1 } = options
    const batches = Math.floor((tokens.length - 1) / (B * T * ranks))
    if (batches < 1) {
      const shape = ranks > 1 ? `${ranks} ranks of ${B}×${T}` : `${B}×${T}`
      throw new UserError(
        `${name}: ${thousands(tokens.length)} tokens are too few for one batch of ${shape}, which reads ${thousands(B * T * ranks + 1)} (try a smaller --batch or --context)`,
      )
    }
    checkTokens(name, tokens, vocabulary)
    return { name, tokens, batches }
  }

  /** The next batch: inputs and targets (B,T), overwritten. */
  next(inputs: Int32Array, targets: Int32Array): void {
    const { B, T, rank } = this.options
    const length = B * T
    assert(inputs.length === length && targets.length === length, "batch views must hold B·T")
    const { tokens } = this.enterShard()
    const index = this.batchOrder ? this.batchOrder[this.batch]! : this.batch
    const start = index * this.batchTokens + rank * length
    inputs.set(tokens.subarray(start, start + length))
    targets.set(tokens.subarray(start + 1, start + length + 1))
    this.advance()
  }

  private enterShard(): Shard {
    const { shuffle, seed } = this.options
    if (shuffle) {
      this.shardOrder ??= new Random(seed, this.epoch).permutation(this.shards.length)
    }
    const index = this.shardOrder ? this.shardOrder[this.shard]! : this.shard
    const shard = this.shards[index]!
    if (shuffle) {
      this.batchOrder ??= new Random(seed, this.epoch, index + 1).permutation(shard.batches)
    }
    return shard
  }

  private advance(): void {
    const index = this.shardOrder ? this.shardOrder[this.shard]! : this.shard
    if (++this.batch < this.shards[index]!.batches) return
    this.batch = 0
    this.batchOrder = undefined
    if (++this.shard < this.shards.length) return
    this.shard = 0
    this.epoch++
    this.shardOrder = undefined
  }

  get position(): LoaderPosition {
    return { epoch: this.epoch, shard: this.shard, batch: this.batch }
  }

  /** Goes on exactly where `position` was read, given the same files and options. */
  restore(position: LoaderPosition): void {
    const { epoch, shard, batch } = position
    const whole = [epoch, shard, batch].every((n) => Number.isSafeInteger(n) && n >= 0)
    if (!whole || shard >= this.shards.length) {
      throw new UserError(
        `saved position ${JSON.stringify(position)} does not fit ${this.shards.length} token files (resume with the same TOKENS)`,
      )
    }
    this.epoch = epoch
    this.shard = shard
    this.batch = batch
    this.shardOrder = undefined
    this.batchOrder = undefined
    const { name, batches } = this.enterShard()
    if (batch >= batches) {
      throw new UserError(
        `saved position ${JSON.stringify(position)} is past the ${thousands(batches)} batches of ${name} (resume with the same TOKENS, --batch and --context)`,
      )
    }
  }

  /** Back to the first batch of the first epoch. */
  reset(): void {
    this.restore({ epoch: 0, shard: 0, batch: 0 })
  }
}

/** The files that a path or glob names, sorted by code units. */
export function findFiles(pattern: string): string[] {
  // A file whose name holds brackets or stars is meant literally.
  if (existsSync(pattern) || !/[*?[{]/.test(pattern)) return [pattern]
  const found = [...new Bun.Glob(pattern).scanSync({ onlyFiles: false })].sort()
  if (found.length === 0) {
    throw new UserError(
      `${pattern}: no file matches (check the pattern, or make files with llm data)`,
    )
  }
  return found
}
