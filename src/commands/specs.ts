// Options that several commands share.

import { PRESET_NAMES } from "../model/config.ts"
import { DEVICES } from "../native/device.ts"
import type { OptionSpec } from "../options.ts"
import { RECOMPUTE } from "../program/recompute.ts"

const MAX_INT = 2 ** 31 - 1 // a kernel's dimensions are int

export const int = (min: number, max = MAX_INT) => ({ kind: "int", value: "N", min, max }) as const

export const CHECKPOINT_HELP =
  "a GPT-2 model file, a folder of Hugging Face's, a run folder (its newest model), or a name on the hub: gpt2, OWNER/NAME"

/** The model's shape. */
export const MODEL_OPTIONS: OptionSpec[] = [
  {
    name: "init",
    short: "e",
    also: ["model"],
    group: "Model",
    kind: "text",
    value: "NAME|FILE",
    help: `a preset (${PRESET_NAMES[1]}, gpt3:c768, …), a model file or folder, or a name on the hub (gpt2, gpt2-medium, OWNER/NAME); else a small model`,
  },
  {
    name: "layers",
    also: ["n-layer", "depth"],
    group: "Model",
    ...int(1, 1024),
    help: "transformer blocks (the preset's, else 4)",
  },
  {
    name: "heads",
    also: ["n-head"],
    group: "Model",
    ...int(1, 1024),
    help: "attention heads of a block (the preset's, else 4)",
  },
  {
    name: "channels",
    also: ["n-embd", "hidden-size", "d-model", "width"],
    group: "Model",
    ...int(1, 65536),
    help: "numbers for each token (the preset's, else 128)",
  },
  {
    name: "context-max",
    group: "Model",
    ...int(1, 2 ** 20),
    help: "longest context that the model can have (the preset's, else --context)",
  },
  { name: "vocab", group: "Model", ...int(2, 2 ** 20), help: "vocabulary (GPT-2's 50257)" },
]

export const SHAPE_OPTIONS: OptionSpec[] = [
  {
    name: "batch",
    short: "b",
    also: ["batch-size"],
    group: "Batch",
    ...int(1, 2 ** 20),
    default: 4,
    help: "sequences",
  },
  {
    name: "context",
    short: "t",
    also: ["seq-len", "sequence-length", "block-size", "ctx"],
    group: "Batch",
    ...int(1, 2 ** 20),
    help: "tokens a sequence (64, on a GPU 1024, or the model's longest context)",
  },
  {
    name: "total-batch",
    short: "d",
    also: ["tokens-per-step", "global-batch-size"],
    group: "Batch",
    ...int(1),
    help: "tokens a step, by gradient accumulation (batch × context)",
  },
]

export const CLASSIFIER_OPTION: OptionSpec = {
  name: "classifier-rows",
  group: "Precision and memory",
  ...int(0),
  help: "rows of logits at once, 384·N; 0: all (as many as memory allows)",
}

/** How the list of a step's calls is rewritten. */
export const REWRITE_OPTIONS: OptionSpec[] = [
  CLASSIFIER_OPTION,
  {
    name: "recompute",
    short: "r",
    group: "Precision and memory",
    kind: "text",
    value: "WHAT",
    choices: RECOMPUTE,
    default: "0",
    help: "what the backward pass makes again instead of keeping it: 0 nothing, 1 GELUs, 2 norms too, block: all of a block",
  },
  {
    name: "gelu-fusion",
    short: "ge",
    group: "Precision and memory",
    kind: "text",
    value: "HOW",
    choices: ["auto", "0", "1", "2"],
    default: "auto",
    help: "GELUs in products: 0 none, 1 forward, 2 both ways; auto: 2",
  },
]

export const PRECISION_OPTION: OptionSpec = {
  name: "precision",
  group: "Precision and memory",
  kind: "text",
  value: "NAME",
  choices: ["fp32", "bf16"],
  elsewhere: { fp8: "eight bits are for training: try bf16, in which its samples are computed" },
  help: "of weights and activations: fp32, bf16 (fp32, on a GPU bf16)",
}

/** Of training, and of what shows its program. */
export const ARITHMETIC_OPTION: OptionSpec = {
  ...PRECISION_OPTION,
  choices: ["fp32", "bf16", "fp8"],
  help: "of weights and activations: fp32, bf16, or fp8: bf16 with products in eight bits (fp32, on a GPU bf16)",
}

export const MASTERS_OPTION: OptionSpec = {
  name: "master-weights",
  short: "w",
  group: "Precision and memory",
  ...int(0, 1),
  default: 1,
  help: "1: bf16 keeps f32 weights too; 0: it rounds its own at random",
}

export const DEVICE_OPTION: OptionSpec = {
  name: "device",
  group: "Machine",
  kind: "text",
  value: "NAME",
  choices: DEVICES,
  default: "auto",
  help: `kernels: ${DEVICES.join(", ")}; auto: a GPU's where there is one`,
}

export const DEVICE_OPTIONS: OptionSpec[] = [
  DEVICE_OPTION,
  {
    name: "threads",
    group: "Machine",
    ...int(0, 1024),
    default: 0,
    help: "threads; 0: the cores that this process may use",
  },
]

export const CONFIG_OPTION: OptionSpec = {
  name: "config",
  group: "Run",
  kind: "text",
  value: "FILE",
  help: "a TOML file with any of these options; the command line wins",
}
