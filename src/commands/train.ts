// llm train [TOKENS]

import { thousands } from "../data/files.ts"
import { UserError } from "../errors.ts"
import type { Command } from "../main.ts"
import { initialize } from "../model/initialize.ts"
import { describeConfig, trainingProgram } from "../model/program.ts"
import { loadWeights, saveWeights } from "../model/weights.ts"
import { type Device, openDevice } from "../native/device.ts"
import { measurePeak } from "../native/peak.ts"
import type { CommandSpec, Options } from "../options.ts"
import { Program } from "../program/link.ts"
import { Display } from "../train/display.ts"
import { RunFolder } from "../train/runfolder.ts"
import { SCHEDULES, type ScheduleName } from "../train/schedule.ts"
import { chooseModel, chooseShape, openData } from "../train/settings.ts"
import { Diverged, Trainer, type TrainOptions } from "../train/trainer.ts"
import { CONFIG_OPTION, DEVICE_OPTIONS, int, MODEL_OPTIONS, SHAPE_OPTIONS } from "./specs.ts"

const float = (min: number, max?: number) => ({ kind: "float", value: "X", min, max }) as const

const spec: CommandSpec = {
  name: "train",
  summary: "Trains a model, from scratch or from a file, and writes samples on the way.",
  positional: {
    name: "TOKENS",
    short: "i",
    help: "token files, a path or a quoted glob (the built-in corpus)",
    required: false,
  },
  options: [
    {
      name: "val",
      short: "j",
      group: "Data",
      kind: "text",
      value: "FILES",
      help: "token files to validate on (TOKENS with _val for _train)",
    },
    { name: "shuffle", group: "Data", kind: "flag", help: "draw batches in a random order" },
    {
      name: "overfit-batch",
      short: "a",
      group: "Data",
      kind: "flag",
      help: "train on the first batch only",
    },
    ...MODEL_OPTIONS,
    ...SHAPE_OPTIONS,
    {
      name: "steps",
      short: "x",
      group: "Optimizer",
      ...int(1),
      help: "optimizer steps (one epoch)",
    },
    {
      name: "schedule",
      short: "k",
      group: "Optimizer",
      kind: "text",
      value: "NAME",
      choices: SCHEDULES,
      default: "cosine",
      help: `of the learning rate: ${SCHEDULES.join(", ")}`,
    },
    {
      name: "lr",
      short: "l",
      group: "Optimizer",
      ...float(0),
      default: 3e-4,
      help: "highest learning rate",
    },
    {
      name: "warmup",
      short: "u",
      group: "Optimizer",
      ...int(0),
      default: 0,
      help: "steps of warm-up",
    },
    {
      name: "final-lr-frac",
      short: "q",
      group: "Optimizer",
      ...float(0, 1),
      default: 1,
      help: "learning rate at the end, as a fraction",
    },
    {
      name: "weight-decay",
      short: "c",
      group: "Optimizer",
      ...float(0),
      default: 0,
      help: "AdamW's decay of matrices",
    },
    { name: "beta1", group: "Optimizer", ...float(0, 1), open: "max", default: 0.9, help: "AdamW" },
    {
      name: "beta2",
      group: "Optimizer",
      ...float(0, 1),
      open: "max",
      default: 0.95,
      help: "AdamW",
    },
    { name: "eps", group: "Optimizer", ...float(0), open: "min", default: 1e-8, help: "AdamW" },
    {
      name: "grad-clip",
      group: "Optimizer",
      ...float(0),
      default: 1,
      help: "highest norm of the gradient; 0: no clipping",
    },
    {
      name: "seed",
      group: "Run",
      ...int(0, 2 ** 32 - 1),
      default: 42,
      help: "of weights, order and samples",
    },
    {
      name: "out",
      short: "o",
      group: "Run",
      kind: "text",
      value: "FOLDER",
      help: "folder for the log, the metrics and the model",
    },
    CONFIG_OPTION,
    {
      name: "val-every",
      short: "v",
      group: "Run",
      ...int(0),
      default: 20,
      help: "steps between validations; 0: none",
    },
    {
      name: "val-batches",
      short: "m",
      group: "Run",
      ...int(1),
      default: 20,
      help: "batches of a validation",
    },
    {
      name: "sample-every",
      short: "s",
      group: "Run",
      ...int(0),
      default: 20,
      help: "steps between samples; 0: none",
    },
    {
      name: "sample-tokens",
      short: "g",
      group: "Run",
      ...int(1),
      default: 64,
      help: "tokens a sample",
    },
    ...DEVICE_OPTIONS,
  ],
  examples: [
    "llm train",
    "llm train data/tiny_shakespeare_train.bin",
    "llm train 'data/fineweb_train_*.bin' --init gpt2:d12 --batch 8 --context 1024 --out runs/d12",
  ],
}

async function run(options: Options): Promise<number> {
  const { config, file } = chooseModel(options)
  const shape = chooseShape(options, config)
  const { B, T, accumulation, totalBatch } = shape
  const seed = options.number("seed")
  const loaderShape = { B, T, vocabulary: config.V, shuffle: options.flag("shuffle"), seed }
  const data = await openData(options, loaderShape)
  const epoch = Math.max(1, Math.floor(data.train.batchesPerEpoch / accumulation))
  const steps = options.optionalNumber("steps") ?? epoch
  const trainOptions: TrainOptions = {
    ...shape,
    schedule: {
      name: options.text("schedule") as ScheduleName,
      lr: options.number("lr"),
      warmup: options.number("warmup"),
      steps,
      finalFraction: options.number("final-lr-frac"),
    },
    gradClip: options.number("grad-clip"),
    valEvery: options.number("val-every"),
    valBatches: options.number("val-batches"),
    sampleEvery: options.number("sample-every"),
    sampleTokens: options.number("sample-tokens"),
    overfitBatch: options.flag("overfit-batch"),
    seed,
  }
  if (trainOptions.schedule.warmup > steps) {
    throw new UserError(
      `--warmup ${trainOptions.schedule.warmup} is above the ${steps} steps of the run (lower it, or raise --steps)`,
    )
  }
  const kernels = await openDevice(options.text("device") as Device, options.number("threads"))
  const threads = kernels.call("llm_threads", 0)
  const out = options.text("out")
  const resolved = { ...options.resolved(), context: T, "total-batch": totalBatch, steps, threads }
  const folder = out === undefined ? undefined : RunFolder.create(out, resolved)

  const tensors = trainingProgram(config, {
    B,
    T,
    accumulation,
    adamw: {
      beta1: options.number("beta1"),
      beta2: options.number("beta2"),
      eps: options.number("eps"),
      weightDecay: options.number("weight-decay"),
    },
  })
  const program = await Program.link(tensors, kernels)
  if (file === undefined) initialize(program, tensors.parameters, config, kernels, seed)
  else loadWeights(file, program, tensors.parameters, config)
  const display = new Display(steps)
  display.say(`model       ${describeConfig(config)}${file ? `, from ${file}` : ""}`)
  const tokens = `${thousands(data.train.tokenCount)} tokens`
  const validation = data.val ? `, validation ${thousands(data.val.tokenCount)}` : ""
  display.say(`data        ${data.name}: ${tokens}${validation}`)
  if (data.noVal) display.say(`            no validation: ${data.noVal} (name one with --val)`)
  const micro = accumulation > 1 ? ` in ${accumulation} micro-batches` : ""
  display.say(
    `batch       ${B}×${T}${micro} = ${thousands(totalBatch)} tokens a step, ${thousands(steps)} steps`,
  )
  display.say(`kernels     ${kernels.name}, ${threads} thread${threads === 1 ? "" : "s"}`)
  display.say(`arena       ${thousands(program.plan.peak)} bytes`)

  const trainer = new Trainer(
    program,
    tensors,
    config,
    data,
    trainOptions,
    () => measurePeak(kernels),
    display,
    folder,
  )
  try {
    const outcome = await trainer.run()
    if (folder) {
      const path = folder.file(`model_${`${outcome.steps}`.padStart(8, "0")}.bin`)
      saveWeights(path, program, tensors.parameters, config)
      display.say(`wrote ${path}`)
    }
    if (outcome.signal) {
      const kept = folder ? "" : "; nothing is kept without --out"
      display.say(`stopped after ${outcome.steps} of ${steps} steps${kept}`)
      return outcome.signal === "SIGINT" ? 130 : 143
    }
    if (outcome.valLoss !== undefined && data.valEntropy !== undefined) {
      const [loss, entropy] = [outcome.valLoss, data.valEntropy].map((x) => x.toFixed(2))
      display.say(`validation loss ${loss} nats a token; the source's entropy is ${entropy}`)
    }
    return 0
  } catch (error) {
    display.clear()
    if (!(error instanceof Diverged)) throw error
    process.stderr.write(`llm: ${error.message} (try a lower --lr, or --warmup)\n`)
    return DIVERGED
  }
}

const DIVERGED = 3 // exit code of a run whose numbers went bad

export const command: Command = { spec, run }
