// Progress in bytes on stderr: a live line on a terminal; in a pipe a line when the first bytes have
// come, so that a mistake that stops the work before has the only line, and one at the end.

import type { OnBytes } from "./download.ts"

export type Out = { write(text: string): unknown; isTTY?: boolean | undefined }

const BAR = 24 // characters
const REDRAW_MS = 100

export class Progress {
  private readonly started = performance.now()
  private drawn = -Infinity

  constructor(
    private readonly what: string,
    private readonly out: Out,
  ) {}

  update(done: number, total?: number): void {
    const now = performance.now()
    const isFirst = this.drawn < 0
    if (now - this.drawn < REDRAW_MS) return
    this.drawn = now
    if (this.out.isTTY) this.out.write(`\r\x1b[K${this.what}  ${this.line(done, total)}`)
    else if (isFirst) this.out.write(`${this.what}\n`)
  }

  finish(done: number): void {
    this.out.write(this.out.isTTY ? "\r\x1b[K" : "")
    this.out.write(`${this.what}  ${this.line(done)}\n`)
  }

  /** Leaves the line to what is written next, an error say. */
  clear(): void {
    if (this.out.isTTY) this.out.write("\r\x1b[K")
  }

  private line(done: number, total?: number): string {
    const seconds = Math.max(1e-3, (performance.now() - this.started) / 1000)
    const rate = `${megabytes(done / seconds)}/s`
    if (!total) return `${megabytes(done)}  ${rate}`
    const filled = Math.round((Math.min(done, total) / total) * BAR)
    const bar = "█".repeat(filled) + "░".repeat(BAR - filled)
    const left = done < total ? `  ${duration(((total - done) * seconds) / done)} left` : ""
    return `${bar}  ${megabytes(done)} of ${megabytes(total)}  ${rate}${left}`
  }
}

function megabytes(bytes: number): string {
  return `${(bytes / 1e6).toFixed(1)} MB`
}

/** Seconds as 42 s, 7 min or 3 h 20 min. */
export function duration(seconds: number): string {
  const minutes = Math.round(seconds / 60)
  if (seconds <= 59) return `${Math.ceil(seconds)} s`
  if (minutes < 60) return `${minutes} min`
  return `${Math.floor(minutes / 60)} h ${minutes % 60} min`
}

/** Work with its progress on `out`. */
export async function withProgress<T>(
  what: string,
  out: Out,
  work: (onBytes: OnBytes) => Promise<T>,
): Promise<T> {
  const progress = new Progress(what, out)
  let bytes = 0
  try {
    const result = await work((done, total) => {
      bytes = done
      progress.update(done, total)
    })
    if (bytes > 0) progress.finish(bytes)
    return result
  } catch (error) {
    progress.clear()
    throw error
  }
}
