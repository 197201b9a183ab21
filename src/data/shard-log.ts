// A file beside the shards that says which are whole, and where in the sources each ends.

import { existsSync, readdirSync, readFileSync, rmSync } from "node:fs"
import { join } from "node:path"
import { UserError } from "../errors.ts"
import { TokenFile } from "../formats/tokens.ts"
import { writeWhole } from "./files.ts"
import { isShard, type Written } from "./prepare.ts"
import { VOCABULARY } from "./tokenizer.ts"

/** After so many tokens of the job that begins at a row of a source. */
export type Place = { file: number; row: number; tokens: number }
export type Shard = { name: string; tokens: number; end: Place }
/** What decides every byte of the shards. */
export type Origin = { shardTokens: number; sources: string[] }

type Content = Origin & { shards: Shard[]; done: boolean }

export class ShardLog {
  private constructor(
    private readonly folder: string,
    private readonly path: string,
    private readonly content: Content,
  ) {}

  /** Goes on with what an earlier run noted, as far as its shards are there. Shards of other sources,
   * and those that nothing is known about, are refused: they may have taken hours. */
  static open(folder: string, name: string, origin: Origin): ShardLog {
    const path = join(folder, `${name}_progress.json`)
    const found = read(path)
    if (found && JSON.stringify(originOf(found)) !== JSON.stringify(originOf(origin))) {
      const what =
        found.shardTokens === origin.shardTokens
          ? "of other sources"
          : `of ${found.shardTokens} tokens, not ${origin.shardTokens}`
      throw new UserError(
        `${path}: the shards in this folder are ${what} (choose another --out-dir, or delete them with this file)`,
      )
    }
    const stray = found
      ? undefined
      : readdirSync(folder)
          .sort()
          .find((file) => isShard(name, file))
    if (stray !== undefined) {
      throw new UserError(
        `${join(folder, stray)}: no ${name}_progress.json beside it says what it was made of (choose another --out-dir, or delete it)`,
      )
    }
    const shards = found?.shards ?? []
    const firstBad = shards.findIndex((shard) => !isWhole(folder, shard))
    const good = firstBad < 0 ? shards : shards.slice(0, firstBad)
    const done = firstBad < 0 && (found?.done ?? false)
    const log = new ShardLog(folder, path, { ...originOf(origin), shards: good, done })
    log.save()
    return log
  }

  get isDone(): boolean {
    return this.content.done
  }

  /** Where the next shard begins. */
  get end(): Place {
    return this.content.shards.at(-1)?.end ?? { file: 0, row: 0, tokens: 0 }
  }

  get written(): Written[] {
    return this.content.shards.map(({ name, tokens }) => ({
      path: join(this.folder, name),
      tokens,
    }))
  }

  add(shard: Shard): void {
    this.content.shards.push(shard)
    this.save()
  }

  finish(): void {
    this.content.done = true
    this.save()
  }

  remove(): void {
    rmSync(this.path, { force: true })
  }

  private save(): void {
    writeWhole(this.path, [new TextEncoder().encode(`${JSON.stringify(this.content)}\n`)])
  }
}

const originOf = ({ shardTokens, sources }: Origin): Origin => ({ shardTokens, sources })

function read(path: string): Content | undefined {
  if (!existsSync(path)) return undefined
  try {
    const content = JSON.parse(readFileSync(path, "utf8"))
    return isContent(content) ? content : undefined
  } catch {
    return undefined
  }
}

function isContent(content: Partial<Content> | null): content is Content {
  const isNumber = (x: unknown) => Number.isSafeInteger(x) && Number(x) >= 0
  return (
    isNumber(content?.shardTokens) &&
    Array.isArray(content?.sources) &&
    Array.isArray(content.shards) &&
    content.shards.every(
      ({ name, tokens, end }: Shard) =>
        typeof name === "string" &&
        isNumber(tokens) &&
        [end?.file, end?.row, end?.tokens].every(isNumber),
    )
  )
}

function isWhole(folder: string, { name, tokens }: Shard): boolean {
  try {
    return TokenFile.open(join(folder, name), VOCABULARY).length === tokens
  } catch (error) {
    if (error instanceof UserError) return false
    throw error
  }
}
