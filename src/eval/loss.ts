// The mean loss over the first batches of validation tokens.

import type { Loader } from "../data/loader.ts"
import type { EvaluateTensors } from "../model/program.ts"
import type { Stop } from "../native/signals.ts"
import { Batch } from "../program/batch.ts"
import type { Program } from "../program/link.ts"

/** The mean over `batches` from the start, as a float32; undefined when it is stopped. */
export async function validationLoss(
  program: Program,
  tensors: EvaluateTensors,
  loader: Loader,
  batches: number,
  stop: Stop,
  onBatch?: (done: number) => void,
): Promise<number | undefined> {
  const batch = new Batch(program, tensors)
  loader.reset()
  let sum = 0
  for (let i = 0; i < batches; i++) {
    if (await stop.heard()) return undefined
    onBatch?.(i)
    loader.next(batch.tokens, batch.targets)
    batch.load()
    program.run("evaluate")
    sum += program.read(tensors.loss)[0]!
  }
  return Math.fround(sum / batches)
}
