// Multiple choice, HellaSwag's above all: the model's answer is the completion with the lowest mean
// loss a token, as a sum would favour short ones. So GPT-3 was scored (Brown et al. 2020, section
// 2.4), and llm.c calls the share of right answers acc_norm (dev/data/hellaswag.py, and
// evalloader_stat_losses in llmc/dataloader.h). EleutherAI's acc_norm is another number: it divides
// by a completion's length as text.

import { thousands } from "../data/files.ts"
import { assert, UserError } from "../errors.ts"
import type { Example } from "../formats/choices.ts"
import type { EvaluateTensors } from "../model/program.ts"
import type { Stop } from "../native/signals.ts"
import { Batch } from "../program/batch.ts"
import type { Program } from "../program/link.ts"

export interface Choices {
  examples: Example[]
  /** Longest row, in inputs. */
  longest: number
  /** Examples whose context was cut. */
  cut: number
}

export interface Score {
  /** NaN where a loss is not finite, which ends the evaluation. */
  correct: number
  examples: number
}

/** The examples as rows of at most T inputs: context and completion, without the last token, which is
 * only a target. Where one is longer the context loses its start, the same tokens for all completions
 * so that they stay comparable. A completion is never cut: its mean loss would be another's. */
export function fitChoices(path: string, examples: Example[], T: number): Choices {
  let [longest, cut] = [0, 0]
  const fitted = examples.map((example, i) => {
    const completion = Math.max(...example.completions.map(({ length }) => length))
    if (completion > T) {
      const tokens = `example ${thousands(i)} has a completion of ${completion} tokens`
      throw new UserError(
        `${path}: ${tokens}, above the context of ${T} (try --context ${completion} or more)`,
      )
    }
    const room = T + 1 - completion
    const context = example.context.subarray(Math.max(0, example.context.length - room))
    if (context.length < example.context.length) cut++
    longest = Math.max(longest, context.length + completion - 1)
    return { ...example, context }
  })
  return { examples: fitted, longest, cut }
}

/** The mean loss of each completion, an example's at a time. Completions are rows of the program's
 * batches, one after the other. Ends early when it is stopped. */
export async function* completionLosses(
  program: Program,
  tensors: EvaluateTensors,
  { examples, longest }: Choices,
  stop: Stop,
  onBatch?: (done: number) => void,
): AsyncGenerator<number[]> {
  const [B, T] = tensors.tokens.shape as [number, number]
  assert(longest <= T, `rows of ${longest} tokens in batches of ${T}`)
  const batch = new Batch(program, tensors)
  const { tokens, targets } = batch
  const rows = examples.flatMap((example, i) =>
    example.completions.map((completion) => ({ i, context: example.context, completion })),
  )
  // What follows a row's own tokens may be any: those before it do not see it.
  tokens.fill(0)
  targets.fill(0)
  let means: number[] = []
  for (let first = 0; first < rows.length; first += B) {
    if (await stop.heard()) return
    const some = rows.slice(first, first + B)
    onBatch?.(some[0]!.i)
    for (const [b, { context, completion }] of some.entries()) {
      tokens.set(context, b * T)
      tokens.set(completion.subarray(0, -1), b * T + context.length)
      targets.set(completion, b * T + context.length - 1)
    }
    batch.load()
    program.run("evaluate")
    const losses = program.read(tensors.losses)
    for (const [b, { i, context, completion }] of some.entries()) {
      const start = b * T + context.length - 1
      const own = losses.subarray(start, start + completion.length)
      means.push(own.reduce((sum, loss) => sum + loss, 0) / own.length)
      if (means.length < examples[i]!.completions.length) continue
      yield means
      means = []
    }
  }
}

/** Lets the model answer all examples. Undefined when it is stopped. */
export async function scoreChoices(
  program: Program,
  tensors: EvaluateTensors,
  choices: Choices,
  stop: Stop,
  onBatch?: (done: number) => void,
): Promise<Score | undefined> {
  const { examples } = choices
  let [answered, correct] = [0, 0]
  for await (const means of completionLosses(program, tensors, choices, stop, onBatch)) {
    if (!means.every(Number.isFinite)) return { correct: Number.NaN, examples: examples.length }
    const answer = means.indexOf(Math.min(...means))
    if (answer === examples[answered++]!.label) correct++
  }
  return answered === examples.length ? { correct, examples: answered } : undefined
}

/** "0.2950 (2,962 of 10,042)" */
export function describeScore({ correct, examples }: Score, { cut }: Choices): string {
  const lost = cut > 0 ? `, the start of ${thousands(cut)} contexts cut off` : ""
  return `${(correct / examples).toFixed(4)} (${thousands(correct)} of ${thousands(examples)}${lost})`
}
