// llm train [TOKENS]

import { resolve } from "node:path"
import { thousands } from "../data/files.ts"
import { UserError } from "../errors.ts"
import { chooseHellaswag } from "../eval/hellaswag.ts"
import { FileChanged } from "../formats/tokens.ts"
import type { Command } from "../main.ts"
import type { Config } from "../model/config.ts"
import { initialize } from "../model/initialize.ts"
import { type AdamW, type Bf16Update, describeConfig, trainingProgram } from "../model/program.ts"
import { loadWeights } from "../model/weights.ts"
import { type Arithmetic, storedIn } from "../native/contract.ts"
import { type Device, findDevice, openDevice, platformOf, USUAL } from "../native/device.ts"
import { contract, type Kernels } from "../native/library.ts"
import { forRun } from "../native/memory.ts"
import { DeviceMonitor } from "../native/nvml.ts"
import { measurePeak } from "../native/peak.ts"
import { exitCodeOf, Stop } from "../native/signals.ts"
import type { Options, Value } from "../options.ts"
import { findBad, findNotFinite } from "../program/check.ts"
import { Program } from "../program/link.ts"
import type { Tensor } from "../program/tensor.ts"
import { checkFp8Sizes, keepsMasters, ofBf16 } from "../train/arithmetic.ts"
import { modelName } from "../train/checkpoint.ts"
import { Display, warn } from "../train/display.ts"
import { checkpointConfig, forget, keepPlans, loadCheckpoint, resumed } from "../train/resume.ts"
import { RunFolder } from "../train/runfolder.ts"
import type { ScheduleName } from "../train/schedule.ts"
import {
  chooseModel,
  chooseRewrites,
  chooseShape,
  type Data,
  fitting,
  openData,
  type Shape,
} from "../train/settings.ts"
import {
  Diverged,
  type Outcome,
  type Surroundings,
  Trainer,
  type TrainOptions,
} from "../train/trainer.ts"
import { CheckpointWriter, checkpointBytes, type Keeping } from "../train/writer.ts"
import { TRAIN } from "./train-spec.ts"

const DIVERGED = 3 // exit code of a run whose numbers went bad

async function run(given: Options): Promise<number> {
  const { options, goesOn, changes = [], checkpoint } = resumed(given, warn)
  const out = options.text("out")
  if (out !== undefined && !goesOn) RunFolder.check(out)
  const found = await findDevice(options.text("device") as Device)
  const platform = platformOf(found)
  const usual = USUAL[platform]
  const { config, source } = checkpoint
    ? { config: await checkpointConfig(options, checkpoint.model, usual) }
    : await chooseModel(options, usual.context)
  const shape = chooseShape(options, config, usual.context)
  const { B, T, accumulation, totalBatch } = shape
  const seed = options.number("seed")
  const loaderShape = { B, T, vocabulary: config.V, shuffle: options.flag("shuffle"), seed }
  const hellaswag = chooseHellaswag(options, config, T)
  const data = { ...(await openData(options, loaderShape)), hellaswag }
  const settings = trainOptions(options, shape, data)
  const { steps } = settings.schedule
  if (checkpoint && checkpoint.step > steps) {
    throw new UserError(
      `--steps ${steps}: ${out} has made ${checkpoint.step} steps already (raise it, or resume with that many)`,
    )
  }

  const arithmetic = (options.text("precision") ?? usual.precision) as Arithmetic
  const precision = storedIn(arithmetic)
  const bf16 = bf16Update(options, arithmetic)
  if (options.text("tf32") === "1" && platform === "cpu") {
    throw new UserError("--tf32 1: only a GPU has TF32 (try --tf32 0)")
  }
  const kernels = await openDevice(found, options.number("threads"), arithmetic)
  if (arithmetic === "fp8" && kernels.gpu) checkFp8Sizes(shape, config)
  const isTf32 = platform === "cuda" && precision === "fp32" && options.text("tf32") !== "0"
  if (kernels.gpu) kernels.gpu.tf32 = isTf32
  const monitor = openMonitor(options, kernels)
  const threads = kernels.host.call("llm_threads", 0)
  const fp8 = arithmetic === "fp8"
  const numbers = { precision, fp8, bf16, adamw: adamw(options) }
  const rewrites = chooseRewrites(options)
  const { tensors, classifierRows } = fitting(options, kernels, (classifierRows) => {
    const all = { ...numbers, ...rewrites, classifierRows, platform }
    return trainingProgram(config, { B, T, accumulation, ...all })
  })
  const savers = rewrites.recompute === "block" ? [] : ["--recompute block"]
  const program = await Program.link(tensors, kernels, forRun(savers))
  const kept = out === undefined ? undefined : { path: out, isResumed: checkpoint !== undefined }
  const writer = kept && new CheckpointWriter(program, tensors, config, B, kept, keeping(options))
  const { resume: _, ...said } = options.resolved() // true of this command, not of the run
  const resolved = {
    ...Object.fromEntries(Object.entries(said).map(([name, value]) => [name, whole(name, value)])),
    ...{ context: T, "total-batch": totalBatch, steps, threads, precision: arithmetic },
    // What memory has room for, or where the run goes on, may change; the sums may not.
    "classifier-rows": classifierRows ?? 0,
    ...(precision === "fp32" && { tf32: isTf32 ? "1" : "0" }),
  }
  using stop = new Stop(out !== undefined)
  const display = new Display(steps)
  const start = checkpoint && loadCheckpoint(checkpoint, program, tensors, config, kernels, data, T)
  const tell = (text: string) => display.warn(text)
  const isComplete = start?.step === steps // then nothing is made with other options
  const settled = isComplete ? undefined : resolved
  const open = goesOn
    ? (path: string) => RunFolder.resume(path, settled, start?.step ?? 0, tell)
    : (path: string) => RunFolder.create(path, resolved, checkpointBytes(config, tensors), tell)
  const folder = out === undefined ? undefined : open(out)
  if (folder) keepPlans(kernels.gpu, folder, start !== undefined, tell)
  if (checkpoint) forget(checkpoint)
  else if (!source) initialize(program, tensors, config, kernels, seed)
  else loadWeights(source, program, tensors, kernels)
  source?.close()

  const from = start ? `, from step ${start.step}` : source ? `, from ${source.path}` : ""
  introduce(display, config, data, settings, from)
  for (const change of changes) display.say(`changed     ${change}`)
  const team = `${threads} thread${threads === 1 ? "" : "s"}`
  const rounded = isTf32 ? ", products in TF32" : ""
  display.say(`kernels     ${kernels.name}, ${kernels.gpu?.name ?? team}, ${arithmetic}${rounded}`)
  const chunks = classifierRows ? `, ${classifierRows} rows of logits at a time` : ""
  const again = rewrites.recompute === "0" ? "" : `, recompute ${rewrites.recompute}`
  display.say(`arena       ${thousands(program.plan.peak)} bytes${chunks}${again}`)
  if (!folder) display.say("            nothing is kept without --out FOLDER")
  if (isComplete) display.say("            complete: go on with a higher --steps")
  if (settings.checkpointEvery > 0) await writer?.start()
  const signatures = await contract()
  const around: Surroundings = {
    display,
    folder,
    writer,
    monitor,
    measurePeak: () => measurePeak(kernels, kernels.gpu ? "bf16" : precision),
    findBad: (search) => findBad(program, tensors, kernels, signatures, search),
    findBadState: () => {
      const { parameters, masters = {}, m, v } = tensors
      const stacks = [parameters, masters, m, v].flatMap((stack) => Object.values<Tensor>(stack))
      const all = [...stacks, ...(tensors.slots ?? [])]
      return findNotFinite(program, tensors, kernels, all)?.name
    },
  }
  const trainer = new Trainer(program, tensors, config, data, settings, around, start)
  const isNew = () => trainer.steps > (start?.step ?? 0)
  try {
    const outcome = await trainer.run(stop)
    if (outcome.steps === 0 && !goesOn) folder?.discard()
    else if (isNew()) await keep(trainer, around)
    return conclude(display, outcome, data, settings, folder)
  } catch (error) {
    display.clear()
    if (error instanceof FileChanged && isNew()) await keep(trainer, around)
    if (!(error instanceof Diverged)) throw error
    folder?.diverged(trainer.steps, error.message)
    process.stderr.write(`llm: ${error.message} (try a lower --lr, or --warmup)\n`)
    return DIVERGED
  } finally {
    await writer?.idle()
    writer?.close()
  }
}

/** What -lg asks for, which needs a GPU and a place to log to. */
function openMonitor(options: Options, { gpu }: Kernels): DeviceMonitor | undefined {
  const every = options.number("log-device")
  if (every === 0) return undefined
  if (!gpu) throw new UserError(`--log-device ${every} needs a GPU (leave it out on a CPU)`)
  if (options.text("out") === undefined) {
    throw new UserError(`--log-device ${every} needs --out FOLDER, whose logs it goes into`)
  }
  return DeviceMonitor.open(gpu.bus)
}

const PATHS = ["tokens", "val", "hellaswag-file"]

/** A value that means the same in every folder. */
const whole = (name: string, value: Value) =>
  PATHS.includes(name) ? resolve(value as string) : value

const keeping = (options: Options): Keeping => ({
  keep: options.number("keep"),
  keepEvery: options.number("keep-every"),
})

/** Writes the run's last checkpoint, which must not fail. */
async function keep(
  trainer: Trainer,
  { display, folder, writer, findBadState }: Surroundings,
): Promise<void> {
  if (!folder || !writer) return
  await writer.idle()
  const bad = findBadState()
  if (bad) throw new Diverged(`after step ${trainer.steps - 1} a number of ${bad} is not finite`)
  folder.flush()
  const warning = writer.write(trainer.state())
  if (warning) display.warn(warning)
  display.say(`wrote ${folder.file(modelName(trainer.steps))}`)
}

function trainOptions(options: Options, shape: Shape, data: Data): TrainOptions {
  const epoch = Math.max(1, Math.floor(data.train.batchesPerEpoch / shape.accumulation))
  const steps = options.optionalNumber("steps") ?? epoch
  const warmup = options.number("warmup")
  if (warmup > steps) {
    throw new UserError(
      `--warmup ${warmup} is above the ${steps} steps of the run (lower it, or raise --steps)`,
    )
  }
  return {
    ...shape,
    schedule: {
      name: options.text("schedule") as ScheduleName,
      lr: options.number("lr"),
      warmup,
      steps,
      finalFraction: options.number("final-lr-frac"),
    },
    gradClip: options.number("grad-clip"),
    checkpointEvery: options.number("checkpoint-every"),
    skipLossZ: options.number("skip-loss-z"),
    skipGradZ: options.number("skip-grad-z"),
    valEvery: options.number("val-every"),
    valBatches: options.number("val-batches"),
    sampleEvery: options.number("sample-every"),
    sampleTokens: options.number("sample-tokens"),
    overfitBatch: options.flag("overfit-batch"),
    logDevice: options.number("log-device"),
    seed: options.number("seed"),
  }
}

/** How weights in bf16 are updated. Without masters they round at random: most steps are smaller than
 * what their last bit is worth, and would be lost. */
function bf16Update(options: Options, arithmetic: Arithmetic): Bf16Update | undefined {
  const masters = keepsMasters(options, arithmetic)
  if (arithmetic !== "fp32") {
    const stochastic = !masters || options.flag("stochastic-rounding")
    return { masters, stochastic, seed: options.number("seed") }
  }
  if (options.flag("stochastic-rounding")) throw ofBf16("--stochastic-rounding")
  return undefined
}

function adamw(options: Options): AdamW {
  return {
    beta1: options.number("beta1"),
    beta2: options.number("beta2"),
    eps: options.number("eps"),
    weightDecay: options.number("weight-decay"),
  }
}

function introduce(
  display: Display,
  config: Config,
  { name, train, val, noVal }: Data,
  { B, T, accumulation, totalBatch, schedule }: TrainOptions,
  from: string,
): void {
  const validation = val ? `, validation ${thousands(val.tokenCount)}` : ""
  const micro = accumulation > 1 ? ` in ${accumulation} micro-batches` : ""
  const [tokens, steps] = [thousands(totalBatch), thousands(schedule.steps)]
  display.say(`model       ${describeConfig(config)}${from}`)
  display.say(`data        ${name}: ${thousands(train.tokenCount)} tokens${validation}`)
  if (noVal) display.say(`            no validation: ${noVal} (name one with --val)`)
  display.say(`batch       ${B}×${T}${micro} = ${tokens} tokens a step, ${steps} steps`)
}

/** Says how the run ended; returns the exit code. */
function conclude(
  display: Display,
  { steps, signal, valLoss }: Outcome,
  { val, valEntropy }: Data,
  { B, T, valBatches, schedule }: TrainOptions,
  folder: RunFolder | undefined,
): number {
  if (signal) {
    const kept = steps === 0 ? "; nothing is kept" : folder ? "" : "; nothing is kept without --out"
    display.say(`stopped after ${steps} of ${schedule.steps} steps${kept}`)
    if (folder && steps > 0) display.say(`go on with: llm train --resume --out ${folder.path}`)
    return exitCodeOf(signal)
  }
  if (valLoss !== undefined && val && valEntropy) {
    const targets = Math.min(valBatches, val.batchesPerEpoch) * B * T // that the loss is over
    const [loss, entropy] = [valLoss, valEntropy(targets)].map((nats) => nats.toFixed(2))
    display.say(`validation loss ${loss} nats a token; the source's entropy is ${entropy}`)
  }
  return 0
}

export const command: Command = { spec: TRAIN, run }
