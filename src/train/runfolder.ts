// The run folder: main.log in llm.c's format, metrics.jsonl, run.toml, and the model.

import { appendFileSync, rmSync, statfsSync, statSync, truncateSync } from "node:fs"
import { join } from "node:path"
import { checkFolder, makeFolder, reason, thousands, wayOut, writeWhole } from "../data/files.ts"
import { UserError } from "../errors.ts"
import type { Value } from "../options.ts"
import { VERSION } from "../version.ts"

export interface StepMetrics {
  step: number
  trainLoss: number
  lr: number
  gradNorm: number
  ms: number
  tokensPerSecond: number
  mfu: number
}

const FILES = ["run.toml", "main.log", "metrics.jsonl"] // that every run makes at its start

export class RunFolder {
  private constructor(
    readonly path: string,
    private readonly remove: () => void,
  ) {}

  /** Refuses what `create` would refuse, before long work; leaves nothing. */
  static check(path: string): void {
    refuseRun(path)
    checkFolder("--out", path)
  }

  /** Makes the folder for a new run, whose model will be a file of `modelBytes`. One that holds a run
   * is refused, not overwritten; one with an empty log was killed before it had anything to keep. When
   * it fails it leaves nothing. */
  static create(path: string, settings: Record<string, Value>, modelBytes = 0): RunFolder {
    refuseRun(path)
    const folder = new RunFolder(path, makeFolder("--out", path))
    try {
      folder.refuseFull(modelBytes)
      const lines = Object.entries({ version: VERSION, command: "train", ...settings })
      const toml = lines.map(([key, value]) => `${key} = ${tomlValue(value)}\n`).join("")
      writeWhole(folder.file("run.toml"), [new TextEncoder().encode(toml)])
      folder.append("main.log", "")
      folder.append("metrics.jsonl", "")
    } catch (error) {
      folder.discard()
      throw error
    }
    return folder
  }

  /** Takes away what `create` made, for a run that came to nothing. */
  discard(): void {
    for (const name of FILES) rmSync(this.file(name), { force: true })
    this.remove()
  }

  // Known at the start, not after hours of training.
  private refuseFull(modelBytes: number): void {
    const { bavail, bsize } = statfsSync(this.path)
    if (modelBytes <= bavail * bsize) return
    throw new UserError(
      `--out ${this.path}: the model will take ${thousands(modelBytes)} bytes, but ${thousands(bavail * bsize)} are free there (free some space or choose another folder)`,
    )
  }

  step(metrics: StepMetrics): void {
    const { step, trainLoss, lr, gradNorm } = metrics
    const numbers = `trl:${trainLoss.toFixed(4)} lr:${lr.toFixed(6)} norm:${gradNorm.toFixed(2)}`
    this.append("main.log", `s:${step} ${numbers}\n`)
    this.append("metrics.jsonl", `${JSON.stringify(metrics)}\n`)
  }

  validation(step: number, valLoss: number): void {
    this.append("main.log", `s:${step} tel:${valLoss.toFixed(4)}\n`)
    this.append("metrics.jsonl", `${JSON.stringify({ step, valLoss })}\n`)
  }

  file(name: string): string {
    return join(this.path, name)
  }

  private append(name: string, text: string): void {
    const path = this.file(name)
    const bytes = statSync(path, { throwIfNoEntry: false })?.size
    try {
      appendFileSync(path, text)
    } catch (error) {
      if (bytes !== undefined) truncateSync(path, bytes) // half a line is worse than none
      throw new UserError(
        `${path}: cannot write: ${reason(error)} (${wayOut(error, "another --out")})`,
      )
    }
  }
}

function refuseRun(path: string): void {
  let bytes: number | undefined
  try {
    bytes = statSync(join(path, "main.log"), { throwIfNoEntry: false })?.size
  } catch {
    return // the folder cannot be looked into, which making it will tell
  }
  if (bytes) {
    throw new UserError(`--out ${path} already holds a run (choose another folder, or delete it)`)
  }
}

/** JSON's strings and numbers are TOML's, for what options can hold. */
function tomlValue(value: Value): string {
  return JSON.stringify(value)
}
