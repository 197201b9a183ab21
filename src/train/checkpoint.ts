// The checkpoints of a run folder: which there are, which are whole, and which may go. One is made of a
// model file, a state file for each rank, and DONE, which is written last and holds their checksums.

import { readdirSync, rmSync, statSync } from "node:fs"
import { join } from "node:path"
import { reason, syncFolder, temporaryFor } from "../data/files.ts"
import { UserError } from "../errors.ts"
import { Damaged, verifyDone } from "../formats/done.ts"

const digits = (n: number, width: number) => `${n}`.padStart(width, "0")

export const modelName = (step: number) => `model_${digits(step, 8)}.bin`
export const stateName = (step: number, rank = 0) =>
  `state_${digits(step, 8)}_${digits(rank, 5)}.bin`
export const doneName = (step: number) => `DONE_${digits(step, 8)}`

/** The files whose checksums DONE holds. */
export const filesOf = (step: number) => [modelName(step), stateName(step)]

/** Steps of which the folder has a whole checkpoint, by their DONE files, ascending. */
export function completeSteps(folder: string): number[] {
  const steps = names(folder).flatMap((name) => {
    const step = Number(/^DONE_(\d{8,10})$/.exec(name)?.[1] ?? Number.NaN)
    return doneName(step) === name ? [step] : []
  })
  return steps.sort((a, b) => a - b)
}

function names(folder: string): string[] {
  try {
    return readdirSync(folder)
  } catch (error) {
    throw new UserError(`${folder}: cannot read the folder: ${reason(error)} (choose another)`)
  }
}

/** Those that this program wrote: llm.c leaves its DONE files empty. */
export function ownSteps(folder: string): number[] {
  return completeSteps(folder).filter((step) => {
    const stats = statSync(join(folder, doneName(step)), { throwIfNoEntry: false })
    return stats?.isFile() && stats.size > 0
  })
}

/** The newest checkpoint whose files are what they were when they were written, and what is wrong with
 * newer ones; undefined where the folder has none. Throws when it has, but all are damaged, or one
 * cannot be read. */
export function newestCheckpoint(
  folder: string,
): { step: number; damaged: { step: number; why: string }[]; isUnverified?: boolean } | undefined {
  const steps = ownSteps(folder).reverse()
  const damaged: { step: number; why: string }[] = []
  for (const step of steps) {
    try {
      verifyDone(folder, doneName(step), filesOf(step))
      return { step, damaged }
    } catch (error) {
      if (!(error instanceof Damaged)) throw error
      damaged.push({ step, why: error.message })
    }
  }
  if (damaged.length === 0) {
    // Both files came there whole; only what says so is missing, or was lost when they were copied.
    const step = pairs(folder).at(-1)
    return step === undefined ? undefined : { step, damaged, isUnverified: true }
  }
  throw new UserError(
    `${damaged[0]!.why}, and so is every other checkpoint there (train anew in another --out, or put a good copy there)`,
  )
}

/** Steps whose files are all there, with DONE or without, ascending. */
function pairs(folder: string): number[] {
  const all = new Set(names(folder))
  const steps = [...all].flatMap((name) => Number(/^model_(\d{8,10})\.bin$/.exec(name)?.[1] ?? []))
  const whole = steps.filter((step) => filesOf(step).every((name) => all.has(name)))
  return whole.sort((a, b) => a - b)
}

/** Deletes a checkpoint, DONE first: what is left without it counts for nothing. */
export function removeCheckpoint(folder: string, step: number): void {
  rmSync(join(folder, doneName(step)), { force: true })
  syncFolder(folder)
  for (const name of filesOf(step)) rmSync(join(folder, name), { force: true })
}

/** Which checkpoints may be deleted when the newest `keep` are kept (0: all), and those of every
 * `keepEvery` steps (0: none for that reason). Never the newest. */
export function expired(steps: number[], keep: number, keepEvery: number): number[] {
  if (keep === 0) return []
  const old = steps.toSorted((a, b) => a - b).slice(0, -keep)
  return old.filter((step) => keepEvery === 0 || step % keepEvery !== 0)
}

/** Deletes what a run that was killed has left: files under temporary names, and those of checkpoints
 * that were not finished, or not wholly deleted. Where no checkpoint is whole, the files of one may be
 * somebody's own, and stay. */
export function removeRemains(folder: string): void {
  const steps = completeSteps(folder)
  const whole = new Set(steps.flatMap(filesOf))
  for (const name of names(folder)) {
    const meant = temporaryFor(name) ?? name
    const isPart = /^(model_\d{8,10}|state_\d{8,10}_\d{5})\.bin$/.test(meant)
    const isTemporary =
      name !== meant && (isPart || /^(run\.toml|products\.bin|DONE_\d{8,10})$/.test(meant))
    const isLeft = name === meant && isPart && steps.length > 0 && !whole.has(name)
    if (isTemporary || isLeft) rmSync(join(folder, name), { force: true })
  }
}

/** A model's file: the path itself, or the newest of a run folder that is what it was when it was
 * written. `warn` is told of newer ones that are not. */
export function modelFile(path: string, warn: (text: string) => void): string {
  if (!statSync(path, { throwIfNoEntry: false })?.isDirectory()) return path
  const own = new Set(ownSteps(path))
  const damage: string[] = []
  for (const step of completeSteps(path).reverse()) {
    const model = modelName(step)
    try {
      if (own.has(step)) verifyDone(path, doneName(step), filesOf(step), [model])
      for (const why of damage) warn(`${why}; an older model is taken`)
      return join(path, model)
    } catch (error) {
      if (!(error instanceof Damaged)) throw error
      damage.push(error.message)
    }
  }
  if (damage[0]) throw new UserError(`${damage[0]}, and no other model there is whole`)
  throw new UserError(
    `${path}: it is a folder without a checkpoint (give a model file, or a folder that llm train --out has made)`,
  )
}
