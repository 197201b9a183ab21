// Batches from token files. The unit is a sequence: T tokens, and the one after them, as the targets
// are the inputs shifted by one. What is left at a shard's end, less than a sequence, is skipped.
//
// Sequences stand in one endless order, epoch after epoch, that depends on the files, on T and on the
// seed alone; a batch is the next B of them, wherever a shard ends. So the order of the data is the
// same for any batch size, any accumulation and any number of ranks.

import { existsSync } from "node:fs"
import { assert, UserError } from "../errors.ts"
import { checkTokens, TokenFile, type Tokens, tokenSum } from "../formats/tokens.ts"
import { thousands } from "./files.ts"
import { Random } from "./random.ts"

/** Where the next batch of all ranks comes from: the shard is the one at this place of the epoch's
 * order, the sequence that of the shard's. Plain data: a checkpoint can hold it. */
export type LoaderPosition = { epoch: number; shard: number; sequence: number }

export type LoaderOptions = {
  B: number
  T: number
  vocabulary: number
  shuffle?: boolean
  seed?: number
  rank?: number
  ranks?: number
}

type Shard = { source: Source; sequences: number }

/** Tokens, wherever they are. */
interface Source {
  readonly path: string
  readonly length: number
  readonly sum: bigint
  read(into: Int32Array, first: number): void
  close(): void
}

export class Loader {
  readonly tokenCount: number
  /** A hash of all tokens: other data, another number. */
  readonly sum: bigint
  /** Batches of this rank. */
  readonly batchesPerEpoch: number
  private epoch = 0
  private shard = 0
  private sequence = 0
  // The orders of the epoch and of the shard that are being read; rebuilt from the seed when needed.
  private shardOrder: Uint32Array | undefined
  private sequenceOrder: Uint32Array | undefined
  private readonly tokens: Int32Array

  private constructor(
    private readonly shards: Shard[],
    private readonly options: Required<LoaderOptions>,
  ) {
    this.tokens = new Int32Array(options.T + 1)
    this.tokenCount = shards.reduce((sum, { source }) => sum + source.length, 0)
    const sums = BigUint64Array.from(shards, ({ source }) => source.sum)
    this.sum = Bun.hash.xxHash3(new Uint8Array(sums.buffer))
    const sequences = shards.reduce((sum, shard) => sum + shard.sequences, 0)
    this.batchesPerEpoch = Math.floor(sequences / (options.B * options.ranks))
  }

  /** From token files: a path or a glob, in the order of their names. */
  static open(pattern: string, options: LoaderOptions): Loader {
    const shards = findFiles(pattern).map((path) => {
      const file = TokenFile.open(path, options.vocabulary)
      const shard = Loader.cut(file, options)
      file.checkTokens()
      return shard
    })
    return new Loader(shards, Loader.complete(options))
  }

  /** From tokens in memory. */
  static over(path: string, tokens: Tokens, options: LoaderOptions): Loader {
    const source: Source = {
      path,
      length: tokens.length,
      sum: tokenSum(tokens),
      read: (into, first) => into.set(tokens.subarray(first, first + into.length)),
      close: () => {},
    }
    const shard = Loader.cut(source, options)
    checkTokens(path, tokens, options.vocabulary)
    return new Loader([shard], Loader.complete(options))
  }

  private static complete(options: LoaderOptions): Required<LoaderOptions> {
    const all = { shuffle: false, seed: 42, rank: 0, ranks: 1, ...options }
    assert(all.B >= 1 && all.T >= 1 && all.rank >= 0 && all.rank < all.ranks, "bad loader options")
    return all
  }

  private static cut(source: Source, { B, T, ranks = 1 }: LoaderOptions): Shard {
    const sequences = Math.floor((source.length - 1) / T)
    if (sequences < B * ranks) {
      const shape = ranks > 1 ? `${ranks} ranks of ${B}×${T}` : `${B}×${T}`
      throw new UserError(
        `${source.path}: ${thousands(source.length)} tokens are too few for one batch of ${shape}, which reads ${thousands(B * T * ranks + 1)} (try a smaller --batch or --context)`,
      )
    }
    return { source, sequences }
  }

  /** The next batch: inputs and targets (B,T), overwritten. Throws FileChanged when a token file is
   * not what it was; the position is then anywhere within the batch. */
  next(inputs: Int32Array, targets: Int32Array): void {
    const { B, T, rank, ranks } = this.options
    assert(inputs.length === B * T && targets.length === B * T, "batch views must hold B·T")
    for (let row = 0; row < B * ranks; row++) {
      const { source } = this.enterShard()
      const b = row - rank * B
      if (b >= 0 && b < B) {
        const index = this.sequenceOrder ? this.sequenceOrder[this.sequence]! : this.sequence
        source.read(this.tokens, index * T)
        inputs.set(this.tokens.subarray(0, T), b * T)
        targets.set(this.tokens.subarray(1), b * T)
      }
      this.advance()
    }
  }

  private get shardIndex(): number {
    return this.shardOrder ? this.shardOrder[this.shard]! : this.shard
  }

  private enterShard(): Shard {
    const { shuffle, seed } = this.options
    if (shuffle) {
      this.shardOrder ??= new Random(seed, this.epoch).permutation(this.shards.length)
    }
    const index = this.shardIndex
    const shard = this.shards[index]!
    if (shuffle) {
      this.sequenceOrder ??= new Random(seed, this.epoch, index + 1).permutation(shard.sequences)
    }
    return shard
  }

  private advance(): void {
    const { source, sequences } = this.shards[this.shardIndex]!
    if (++this.sequence < sequences) return
    source.close()
    this.sequence = 0
    this.sequenceOrder = undefined
    if (++this.shard < this.shards.length) return
    this.shard = 0
    this.epoch++
    this.shardOrder = undefined
  }

  get position(): LoaderPosition {
    return { epoch: this.epoch, shard: this.shard, sequence: this.sequence }
  }

  /** The orders in force at this position: of the shards, and of the sequences of the present one;
   * undefined when they are read as they stand. */
  get orders(): { shards: Uint32Array; sequences: Uint32Array } | undefined {
    this.enterShard()
    const { shardOrder, sequenceOrder } = this
    return shardOrder && sequenceOrder && { shards: shardOrder, sequences: sequenceOrder }
  }

  /** Goes on exactly where `position` was read, given the same files, T, order and seed. */
  restore(position: LoaderPosition): void {
    const { epoch, shard, sequence } = position
    const whole = [epoch, shard, sequence].every((n) => Number.isSafeInteger(n) && n >= 0)
    if (!whole || shard >= this.shards.length) {
      throw new UserError(
        `saved position ${JSON.stringify(position)} does not fit ${this.shards.length} token files (resume with the same TOKENS)`,
      )
    }
    this.shards[this.shardIndex]!.source.close()
    this.epoch = epoch
    this.shard = shard
    this.sequence = sequence
    this.shardOrder = undefined
    this.sequenceOrder = undefined
    const { source, sequences } = this.enterShard()
    if (sequence >= sequences) {
      throw new UserError(
        `saved position ${JSON.stringify(position)} is past the ${thousands(sequences)} sequences of ${source.path} (resume with the same TOKENS and --context)`,
      )
    }
  }

  /** Back to the first batch of the first epoch. */
  reset(): void {
    this.restore({ epoch: 0, shard: 0, sequence: 0 })
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
