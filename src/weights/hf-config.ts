// Hugging Face's config.json of a GPT-2: which of its models compute what ours do.

import { readFileSync } from "node:fs"
import { fileBytes, reason } from "../data/files.ts"
import { UserError } from "../errors.ts"
import { type Config, padVocabulary } from "../model/config.ts"
import { isRecord } from "./safetensors.ts"

const HINT = "give the config.json of a GPT-2"
const MAX_BYTES = 2 ** 24 // far above any config.json, or any list of a model's tensors

// What transformers takes where the file says nothing.
const SIZES = { vocab_size: 50257, n_positions: 1024, n_embd: 768, n_layer: 12, n_head: 12 }

/** Field → the values with which the arithmetic is ours, the first one by default. */
const WANTED: Record<string, unknown[]> = {
  activation_function: ["gelu_new", "gelu_pytorch_tanh", "gelu_fast"],
  layer_norm_epsilon: [1e-5],
  scale_attn_weights: [true],
  scale_attn_by_inverse_layer_idx: [false],
  add_cross_attention: [false],
  tie_word_embeddings: [true],
}

/** A file that is one JSON object. */
export function readJson(path: string, hint: string): Record<string, unknown> {
  const wrong = (what: string) => new UserError(`${path}: ${what} (${hint})`)
  const bytes = fileBytes(path, hint)
  if (bytes > MAX_BYTES) throw wrong(`${bytes} bytes are too many for such a file`)
  let value: unknown
  try {
    value = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(readFileSync(path)))
  } catch (error) {
    if ((error as NodeJS.ErrnoException).syscall) throw wrong(`cannot read: ${reason(error)}`)
    throw wrong("it is not JSON")
  }
  if (isRecord(value)) return value
  throw wrong("it is no JSON object")
}

/** The shape of the model. */
export function readHubConfig(path: string): Config {
  const fields = readJson(path, HINT)
  const wrong = (what: string) => new UserError(`${path}: ${what} (${HINT})`)
  if (fields.model_type !== "gpt2")
    throw wrong(`model_type is ${show(fields.model_type)}, not "gpt2"`)
  const size = (name: keyof typeof SIZES) => {
    const value = fields[name] === undefined ? SIZES[name] : fields[name]
    if (Number.isInteger(value) && Number(value) >= 1 && Number(value) < 2 ** 31)
      return Number(value)
    throw wrong(`${name} is ${show(value)}, not a whole number from 1`)
  }
  const [V, maxT, C] = [size("vocab_size"), size("n_positions"), size("n_embd")]
  const [L, NH] = [size("n_layer"), size("n_head")]
  if (C % NH !== 0) throw wrong(`n_head ${NH} does not divide n_embd ${C}`)
  const wanted: Record<string, unknown[]> = { ...WANTED, n_inner: [4 * C, null] }
  for (const [name, values] of Object.entries(wanted)) {
    const value = fields[name] === undefined ? values[0] : fields[name]
    if (values.includes(value)) continue
    throw wrong(
      `${name} is ${show(value)}, and only ${values.map(show).join(" or ")} can be computed`,
    )
  }
  return { maxT, V, Vp: padVocabulary(V), L, NH, C }
}

/** A value of a JSON file, for messages. */
function show(value: unknown): string {
  const text = JSON.stringify(value) ?? "missing"
  return text.length > 60 ? `${text.slice(0, 60)}…` : text
}
