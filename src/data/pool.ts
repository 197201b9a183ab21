// Tokenizes jobs in as many worker threads as this process may use cores. The result depends on
// the jobs alone: their order is kept, and the error of the first bad one is reported.

import { UserError } from "../errors.ts"
import { usableCores } from "../native/cpu.ts"
import { workerUrl } from "../worker.ts"
import { type Job, runJob } from "./jobs.ts"
import type { Answer } from "./tokenize-worker.ts"
import { loadEncoder } from "./tokenizer.ts"

export async function tokenizeJobs(
  jobs: Iterable<Job>,
  workers = usableCores(),
  onBytes: (bytesDone: number) => void = () => {},
): Promise<Uint16Array> {
  const queue = jobs[Symbol.iterator]()
  const results: Uint16Array[] = []
  const failures: { index: number; error: Error }[] = []
  let next = 0
  let done = 0

  const serve = async (run: (job: Job) => Promise<Uint16Array>): Promise<void> => {
    while (failures.length === 0) {
      const index = next++
      try {
        // Reading the job may fail as well: the file can end or hold a bad line.
        const { value: job, done: empty } = queue.next()
        if (empty) return
        const bytes = jobBytes(job) // now: a worker takes them away
        results[index] = await run(job)
        done += bytes
        onBytes(done)
      } catch (error) {
        failures.push({ index, error: error as Error })
      }
    }
  }

  if (workers === 1) {
    const encode = await loadEncoder()
    await serve(async (job) => runJob(job, encode))
  } else {
    await Promise.all(Array.from({ length: workers }, () => serveWithWorker(serve)))
  }
  queue.return?.() // closes the file behind the jobs
  failures.sort((a, b) => a.index - b.index)
  if (failures[0]) throw failures[0].error
  return concatenate(results)
}

function jobBytes(job: Job): number {
  if ("bytes" in job) return job.bytes.length
  return job.texts.reduce((sum, text) => sum + text.length, 0)
}

async function serveWithWorker(
  serve: (run: (job: Job) => Promise<Uint16Array>) => Promise<void>,
): Promise<void> {
  let worker: Worker | undefined
  try {
    await serve(
      (job) =>
        new Promise((resolve, reject) => {
          worker ??= new Worker(workerUrl("data/tokenize-worker"))
          worker.onmessage = ({ data }: MessageEvent<Answer>) => {
            if ("tokens" in data) resolve(data.tokens)
            else reject("userError" in data ? new UserError(data.userError) : new Error(data.bug))
          }
          worker.onerror = (event) => reject(new Error(`tokenizer thread: ${event.message}`))
          worker.postMessage(job, "bytes" in job ? [job.bytes.buffer as ArrayBuffer] : [])
        }),
    )
  } finally {
    worker?.terminate()
  }
}

function concatenate(parts: Uint16Array[]): Uint16Array {
  const all = new Uint16Array(parts.reduce((sum, part) => sum + part.length, 0))
  let end = 0
  for (const part of parts) {
    all.set(part, end)
    end += part.length
  }
  return all
}
