// llm sample [CHECKPOINT]

import { thousands } from "../data/files.ts"
import { END_OF_TEXT, loadEncoder } from "../data/tokenizer.ts"
import { UserError } from "../errors.ts"
import type { Command } from "../main.ts"
import { decodeProgram } from "../model/program.ts"
import { loadWeights } from "../model/weights.ts"
import type { Precision } from "../native/contract.ts"
import { type Device, openDevice } from "../native/device.ts"
import { exitCodeOf, Stop } from "../native/signals.ts"
import type { CommandSpec, Options } from "../options.ts"
import { Program } from "../program/link.ts"
import { NO_FILTERS } from "../sample/choose.ts"
import { generate } from "../sample/generate.ts"
import { SampleText } from "../sample/text.ts"
import { openModel } from "../weights/open.ts"
import { CHECKPOINT_HELP, DEVICE_OPTIONS, int, PRECISION_OPTION } from "./specs.ts"

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
      group: "Text",
      kind: "text",
      value: "TEXT",
      help: "what the text goes on from (the start of a document)",
    },
    { name: "tokens", group: "Text", ...int(1), default: 256, help: "tokens to write" },
    {
      name: "context",
      group: "Text",
      ...int(1),
      help: "tokens that the model looks back on (its longest context)",
    },
    {
      name: "temperature",
      group: "Choice",
      kind: "float",
      value: "X",
      min: 0,
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
      group: "Choice",
      kind: "float",
      value: "X",
      min: 0,
      open: "min",
      max: 1,
      default: 1,
      help: "of the likeliest tokens that make up this probability",
    },
    { name: "seed", group: "Choice", ...int(0, 2 ** 32 - 1), default: 42, help: "of the draws" },
    PRECISION_OPTION,
    ...DEVICE_OPTIONS,
  ],
  examples: [
    'llm sample runs/a/model_00001000.bin --prompt "To be" --temperature 0.8',
    "llm sample runs/a",
    'llm sample gpt2 --prompt "The sea" --top-k 40',
  ],
}

async function run(options: Options): Promise<number> {
  const source = await openModel(options.text("checkpoint")!)
  const { config } = source
  const context = options.optionalNumber("context") ?? config.maxT
  if (context > config.maxT) {
    throw new UserError(
      `--context ${context} is above the model's longest context of ${config.maxT} (try --context ${config.maxT})`,
    )
  }
  const prompt = await promptTokens(options.text("prompt"), config.V)
  const precision = options.text("precision") as Precision
  const device = options.text("device") as Device
  const kernels = await openDevice(device, options.number("threads"), precision)
  const tensors = decodeProgram(config, precision)
  const program = await Program.link(tensors, kernels)
  loadWeights(source, program, tensors, kernels)
  source.close()

  const text = await SampleText.open()
  using stop = new Stop()
  const start = performance.now()
  let count = 0
  if (options.text("prompt")) process.stdout.write(options.text("prompt")!)
  const tokens = generate(program, tensors, config, {
    ...NO_FILTERS,
    prompt,
    count: options.number("tokens"),
    context,
    temperature: options.number("temperature"),
    topK: options.number("top-k"),
    topP: options.number("top-p"),
    seed: options.number("seed"),
  })
  for (const token of tokens) {
    count++
    process.stdout.write(text.push(token))
    if (await stop.heard()) break
  }
  process.stdout.write(`${text.end()}\n`)
  const seconds = (performance.now() - start) / 1000
  process.stderr.write(
    `${thousands(count)} tokens, ${(count / seconds).toFixed(1)} tokens/s, prompt of ${prompt.length} included\n`,
  )
  const signal = await stop.heard()
  return signal ? exitCodeOf(signal) : 0
}

async function promptTokens(text: string | undefined, V: number): Promise<number[]> {
  if (text === undefined) return [END_OF_TEXT < V ? END_OF_TEXT : 0]
  const tokens = (await loadEncoder())(text)
  const unknown = tokens.find((token) => token >= V)
  if (unknown !== undefined) {
    throw new UserError(
      `--prompt: token ${unknown} is outside the model's vocabulary of ${thousands(V)} (try other words)`,
    )
  }
  return [...tokens]
}

export const command: Command = { spec, run }
