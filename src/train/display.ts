// What a run shows while it goes: a live line on a terminal, plain lines in a pipe.

import { thousands } from "../data/files.ts"
import type { StepMetrics } from "./runfolder.ts"

/** A line on stderr, for what the user should look into. */
export function warn(text: string): void {
  process.stderr.write(`warning: ${text}\n`)
}

export class Display {
  private readonly isLive = process.stderr.isTTY === true
  private readonly isPlain = !(process.stderr.isTTY && process.stdout.isTTY)
  private hasLine = false

  constructor(private readonly steps: number) {}

  step(metrics: StepMetrics, leftMs: number): void {
    const text = stepLine(metrics, this.steps)
    if (this.isPlain) process.stdout.write(`${text}\n`)
    if (!this.isLive) return
    process.stderr.write(`\r\x1b[K${text}  ${duration(leftMs)} left`)
    this.hasLine = true
  }

  /** A line, or several, that stay. */
  say(text: string): void {
    this.clear()
    process.stdout.write(`${text}\n`)
  }

  warn(text: string): void {
    this.clear()
    warn(text)
  }

  /** Part of a line that stays. */
  write(text: string): void {
    this.clear()
    process.stdout.write(text)
  }

  /** Leaves the last live line as it is, or takes it away. */
  clear(): void {
    if (this.hasLine) process.stderr.write("\r\x1b[K")
    this.hasLine = false
  }
}

function stepLine(metrics: StepMetrics, steps: number): string {
  const { step, trainLoss, lr, gradNorm, ms, tokensPerSecond, mfu } = metrics
  return [
    `step ${`${step}`.padStart(`${steps}`.length)}/${steps}`,
    `loss ${trainLoss.toFixed(4)}`,
    `norm ${gradNorm.toFixed(2)}`,
    `lr ${lr.toExponential(2)}`,
    `${ms.toFixed(0)} ms`,
    `${thousands(Math.round(tokensPerSecond))} tokens/s`,
    `MFU ${(100 * mfu).toFixed(0)} %`,
  ].join("  ")
}

/** 3725000 ms → "1:02:05" */
export function duration(ms: number): string {
  const seconds = Math.round(ms / 1000)
  const parts = [Math.floor(seconds / 3600), Math.floor(seconds / 60) % 60, seconds % 60]
  if (parts[0] === 0) parts.shift()
  return parts.map((part, i) => (i === 0 ? `${part}` : `${part}`.padStart(2, "0"))).join(":")
}
