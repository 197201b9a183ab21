// Tokenizes jobs in as many worker threads as this process may use cores. Jobs are taken as they can
// be worked on, and results come in the jobs' order, so that only a few of either are in memory. The
// result depends on the jobs alone, and the error of the first bad one is reported.

import { UserError } from "../errors.ts"
import { usableCores } from "../native/cpu.ts"
import { workerUrl } from "../worker.ts"
import { type Job, runJob } from "./jobs.ts"
import type { Answer } from "./tokenize-worker.ts"
import { loadEncoder } from "./tokenizer.ts"

/** A job and its tokens; a job's bytes are no longer there. */
export type Tokenized = { job: Job; tokens: Uint16Array }
type Jobs = AsyncIterable<Job> | Iterable<Job>

export async function* tokenizeJobs(
  jobs: Jobs,
  workers = usableCores(),
): AsyncGenerator<Tokenized, void, undefined> {
  if (workers === 1) {
    const encode = await loadEncoder()
    for await (const job of jobs) yield { job, tokens: await runJob(job, encode) }
    return
  }
  const threads = new Threads(workers)
  const source = iteratorOf(jobs)
  const running: Promise<Tokenized>[] = []
  let hasMore = true
  try {
    while (hasMore || running.length > 0) {
      while (hasMore && running.length < 2 * workers) {
        let next: Promise<Tokenized>
        try {
          const { value: job, done } = await source.next()
          hasMore = !done
          if (done) break
          next = threads.run(job).then((tokens) => ({ job, tokens }))
        } catch (error) {
          // The jobs end with a file that cannot be read on; those before it may be bad, too.
          hasMore = false
          next = Promise.reject(error)
        }
        next.catch(() => {}) // reported when its turn comes
        running.push(next)
      }
      const first = running.shift()
      if (first) yield await first
    }
  } finally {
    threads.end()
    await source.return?.() // closes the file behind the jobs
  }
}

function iteratorOf(jobs: Jobs): AsyncIterator<Job> | Iterator<Job> {
  return Symbol.asyncIterator in jobs ? jobs[Symbol.asyncIterator]() : jobs[Symbol.iterator]()
}

/** Worker threads, started when there is work for them. */
class Threads {
  private readonly started: Worker[] = []
  private readonly idle: Worker[] = []
  private readonly waiting: ((worker: Worker) => void)[] = []

  constructor(private readonly most: number) {}

  async run(job: Job): Promise<Uint16Array> {
    const worker = await this.take()
    try {
      return await answer(worker, job)
    } finally {
      const next = this.waiting.shift()
      if (next) next(worker)
      else this.idle.push(worker)
    }
  }

  end(): void {
    for (const worker of this.started) worker.terminate()
  }

  private take(): Worker | Promise<Worker> {
    const idle = this.idle.pop()
    if (idle) return idle
    if (this.started.length === this.most) {
      return new Promise((resolve) => this.waiting.push(resolve))
    }
    const worker = new Worker(workerUrl("data/tokenize-worker"))
    this.started.push(worker)
    return worker
  }
}

function answer(worker: Worker, job: Job): Promise<Uint16Array> {
  return new Promise((resolve, reject) => {
    worker.onmessage = ({ data }: MessageEvent<Answer>) => {
      if ("tokens" in data) resolve(data.tokens)
      else reject("userError" in data ? new UserError(data.userError) : new Error(data.bug))
    }
    worker.onerror = (event) => reject(new Error(`tokenizer thread: ${event.message}`))
    worker.postMessage(job, "bytes" in job ? [job.bytes.buffer as ArrayBuffer] : [])
  })
}
