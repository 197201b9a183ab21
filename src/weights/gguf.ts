// GPT-2's weights from a GGUF file, as llama.cpp's converter and its quantizer write them.

import { assert } from "../errors.ts"
import { InputFile } from "../formats/file.ts"
import { checkFinite } from "../formats/finite.ts"
import { type Config, padVocabulary } from "../model/config.ts"
import { type Gguf, type GgufTensor, HINT, readGguf } from "./gguf-file.ts"
import { type GgufParameter, ggufTable } from "./gguf-tensors.ts"
import { NUMBERS } from "./numbers.ts"
import type { WeightSource } from "./source.ts"

const PIECE = 2 ** 18 // numbers read at once
const EPSILON = Math.fround(1e-5) // of the layer norms, here and in GPT-2
const NOT_FINITE = "give a model that was written before its run went wrong"
const TIED = "token_embd.weight"

/** Opens a GPT-2 in GGUF: everything but the numbers is checked. */
export function openGguf(path: string): WeightSource {
  const file = new InputFile(path, HINT)
  try {
    const { metadata, tensors } = readGguf(file)
    const config = readConfig(file, metadata, tensors)
    const table = ggufTable(config)
    checkTensors(file, table, tensors)
    const source = new GgufSource(file, config, table, tensors)
    source.checkTied()
    return source
  } catch (error) {
    file.close()
    throw error
  }
}

class GgufSource implements WeightSource {
  readonly path: string
  private piece = new Uint8Array()

  constructor(
    private readonly file: InputFile,
    readonly config: Config,
    private readonly table: GgufParameter[],
    private readonly tensors: Gguf["tensors"],
  ) {
    this.path = file.path
  }

  get type() {
    return this.typeOf("qkvw")
  }

  typeOf(name: string) {
    return this.tensors.get(this.parameter(name).tensors[0]!)!.type
  }

  read(name: string, into: Float32Array, first: number): void {
    const { tensors, dims } = this.parameter(name)
    const size = dims.reduce((a, b) => a * b)
    for (let done = 0; done < into.length; ) {
      const layer = Math.floor((first + done) / size)
      const at = (first + done) % size
      if (layer === tensors.length) {
        assert(name === "wte", `${name} has no number ${first + done}`)
        into.fill(0, done) // padding rows
        return
      }
      const part = into.subarray(done, done + Math.min(PIECE, size - at))
      this.readTensor(tensors[layer]!, part, at)
      done += part.length
    }
  }

  private parameter(name: string): GgufParameter {
    return this.table.find((parameter) => parameter.name === name)!
  }

  /** Fills `into`, at most a piece, from number `first` of a tensor on. */
  private readTensor(name: string, into: Float32Array, first: number): void {
    const { type, at } = this.tensors.get(name)!
    const { block, bytes, decode } = NUMBERS[type]
    const start = Math.floor(first / block)
    const size = (Math.ceil((first + into.length) / block) - start) * bytes
    if (this.piece.length < size) this.piece = new Uint8Array(size)
    const stored = this.piece.subarray(0, size)
    this.file.read(stored, at + start * bytes)
    decode(into, stored, first % block)
    checkFinite(this.file, name, into, first, NOT_FINITE)
  }

  /** Refuses a classifier that is not the embedding: GPT-2 has one matrix for both. */
  checkTied(): void {
    const output = this.tensors.get("output.weight")
    if (output === undefined) return
    const { V, C } = this.config
    const [a, b] = [0, 1].map(() => new Float32Array(Math.min(PIECE, V * C)))
    for (let first = 0; first < V * C; first += PIECE) {
      const length = Math.min(PIECE, V * C - first)
      const [embedding, classifier] = [a!.subarray(0, length), b!.subarray(0, length)]
      this.readTensor(TIED, embedding, first)
      this.readTensor("output.weight", classifier, first)
      const place = classifier.findIndex((x, i) => x !== embedding[i])
      if (place < 0) continue
      const what = `output.weight: number ${first + place} is not that of ${TIED}`
      throw this.file.wrong(what, "give a GPT-2, whose classifier is its embedding")
    }
  }

  close(): void {
    this.file.close()
  }
}

function readConfig(file: InputFile, metadata: Gguf["metadata"], tensors: Gguf["tensors"]): Config {
  const architecture = metadata.get("general.architecture")
  if (architecture !== "gpt2") {
    throw file.wrong(`its architecture is ${architecture}, not gpt2`, HINT)
  }
  const count = (key: string): number => {
    const value = metadata.get(`gpt2.${key}`)
    if (typeof value === "number" && Number.isInteger(value) && value >= 1 && value < 2 ** 31) {
      return value
    }
    throw file.wrong(`its gpt2.${key} is ${value}, no whole number from 1 on`, HINT)
  }
  const [maxT, C, L] = [count("context_length"), count("embedding_length"), count("block_count")]
  const NH = count("attention.head_count")
  if (C % NH !== 0) throw file.wrong(`its ${NH} heads do not divide its ${C} channels`, HINT)
  const width = count("feed_forward_length")
  if (width !== 4 * C) {
    throw file.wrong(`its gpt2.feed_forward_length is ${width}, not 4·${C}`, HINT)
  }
  const epsilon = metadata.get("gpt2.attention.layer_norm_epsilon")
  if (typeof epsilon !== "number" || Math.fround(epsilon) !== EPSILON) {
    throw file.wrong(`its layer norms' epsilon is ${epsilon}, not 1e-5`, HINT)
  }
  if (L > tensors.size) {
    throw file.wrong(`its gpt2.block_count is ${L}, with ${tensors.size} tensors`, HINT)
  }
  const V = tensors.get(TIED)?.dims[1] ?? 0
  return { maxT, V, Vp: padVocabulary(V), L, NH, C }
}

/** Refuses tensors that are missing, of another shape or not GPT-2's. */
function checkTensors(file: InputFile, table: GgufParameter[], tensors: Gguf["tensors"]): void {
  const wanted = new Map(table.flatMap(({ tensors, dims }) => tensors.map((name) => [name, dims])))
  const check = (name: string, tensor: GgufTensor | undefined, dims: number[]) => {
    if (tensor === undefined) throw file.wrong(`it has no ${name}`, HINT)
    if (tensor.dims.length === dims.length && tensor.dims.every((n, i) => n === dims[i])) return
    const shapes = `${tensor.dims.join("×")}, not ${dims.join("×")}`
    throw file.wrong(`${name} is ${shapes}`, HINT)
  }
  for (const [name, dims] of wanted) check(name, tensors.get(name), dims)
  for (const [name, tensor] of tensors) {
    if (name === "output.weight") check(name, tensor, wanted.get(TIED)!)
    else if (!wanted.has(name)) throw file.wrong(`GPT-2 has no ${name}`, HINT)
  }
}
