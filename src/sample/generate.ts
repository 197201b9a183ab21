// Text from a model, one token at a time, through the program's decode phase and its cache.

import { Random } from "../data/random.ts"
import { VOCABULARY } from "../data/tokenizer.ts"
import { assert } from "../errors.ts"
import type { Config } from "../model/config.ts"
import type { DecodeTensors } from "../model/program.ts"
import type { Program } from "../program/link.ts"
import { chooseToken, type Filters } from "./choose.ts"

export interface GenerateOptions extends Filters {
  /** At least one token. */
  prompt: number[]
  /** How many tokens to write. */
  count: number
  /** How many tokens back the model looks: at most its longest context, and no further than it was
   * trained. */
  context: number
  seed: number
}

/** Yields `count` tokens after the prompt. Past the context the newer half of the text is
 * read again into an empty cache, as positions are absolute. */
export function* generate(
  program: Program,
  { token, position, logits }: DecodeTensors,
  { V, maxT }: Config,
  { prompt, count, context, seed, ...filters }: GenerateOptions,
): Generator<number> {
  const [tokenView, positionView] = [program.view(token), program.view(position)]
  const nextLogits = program.view(logits)
  assert(context >= 1 && context <= maxT, `a context of ${context}`)
  const readable = Math.min(V, VOCABULARY) // a larger vocabulary's other tokens have no text
  const random = new Random(seed)
  const text: number[] = []
  let cached = 0
  const feed = (next: number) => {
    tokenView[0] = next
    positionView[0] = cached++
    program.run("decode")
  }
  const read = (next: number) => {
    if (cached === context) {
      cached = 0
      for (const old of text.slice(text.length - Math.floor(context / 2))) feed(old)
    }
    text.push(next)
    feed(next)
  }
  for (const next of prompt) read(next)
  for (let i = 0; i < count; i++) {
    const next = chooseToken(nextLogits, readable, filters, random.uniform())
    yield next
    if (i + 1 < count) read(next)
  }
}
