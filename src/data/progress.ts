// Progress in bytes on stderr: a live line on a terminal, a line at the start and at the end in a
// pipe.

export type Out = { write(text: string): unknown; isTTY?: boolean | undefined }

const BAR = 24 // characters
const REDRAW_MS = 100

export class Progress {
  private readonly started = performance.now()
  private drawn = -Infinity

  constructor(
    private readonly what: string,
    private readonly out: Out,
  ) {
    if (!out.isTTY) out.write(`${what}\n`)
  }

  update(done: number, total?: number): void {
    const now = performance.now()
    if (!this.out.isTTY || now - this.drawn < REDRAW_MS) return
    this.drawn = now
    this.out.write(`\r\x1b[K${this.what}  ${this.line(done, total)}`)
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
    return `${bar}  ${megabytes(done)} of ${megabytes(total)}  ${rate}`
  }
}

function megabytes(bytes: number): string {
  return `${(bytes / 1e6).toFixed(1)} MB`
}
