// The thread that writes checkpoints, one at a time.

import { UserError } from "../errors.ts"
import { release } from "./gate.ts"
import { type Job, writeCheckpoint } from "./write.ts"

export type Answer =
  | { ready: true }
  | { warning?: string | undefined }
  | { userError: string }
  | { bug: string }

declare const self: Worker
const answer = (message: Answer) => self.postMessage(message)

self.onmessage = ({ data }: MessageEvent<Job>) => {
  try {
    answer({ warning: writeCheckpoint(data) })
  } catch (error) {
    const { message, stack } = error as Error
    answer(error instanceof UserError ? { userError: message } : { bug: stack ?? message })
  } finally {
    release(data.shared)
  }
}
answer({ ready: true })
