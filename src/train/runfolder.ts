// The run folder: main.log in llm.c's format, metrics.jsonl, run.toml, a GPU's products.bin; the
// checkpoints beside them are checkpoint.ts's. A folder belongs to one process at a time.

import {
  appendFileSync,
  existsSync,
  readFileSync,
  rmSync,
  statfsSync,
  statSync,
  truncateSync,
} from "node:fs"
import { join } from "node:path"
import {
  checkFolder,
  isOutOfRoom,
  makeFolder,
  reason,
  thousands,
  wayOut,
  writeWhole,
} from "../data/files.ts"
import { UserError } from "../errors.ts"
import { lockFile } from "../native/lock.ts"
import type { DeviceState } from "../native/nvml.ts"
import type { Value } from "../options.ts"
import { VERSION } from "../version.ts"
import { completeSteps, removeRemains } from "./checkpoint.ts"

export interface StepMetrics {
  step: number
  trainLoss: number
  lr: number
  gradNorm: number
  ms: number
  tokensPerSecond: number
  mfu: number
  /** The number that was an outlier, where the update was skipped for it. */
  skipped?: "loss" | "norm"
}

const MAIN_LOG = "main.log"
const METRICS = "metrics.jsonl"
export const RUN_TOML = "run.toml"
/** How a GPU's products are made, which decides their last bits (native/gpu.ts). */
export const PRODUCTS = "products.bin"
export const LOGS = [MAIN_LOG, METRICS]
const STEP: Record<string, RegExp> = { [MAIN_LOG]: /^s:(\d+) /, [METRICS]: /^\{"step":(\d+),.*\}$/ }

export class RunFolder {
  /** What could not be written yet, as the disk was full. */
  private readonly waiting: Record<string, string> = { [MAIN_LOG]: "", [METRICS]: "" }

  private constructor(
    readonly path: string,
    private readonly warn: (text: string) => void,
    private readonly remove: () => void,
  ) {}

  /** Refuses what `create` would refuse, before long work; leaves nothing. */
  static check(path: string): void {
    refuseRun(path)
    checkFolder("--out", path)
  }

  /** Makes the folder for a new run, whose checkpoints will take `bytes` each. One that holds a run is
   * refused, not overwritten; one with an empty log was killed before it had anything to keep. When it
   * fails it leaves nothing. `warn` is told when the disk is full. */
  static create(
    path: string,
    settings: Record<string, Value>,
    bytes: number,
    warn: (text: string) => void,
  ): RunFolder {
    refuseRun(path)
    const remove = makeFolder("--out", path)
    try {
      claim(path)
    } catch (error) {
      remove() // as far as it is empty: the files in it may be another run's
      throw error
    }
    const folder = new RunFolder(path, warn, remove)
    try {
      folder.refuseFull(bytes)
      folder.begin(settings)
    } catch (error) {
      folder.discard()
      throw error
    }
    return folder
  }

  /** Takes the folder, which is claimed, of a run that goes on at `step`: what its logs say of later ones
   * was for nothing, and will be said again. Without settings the run's stay. */
  static resume(
    path: string,
    settings: Record<string, Value> | undefined,
    step: number,
    warn: (text: string) => void,
  ): RunFolder {
    const folder = new RunFolder(path, warn, () => {})
    if (settings) folder.begin(settings)
    for (const name of LOGS) cutLog(folder.file(name), STEP[name]!, step)
    return folder
  }

  private begin(settings: Record<string, Value>): void {
    removeRemains(this.path)
    const lines = Object.entries({ version: VERSION, command: "train", ...settings })
    const toml = lines.map(([key, value]) => `${key} = ${tomlValue(value)}\n`).join("")
    writeWhole(this.file(RUN_TOML), [new TextEncoder().encode(toml)])
    for (const name of LOGS) this.append(name, "")
  }

  /** Takes away what `create` made, for a run that came to nothing. */
  discard(): void {
    for (const name of [RUN_TOML, PRODUCTS, ...LOGS]) rmSync(this.file(name), { force: true })
    this.remove()
  }

  // Known at the start, not after hours of training.
  private refuseFull(bytes: number): void {
    const { bavail, bsize } = statfsSync(this.path)
    if (bytes <= bavail * bsize) return
    throw new UserError(
      `--out ${this.path}: a checkpoint will take ${thousands(bytes)} bytes, but ${thousands(bavail * bsize)} are free there (free some space or choose another folder)`,
    )
  }

  step(metrics: StepMetrics): void {
    const { step, trainLoss, lr, gradNorm } = metrics
    const numbers = `trl:${trainLoss.toFixed(4)} lr:${lr.toFixed(6)} norm:${gradNorm.toFixed(2)}`
    this.append(MAIN_LOG, `s:${step} ${numbers}\n`)
    this.append(METRICS, `${JSON.stringify(metrics)}\n`)
  }

  validation(step: number, valLoss: number): void {
    this.append(MAIN_LOG, `s:${step} tel:${valLoss.toFixed(4)}\n`)
    this.append(METRICS, `${JSON.stringify({ step, valLoss })}\n`)
  }

  hellaswag(step: number, accuracy: number): void {
    this.append(MAIN_LOG, `s:${step} eval:${accuracy.toFixed(4)}\n`)
    this.append(METRICS, `${JSON.stringify({ step, hellaswag: accuracy })}\n`)
  }

  /** The accelerator's state (src/native/nvml.ts has its units). */
  device(step: number, state: DeviceState): void {
    const known = Object.entries(state).filter(([, value]) => value !== undefined)
    const numbers = known.map(([name, value]) => `${name}:${Number(value.toFixed(1))}`)
    this.append(MAIN_LOG, `s:${step} dev ${numbers.join(" ")}\n`)
    this.append(METRICS, `${JSON.stringify({ step, device: Object.fromEntries(known) })}\n`)
  }

  /** Why the run ended, for whoever looks after weeks. */
  diverged(step: number, why: string): void {
    this.append(MAIN_LOG, `s:${step} diverged: ${why}\n`)
    this.append(METRICS, `${JSON.stringify({ step, diverged: why })}\n`)
  }

  file(name: string): string {
    return join(this.path, name)
  }

  /** Tries once more what a full disk has kept from the logs; throws a UserError when it still does. */
  flush(): void {
    for (const name of LOGS) {
      if (this.waiting[name] === "") continue
      this.append(name, "")
      if (this.waiting[name] === "") continue
      throw new UserError(
        `${this.file(name)}: cannot write: the disk is full (free some space or choose another --out)`,
      )
    }
  }

  private append(name: string, text: string): void {
    const path = this.file(name)
    const bytes = statSync(path, { throwIfNoEntry: false })?.size
    const isFirst = this.waiting[name] === ""
    this.waiting[name] += text
    try {
      appendFileSync(path, this.waiting[name]!)
      this.waiting[name] = ""
    } catch (error) {
      if (bytes !== undefined) truncateSync(path, bytes) // half a line is worse than none
      if (bytes === undefined || !isOutOfRoom(error)) throw cannotWrite(path, error)
      if (isFirst) {
        this.warn(`${path}: cannot write: ${reason(error)}; its lines wait until there is room`)
      }
    }
  }
}

/** Makes a run's folder this process's own. Throws when another has it. */
export function claim(path: string): void {
  let isOurs: boolean
  try {
    isOurs = lockFile(join(path, MAIN_LOG))
  } catch (error) {
    throw cannotWrite(join(path, MAIN_LOG), error)
  }
  if (isOurs) return
  throw new UserError(
    `--out ${path}: another llm is at work there (wait for it, stop it, or choose another folder)`,
  )
}

function cannotWrite(path: string, error: unknown): UserError {
  return new UserError(
    `${path}: cannot write: ${reason(error)} (${wayOut(error, "another --out")})`,
  )
}

function refuseRun(path: string): void {
  if (!holdsRun(path)) return
  throw new UserError(
    `--out ${path} already holds a run (go on with it by --resume, choose another folder, or delete it)`,
  )
}

/** Whether a run has left something in the folder. */
export function holdsRun(path: string): boolean {
  try {
    const bytes = statSync(join(path, MAIN_LOG), { throwIfNoEntry: false })?.size
    return Boolean(bytes) || (existsSync(path) && completeSteps(path).length > 0)
  } catch {
    return false // the folder cannot be looked into, which making it will tell
  }
}

/** Cuts a log behind its last whole line of a step before `step`. Its lines are in the order of steps;
 * the last ones may be torn, when the machine went down. */
function cutLog(path: string, pattern: RegExp, step: number): void {
  const text = readFileSync(path)
  let end = text.lastIndexOf("\n") + 1
  while (end > 0) {
    const start = end < 2 ? 0 : text.lastIndexOf("\n", end - 2) + 1
    const found = pattern.exec(text.toString("utf8", start, end - 1))
    if (found && Number(found[1]) < step) break
    end = start
  }
  if (end < text.length) truncateSync(path, end)
}

/** JSON's strings and numbers are TOML's, but for two: DEL, and whole numbers that an f64 does not
 * count one by one. */
function tomlValue(value: Value): string {
  const isFar = Number.isInteger(value) && !Number.isSafeInteger(value)
  return isFar
    ? (value as number).toExponential()
    : JSON.stringify(value).replaceAll("\x7f", "\\u007f")
}
