// --logprobs FILE: a line of JSON for each token, in the order of the samples.

import { existsSync } from "node:fs"
import { dirname } from "node:path"
import { checkFolder, makeFolder, writeWhole } from "../data/files.ts"
import { Decoder } from "../data/tokenizer.ts"
import { UserError } from "../errors.ts"

const OPTION = "--logprobs"

export class LogProbabilities {
  private readonly samples: string[][] = []

  private constructor(
    private readonly path: string,
    private readonly decoder: Decoder,
  ) {}

  /** Refuses a path that takes no file, before the work. */
  static async open(path: string): Promise<LogProbabilities> {
    checkFolder(OPTION, dirname(path))
    // It would be replaced: a model, say, or a device.
    if (existsSync(path)) {
      throw new UserError(`${OPTION} ${path}: it is there already (choose another name)`)
    }
    return new LogProbabilities(path, await Decoder.load())
  }

  /** `position` counts the text's tokens from 0, the prompt's included. */
  add(sample: number, position: number, token: number, logprob: number): void {
    const line = { sample, position, token, text: this.decoder.decode([token]), logprob }
    this.samples[sample] ??= []
    this.samples[sample].push(`${JSON.stringify(line)}\n`)
  }

  write(): void {
    makeFolder(OPTION, dirname(this.path))
    const encoder = new TextEncoder()
    writeWhole(this.path, [encoder.encode(this.samples.flat().join(""))])
  }
}
