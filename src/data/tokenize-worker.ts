// A worker thread that tokenizes the jobs it is sent, one at a time.

import { UserError } from "../errors.ts"
import { type Job, runJob } from "./jobs.ts"
import { type Encode, loadEncoder } from "./tokenizer.ts"

export type Answer = { tokens: Uint16Array } | { userError: string } | { bug: string }

declare const self: Worker
let encode: Encode | undefined

self.onmessage = async ({ data }: MessageEvent<Job>) => {
  let answer: Answer
  try {
    encode ??= await loadEncoder()
    answer = { tokens: await runJob(data, encode) }
  } catch (error) {
    const { message, stack } = error as Error
    answer = error instanceof UserError ? { userError: message } : { bug: stack ?? message }
  }
  self.postMessage(answer, "tokens" in answer ? [answer.tokens.buffer as ArrayBuffer] : [])
}
