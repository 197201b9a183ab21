// --resume: a run goes on from the newest checkpoint of its folder, with the options that it began with
// where the command line names no others.

import { existsSync } from "node:fs"
import { join } from "node:path"
import { UserError } from "../errors.ts"
import { readModelHeader } from "../formats/model.ts"
import { readState } from "../formats/state.ts"
import type { Config } from "../model/config.ts"
import { describeConfig, type TrainingProgram } from "../model/program.ts"
import { places, restoreWeights } from "../model/weights.ts"
import { type Arithmetic, storedIn } from "../native/contract.ts"
import type { Usual } from "../native/device.ts"
import type { Gpu } from "../native/gpu.ts"
import type { Kernels } from "../native/library.ts"
import type { Options } from "../options.ts"
import type { Slots } from "../program/fp8.ts"
import type { Program } from "../program/link.ts"
import { elements } from "../program/tensor.ts"
import {
  completeSteps,
  doneName,
  modelName,
  newestCheckpoint,
  removeCheckpoint,
  stateName,
} from "./checkpoint.ts"
import { claim, holdsRun, PRODUCTS, RUN_TOML, type RunFolder } from "./runfolder.ts"
import { chooseModel, type Data, namesWeights } from "./settings.ts"
import type { Start } from "./trainer.ts"

export interface Checkpoint {
  folder: string
  step: number
  model: string
  state: string
  /** Steps of newer ones that are damaged. */
  damaged: number[]
}

// Where a run is and on what does not change its numbers; the rest is taken from run.toml.
const NOT_KEPT = ["out", "resume", "threads"]

const NEED_OUT = ["resume", "checkpoint-every", "keep", "keep-every"]

export interface Resumed {
  options: Options
  /** Whether --out holds a run that this one takes over. */
  goesOn: boolean
  /** What the command line says otherwise than the run said before. */
  changes?: string[]
  checkpoint?: Checkpoint
}

/** With --resume, the run's own options beneath those that were given, and the newest checkpoint that
 * is whole; none where the folder has none yet, and the run begins. */
export function resumed(given: Options, warn: (text: string) => void): Resumed {
  const folder = given.text("out")
  const needy = NEED_OUT.find((name) => given.isGiven(name) && given.resolved()[name])
  if (folder === undefined && needy) {
    throw new UserError(`--${needy} needs --out FOLDER, where checkpoints are kept`)
  }
  if (folder === undefined || !given.flag("resume")) return { options: given, goesOn: false }
  // One that was killed before its first step has left its options.
  if (!holdsRun(folder) && !existsSync(join(folder, RUN_TOML))) {
    if (given.names.every((name) => NOT_KEPT.includes(name))) {
      throw new UserError(
        `--out ${folder} holds no run to go on with (name another folder, or what a new run trains on)`,
      )
    }
    warn(`${folder} holds no run to go on with: a new one begins`)
    return { options: given, goesOn: false }
  }
  claim(folder)
  const toml = join(folder, RUN_TOML)
  const isThere = existsSync(toml)
  if (!isThere) warn(`${toml} is gone: options that are not given have their defaults`)
  const options = isThere ? given.over(toml, NOT_KEPT) : given
  const changes = isThere ? changesOf(given, toml) : []
  const found = newestCheckpoint(folder)
  if (!found) {
    warn(`${folder} has no checkpoint: the run begins anew`)
    return { options, goesOn: true, changes }
  }
  const { step, damaged, isUnverified } = found
  if (isUnverified) warn(`${join(folder, doneName(step))} is gone: its checkpoint is not verified`)
  const lost = damaged.map((other) => other.step)
  for (const { why } of damaged) warn(`${why}; it is given up, and an older checkpoint taken`)
  const foreign = completeSteps(folder).filter((other) => other > step && !lost.includes(other))
  for (const other of foreign) {
    warn(
      `${join(folder, doneName(other))} has no checksums, as another program wrote it: passed over`,
    )
  }
  const [model, state] = [join(folder, modelName(step)), join(folder, stateName(step))]
  return {
    options,
    goesOn: true,
    changes,
    checkpoint: { folder, step, model, state, damaged: lost },
  }
}

function changesOf(given: Options, toml: string): string[] {
  const [before, now] = [given.none().over(toml, NOT_KEPT).resolved(), given.resolved()]
  return given.names.flatMap((name) => {
    const [was, is] = [before[name], now[name]]
    const isChange = !NOT_KEPT.includes(name) && was !== undefined && was !== is
    return isChange ? [`--${name} ${was} → ${is}`] : []
  })
}

const SHAPE = {
  layers: "L",
  heads: "NH",
  channels: "C",
  "context-max": "maxT",
  vocab: "V",
} as const

/** The model's shape by its checkpoint. Throws when the options describe another. */
export async function checkpointConfig(
  options: Options,
  model: string,
  usual: Usual,
): Promise<Config> {
  const { config, dtype } = readModelHeader(model)
  const precision = (options.text("precision") ?? usual.precision) as Arithmetic
  if (dtype !== storedIn(precision)) {
    throw new UserError(
      `--precision ${precision}: ${model} was trained in ${dtype} (leave it out, or --precision ${dtype})`,
    )
  }
  for (const [name, key] of Object.entries(SHAPE)) {
    if (!options.isGiven(name) || options.number(name) === config[key]) continue
    throw new UserError(
      `--${name} ${options.number(name)}: ${model} has ${config[key]} (leave it out)`,
    )
  }
  if (namesWeights(options)) return config // which the run began from, and may be gone
  const { config: described } = await chooseModel(options, usual.context)
  const keys = Object.keys(config) as (keyof Config)[]
  if (keys.every((key) => config[key] === described[key])) return config
  throw new UserError(
    `${model} is ${describeConfig(config)}, but the options describe ${describeConfig(described)} (resume with the same model)`,
  )
}

/** Fills parameters and moments, and returns where the run goes on. */
export function loadCheckpoint(
  { folder, step, model, state }: Checkpoint,
  program: Program,
  tensors: TrainingProgram,
  config: Config,
  kernels: Kernels,
  data: Data,
  T: number,
): Start {
  restoreWeights(model, program, tensors, config, kernels)
  const pieces = (stack: TrainingProgram["m"]) =>
    places(program, stack, config).map(({ data }) => data as Float32Array)
  const { m, v, masters } = tensors
  const read = readState(state, config, {
    m: pieces(m),
    v: pieces(v),
    master: masters && pieces(masters),
  })
  const wrong = (what: string) => new UserError(`${state}: ${what}`)
  if (read.step !== step) throw wrong(`it is of step ${read.step}, not ${step}`)
  if (read.T !== T) {
    throw new UserError(
      `--context ${T}: ${folder} was trained with --context ${read.T}, by which its place in the data is counted (resume with that)`,
    )
  }
  const { tokenCount } = data.train
  if (read.dataTokens !== tokenCount) {
    throw wrong(
      `the run was trained on ${read.dataTokens} tokens, but ${data.name} has ${tokenCount} (resume with the same TOKENS)`,
    )
  }
  if (read.dataSum !== data.train.sum) {
    throw wrong(
      `the run was trained on other tokens than ${data.name} holds now (resume with the same TOKENS)`,
    )
  }
  if (tensors.slots && !restoreScales(tensors.slots, program, read)) {
    throw wrong(
      `${read.slots.length} numbers for the scales of other tensors (resume the same model)`,
    )
  }
  data.train.restore(read.position)
  const { orders } = data.train
  const isSame = (a?: Uint32Array, b?: Uint32Array) =>
    a?.length === b?.length && (a === undefined || a.every((x, i) => x === b![i]))
  if (
    !isSame(orders?.shards, read.orders?.shards) ||
    !isSame(orders?.sequences, read.orders?.sequences)
  ) {
    throw wrong("its order of the data is another (resume with the same --shuffle and --seed)")
  }
  return read
}

/** Gives products in eight bits what they knew of their tensors' numbers; nothing where the run was in
 * bf16 until now. False where that is of other tensors. */
function restoreScales(all: Slots[], program: Program, state: Start): boolean {
  let at = 0
  const count = all.reduce((sum, slots) => sum + elements(slots), 0)
  if (state.slots.length === 0) return true
  if (state.slots.length !== count) return false
  for (const slots of all) {
    const next = at + elements(slots)
    program.write(slots, Float32Array.from(state.slots.slice(at, next)))
    at = next
  }
  return true
}

/** On a GPU, makes products as the run made them before, `isResumed`, and keeps with the run how they are
 * made: a GPU's cache may be lost, or be filled by another run. Warns where sums will be others. */
export function keepPlans(
  gpu: Gpu | undefined,
  folder: RunFolder,
  isResumed: boolean,
  warn: (text: string) => void,
): void {
  const file = folder.file(PRODUCTS)
  const isThere = existsSync(file)
  if (isResumed && (gpu ? !gpu.takePlans(file) : isThere)) {
    const why = !gpu
      ? "is of a GPU"
      : isThere
        ? "is damaged, or of another GPU, cuBLASLt or llm"
        : "is missing"
    warn(`${file} ${why}: from here on, the last bits of sums may not be what they would have been`)
  }
  gpu?.keepPlansIn(file)
}

/** Gives up what is newer than the checkpoint that the run goes on from: it is damaged, and must not
 * count as one of those to keep. */
export function forget({ folder, damaged }: Checkpoint): void {
  for (const step of damaged) removeCheckpoint(folder, step)
}
