// Opens a model's weights, in whatever file they are: what the file holds decides, not its name.

import { existsSync, statSync } from "node:fs"
import { dirname, join } from "node:path"
import { UserError } from "../errors.ts"
import { InputFile } from "../formats/file.ts"
import { completeSteps, modelFile } from "../train/checkpoint.ts"
import { warn } from "../train/display.ts"
import { openBin } from "./bin.ts"
import { openGguf } from "./gguf.ts"
import { CONFIG_FILE, INDEX_FILE, MODEL_FILE, modelsIn, openHuggingFace } from "./huggingface.ts"
import type { WeightSource } from "./source.ts"

const HINT = "give a model file, a run folder, or a folder that transformers saved"

// Names without an owner, of times when the hub had such.
const SHORT: Record<string, string> = {
  distilgpt2: "distilbert/distilgpt2",
  ...Object.fromEntries(
    ["gpt2", "gpt2-medium", "gpt2-large", "gpt2-xl"].map((name) => [
      name,
      `openai-community/${name}`,
    ]),
  ),
}

/** The model of the hub that a text names: OWNER/NAME, or a name of GPT-2's. What looks like a path, as
 * its folder is there or its name ends as a model file's, is one. */
export function hubName(text: string): string | undefined {
  if (Object.hasOwn(SHORT, text)) return SHORT[text]
  const [, owner] = /^(\w[\w.-]*)\/\w[\w.-]*$/.exec(text) ?? []
  const isPath = /--|\.\.|[.-]$|\.(bin|gguf|safetensors)$/.test(text)
  return owner === undefined || isPath || existsSync(owner) ? undefined : text
}

/** Opens what a path holds, or else a model of the hub, which is downloaded unless it was before. */
export async function openModel(named: string): Promise<WeightSource> {
  const name = existsSync(named) ? undefined : hubName(named)
  if (name === undefined) return openWeights(named)
  const { fetchModel } = await import("./hub.ts")
  return openWeights(await fetchModel(name))
}

/** Opens a model file, a folder of Hugging Face's, or a run folder, whose newest model is taken. */
export async function openWeights(path: string): Promise<WeightSource> {
  if (statSync(path, { throwIfNoEntry: false })?.isDirectory()) {
    // A run's checkpoints are what the folder is, whatever else was put there.
    const isRun = completeSteps(path).length > 0
    const hasHub = [CONFIG_FILE, MODEL_FILE, INDEX_FILE].some((name) =>
      existsSync(join(path, name)),
    )
    if (!isRun && hasHub) return openHuggingFace(path)
    const [model] = isRun ? [] : modelsIn(path)
    if (model) throw new UserError(`${path}: it is a folder without a checkpoint (give ${model})`)
    return openBin(modelFile(path, warn))
  }
  const start = firstBytes(path)
  if (start.toString("latin1", 0, 4) === "GGUF") return openGguf(path)
  return isSafetensors(path, start) ? openHuggingFace(dirname(path), path) : openBin(path)
}

function firstBytes(path: string): Buffer {
  const file = new InputFile(path, HINT)
  try {
    const bytes = Buffer.alloc(Math.min(file.bytes, 9))
    file.read(bytes, 0)
    return bytes
  } finally {
    file.close()
  }
}

/** A JSON header of less than 4 GB, behind its length; or a file that claims to be one. */
const isSafetensors = (path: string, start: Buffer) =>
  path.endsWith(".safetensors") ||
  (start.length === 9 && start.readUInt32LE(4) === 0 && start[8] === "{".charCodeAt(0))
