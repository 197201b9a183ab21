// llm sample CHECKPOINT

import { loadEncoder } from "../data/tokenizer.ts"
import { UserError } from "../errors.ts"
import type { Command } from "../main.ts"
import { decodeProgram } from "../model/program.ts"
import { loadWeights } from "../model/weights.ts"
import type { Precision } from "../native/contract.ts"
import { type Device, findDevice, openDevice, platformOf, USUAL } from "../native/device.ts"
import { forRun } from "../native/memory.ts"
import { exitCodeOf } from "../native/signals.ts"
import type { CommandSpec, Options } from "../options.ts"
import { Program } from "../program/link.ts"
import { Sampler } from "../sample/generate.ts"
import { LogProbabilities } from "../sample/logprobs.ts"
import { promptTokens, readPrompt } from "../sample/prompt.ts"
import { Writer } from "../sample/write.ts"
import { openModel } from "../weights/open.ts"
import { CHECKPOINT_HELP, DEVICE_OPTIONS, int, PRECISION_OPTION } from "./specs.ts"

const text = (value: string) => ({ group: "Text", kind: "text", value }) as const
const choice = (min: number, max?: number, open?: "min") =>
  ({ group: "Choice", kind: "float", value: "X", min, max, open }) as const

const spec: CommandSpec = {
  name: "sample",
  summary: "Writes text with a model: the text to stdout, the speed to stderr.",
  positional: {
    name: "CHECKPOINT",
    help: CHECKPOINT_HELP,
    required: true,
  },
  options: [
    {
      name: "prompt",
      ...text("TEXT"),
      help: "what the text goes on from (what is piped in, or the start of a document)",
    },
    { name: "file", ...text("FILE"), help: "the same, from a file" },
    { name: "tokens", group: "Text", ...int(1), default: 256, help: "tokens to write" },
    {
      name: "stop",
      ...text("TEXT"),
      many: true,
      help: "where to end, and leave this out; may be given several times",
    },
    {
      name: "context",
      group: "Text",
      ...int(1),
      help: "tokens that the model looks back on (its longest context)",
    },
    {
      name: "samples",
      group: "Text",
      ...int(1),
      default: 1,
      help: "texts to write, each with draws of its own",
    },
    {
      name: "interactive",
      group: "Text",
      kind: "flag",
      help: "reads lines and goes on from each",
    },
    {
      name: "logprobs",
      ...text("FILE"),
      help: "the log-probability that the model gave each token, as lines of JSON",
    },
    {
      name: "temperature",
      ...choice(0),
      default: 1,
      help: "divides the logits; 0: always the likeliest token",
    },
    {
      name: "top-k",
      group: "Choice",
      ...int(0),
      default: 0,
      help: "of the K likeliest tokens; 0: of all",
    },
    {
      name: "top-p",
      ...choice(0, 1, "min"),
      default: 1,
      help: "of the likeliest tokens that make up this probability",
    },
    {
      name: "min-p",
      ...choice(0, 1),
      default: 0,
      help: "of tokens at least this likely, next to the likeliest; 0: of all",
    },
    {
      name: "repetition-penalty",
      ...choice(0.01, 100),
      default: 1,
      help: "makes tokens that the text has less likely; 1: does not",
    },
    { name: "seed", group: "Choice", ...int(0, 2 ** 32 - 1), default: 42, help: "of the draws" },
    PRECISION_OPTION,
    ...DEVICE_OPTIONS,
  ],
  examples: [
    'llm sample runs/a/model_00001000.bin --prompt "To be" --temperature 0.8',
    'llm sample gpt2 --prompt "The sea" --top-k 40',
    "llm sample runs/a --samples 3 --stop $'\\n\\n' --file question.txt",
    "llm sample runs/a --interactive --tokens 50",
  ],
}

// Sequences that are decoded together: so few that each has the bits that it has alone (llm.h).
const BATCH = 8

async function run(options: Options): Promise<number> {
  const source = await openModel(options.text("checkpoint")!)
  const { config } = source
  const context = options.optionalNumber("context") ?? config.maxT
  if (context > config.maxT) {
    throw new UserError(
      `--context ${context} is above the model's longest context of ${config.maxT} (try --context ${config.maxT})`,
    )
  }
  const isInteractive = options.flag("interactive")
  const samples = options.number("samples")
  if (isInteractive && samples > 1) {
    throw new UserError(`--samples ${samples} contradicts --interactive (leave one out)`)
  }
  const logPath = options.text("logprobs")
  const log = logPath === undefined ? undefined : await LogProbabilities.open(logPath)
  const prompt = await readPrompt(options.text("prompt"), options.text("file"), !isInteractive)
  const encode = prompt || isInteractive ? await loadEncoder() : () => []
  const tokens = promptTokens(prompt, encode, config.V)

  const found = await findDevice(options.text("device") as Device)
  const platform = platformOf(found)
  const precision = (options.text("precision") ?? USUAL[platform].precision) as Precision
  const kernels = await openDevice(found, options.number("threads"), precision)
  const B = Math.ceil(samples / Math.ceil(samples / BATCH)) // of all batches
  const tensors = decodeProgram(config, precision, B, platform)
  const program = await Program.link(tensors, kernels, forRun(B > 1 ? ["fewer --samples"] : []))
  loadWeights(source, program, tensors, kernels)
  source.close()

  const samplerAt = (index: number) =>
    new Sampler(program, tensors, config, {
      context,
      temperature: options.number("temperature"),
      topK: options.number("top-k"),
      topP: options.number("top-p"),
      minP: options.number("min-p"),
      repetitionPenalty: options.number("repetition-penalty"),
      seed: options.number("seed"),
      index,
    })
  const [count, stops] = [options.number("tokens"), options.texts("stop")]
  const writer = new Writer({ count, stops, context, log })
  const signal = isInteractive
    ? await writer.turns(samplerAt(0), prompt, tokens, encode, config.V)
    : await writer.samples(samples, samplerAt, prompt, tokens)
  log?.write()
  process.stderr.write(writer.report(tokens.length))
  return signal ? exitCodeOf(signal) : 0
}

export const command: Command = { spec, run }
