// llm eval CHECKPOINT

import { builtinCorpus } from "../data/corpus.ts"
import { thousands } from "../data/files.ts"
import { Loader, type LoaderOptions } from "../data/loader.ts"
import { UserError } from "../errors.ts"
import { type Choices, describeScore, fitChoices, scoreChoices } from "../eval/choices.ts"
import { validationLoss } from "../eval/loss.ts"
import { readChoices } from "../formats/choices.ts"
import type { Command } from "../main.ts"
import { type Config, GPT2_VOCABULARY } from "../model/config.ts"
import { type EvaluationProgram, evaluationProgram } from "../model/program.ts"
import { loadWeights } from "../model/weights.ts"
import type { Precision } from "../native/contract.ts"
import { type Device, findDevice, openDevice, platformOf, USUAL } from "../native/device.ts"
import { exitCodeOf, Stop } from "../native/signals.ts"
import type { CommandSpec, Options } from "../options.ts"
import { Program } from "../program/link.ts"
import { elements } from "../program/tensor.ts"
import { duration } from "../train/display.ts"
import { builtinValidation, chooseBatch, fitting, type Validation } from "../train/settings.ts"
import { openModel } from "../weights/open.ts"
import {
  CHECKPOINT_HELP,
  CLASSIFIER_OPTION,
  DEVICE_OPTIONS,
  int,
  PRECISION_OPTION,
  SHAPE_OPTIONS,
} from "./specs.ts"

const USUAL_CONTEXT = 1024 // GPT-2's
const NOT_FINITE = 3 // exit code, as of a training run

const spec: CommandSpec = {
  name: "eval",
  summary: "Measures a model: its loss over validation tokens, its accuracy in HellaSwag.",
  positional: { name: "CHECKPOINT", help: CHECKPOINT_HELP, required: true },
  options: [
    {
      name: "val",
      short: "j",
      group: "Data",
      kind: "text",
      value: "FILES",
      help: "token files, a path or a quoted glob (the built-in corpus)",
    },
    {
      name: "val-batches",
      short: "m",
      group: "Data",
      ...int(1),
      help: "batches, from the first on (all)",
    },
    {
      name: "hellaswag",
      group: "Data",
      kind: "text",
      value: "FILE",
      help: "HellaSwag's questions as llm.c stores them; without --val, only these",
    },
    ...SHAPE_OPTIONS.filter(({ name }) => name === "batch"),
    {
      name: "context",
      short: "t",
      group: "Batch",
      ...int(1, 2 ** 20),
      help: `tokens a sequence (${USUAL_CONTEXT}, or the model's longest context)`,
    },
    PRECISION_OPTION,
    CLASSIFIER_OPTION,
    ...DEVICE_OPTIONS,
  ],
  examples: [
    "llm eval runs/first --val data/tiny_shakespeare_val.bin --context 64",
    "llm eval gpt2_124M.bin --hellaswag dev/data/hellaswag/hellaswag_val.bin --batch 16",
  ],
}

/** A loss that is no number ends the command: what else the model says is worthless. */
class NotFinite extends Error {}

interface Linked {
  program: Program
  tensors: EvaluationProgram
}

async function run(options: Options): Promise<number> {
  const given = options.text("checkpoint")!
  const source = await openModel(given)
  const { config, path } = source
  const { B, T } = chooseBatch(options, config, USUAL_CONTEXT)
  const choices = openChoices(options, config, T)
  const data = await openValidation(options, path, { B, T, vocabulary: config.V })

  const found = await findDevice(options.text("device") as Device)
  const platform = platformOf(found)
  const precision = (options.text("precision") ?? USUAL[platform].precision) as Precision
  const kernels = await openDevice(found, options.number("threads"), precision)
  using stop = new Stop()
  let head = path === given ? "" : `${path}\n` // which model of a folder
  const measure = async (T: number, result: (linked: Linked) => Promise<string | undefined>) => {
    const { tensors } = fitting(options, kernels, (classifierRows) => {
      return evaluationProgram(config, { B, T, precision, platform, classifierRows })
    })
    const program = await Program.link(tensors, kernels)
    loadWeights(source, program, tensors, kernels)
    const text = await result({ program, tensors })
    program.free()
    clearProgress()
    if (text !== undefined) process.stdout.write(`${head}${text}\n`)
    head = ""
  }
  try {
    if (data) await measure(T, (linked) => lossText(linked, data, options, stop))
    // Its rows are as short as its questions allow.
    if (choices && !(await stop.heard()))
      await measure(choices.longest, (linked) => scoreText(linked, choices, stop))
  } catch (error) {
    if (!(error instanceof NotFinite)) throw error
    clearProgress()
    process.stderr.write(`llm: ${path}: ${error.message} (try an earlier model)\n`)
    return NOT_FINITE
  } finally {
    source.close()
  }
  const signal = await stop.heard()
  return signal ? exitCodeOf(signal) : 0
}

function openChoices(options: Options, { V }: Config, T: number): Choices | undefined {
  const path = options.text("hellaswag")
  return path === undefined ? undefined : fitChoices(path, readChoices(path, V), T)
}

/** The tokens of --val, or the built-in corpus's unless there is something else to measure. */
async function openValidation(
  options: Options,
  model: string,
  shape: LoaderOptions,
): Promise<Validation | undefined> {
  const given = options.text("val")
  if (given !== undefined) return { val: Loader.open(given, shape) }
  if (options.isGiven("hellaswag")) {
    const batches = options.optionalNumber("val-batches")
    if (batches === undefined) return undefined
    throw new UserError(
      `--val-batches ${batches} goes with --val (add token files, or leave it out)`,
    )
  }
  if (shape.vocabulary < GPT2_VOCABULARY) {
    throw new UserError(
      `${model}: its vocabulary of ${shape.vocabulary} is below ${GPT2_VOCABULARY}, the built-in corpus's (name token files with --val)`,
    )
  }
  return builtinValidation(await builtinCorpus(), shape)
}

async function lossText(
  { program, tensors }: Linked,
  { val, valEntropy }: Validation,
  options: Options,
  stop: Stop,
): Promise<string | undefined> {
  const all = val.batchesPerEpoch
  const batches = Math.min(options.optionalNumber("val-batches") ?? all, all)
  const show = progress("validation: batch", batches)
  const loss = await validationLoss(program, tensors, val, batches, stop, show)
  if (loss === undefined) return undefined
  if (!Number.isFinite(loss)) throw new NotFinite(`the validation loss is ${loss}`)
  const targets = batches * elements(tensors.targets)
  const perplexity = Math.exp(loss).toFixed(2)
  const text = `validation loss ${loss.toFixed(4)}  perplexity ${perplexity}  over ${thousands(targets)} tokens`
  if (!valEntropy) return text
  return `${text}\nthe source's entropy is ${valEntropy(targets).toFixed(4)} nats a token`
}

async function scoreText(
  { program, tensors }: Linked,
  choices: Choices,
  stop: Stop,
): Promise<string | undefined> {
  const show = progress("HellaSwag: example", choices.examples.length)
  const score = await scoreChoices(program, tensors, choices, stop, show)
  if (!score) return undefined
  if (Number.isNaN(score.correct)) throw new NotFinite("a loss in HellaSwag is no number")
  return `HellaSwag ${describeScore(score, choices)}`
}

/** Shows on a terminal how many of `total` are done. */
function progress(what: string, total: number): (done: number) => void {
  const start = performance.now()
  return (done) => {
    if (!process.stderr.isTTY) return
    const leftMs = ((performance.now() - start) / done) * (total - done)
    const left = done > 0 ? `  ${duration(leftMs)} left` : ""
    process.stderr.write(`\r\x1b[K${what} ${thousands(done + 1)} of ${thousands(total)}${left}`)
  }
}

function clearProgress(): void {
  if (process.stderr.isTTY) process.stderr.write("\r\x1b[K")
}

export const command: Command = { spec, run }
