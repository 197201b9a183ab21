// llm.c's GPT-2 model files: a header with the configuration, then every tensor in the order of the
// parameter table. They are read and written in fp32 and in bf16, which is the upper half of fp32.

import { roundAll, widenAll } from "../data/bf16.ts"
import { thousands, writeWhole } from "../data/files.ts"
import { assert } from "../errors.ts"
import { type Config, parameterCount } from "../model/config.ts"
import type { Precision } from "../native/contract.ts"
import { checkFinite } from "./finite.ts"
import { BinaryFile, bytesOf, HEADER_BYTES, headerBytes, type Kind } from "./header.ts"

const MAGIC = 20240326
const FP32 = 3
const BF16 = 5
const KIND: Kind = {
  magic: MAGIC,
  versions: { [FP32]: "fp32", [BF16]: "bf16" },
  hint: "give a GPT-2 model file that llm or llm.c wrote",
}
const PIECE = 2 ** 18 // numbers read or written at once: what is read is still cached when checked
const NOT_FINITE = "give a model that was written before its run went wrong"

export type ModelHeader = {
  config: Config
  dtype: Precision
  /** Numbers in the file, wte's padding rows included. */
  parameters: number
}
/** All of one tensor's numbers, the layers one after the other; 16 bits a number are bf16. */
export type NamedTensor<Numbers = Float32Array | Uint16Array> = { name: string; data: Numbers }

const BYTES: Record<Precision, number> = { fp32: 4, bf16: 2 }

/** How many numbers the tensors of a GPT-2 have, wte's padding rows included. */
export const countParameters = (config: Config) => parameterCount({ ...config, V: config.Vp })

/** The size of the file that writeModel makes. */
export function modelBytes(config: Config, dtype: Precision): number {
  return HEADER_BYTES + BYTES[dtype] * countParameters(config)
}

/** What a model file holds, after checking everything but the numbers. */
export function readModelHeader(path: string): ModelHeader {
  return BinaryFile.with(path, KIND, checkHeader)
}

/** Fills the tensors, which must be all of the model's in the file's order, from a model file; each
 * before the next is asked for. Refuses numbers that are not finite, or would not be in bf16. A tensor
 * may come in parts of one name. */
export function loadModel(path: string, tensors: Iterable<NamedTensor>): ModelHeader {
  const file = new ModelFile(path)
  try {
    let start = 0
    let tensor: string | undefined
    let place = 0 // in the tensor
    for (const { name, data } of tensors) {
      if (name !== tensor) place = 0
      tensor = name
      file.read(name, data, start, place)
      start += data.length
      place += data.length
    }
    checkCount(file.header.config, start)
    return file.header
  } finally {
    file.close()
  }
}

/** A model file that is open, everything but its numbers checked. */
export class ModelFile {
  readonly header: ModelHeader
  private readonly file: BinaryFile

  constructor(path: string) {
    this.file = new BinaryFile(path, KIND)
    try {
      this.header = checkHeader(this.file)
    } catch (error) {
      this.file.close()
      throw error
    }
  }

  /** Fills `into` from number `start` of the file on, which is number `place` of what `name` names.
   * Refuses numbers that are not finite, or would not be in the type asked for. */
  read(name: string, into: Float32Array | Uint16Array, start: number, place: number): void {
    const isFileBf16 = this.header.dtype === "bf16"
    const isSame = isFileBf16 === into instanceof Uint16Array
    const room = isSame ? 0 : Math.min(PIECE, into.length)
    const piece = isFileBf16 ? new Uint16Array(room) : new Float32Array(room)
    for (let done = 0; done < into.length; done += PIECE) {
      const part = into.subarray(done, done + PIECE)
      const read = isSame ? part : piece.subarray(0, part.length)
      const at = HEADER_BYTES + (start + done) * BYTES[this.header.dtype]
      this.file.read(bytesOf(read), at)
      if (!isSame && part instanceof Uint16Array) roundAll(part, read as Float32Array)
      if (!isSame && part instanceof Float32Array) widenAll(part, read as Uint16Array)
      checkFinite(this.file, name, part, place + done, NOT_FINITE)
    }
  }

  close(): void {
    this.file.close()
  }
}

/** What a model file begins with. */
export function modelHead({ maxT, V, Vp, L, NH, C }: Config, dtype: Precision): Uint8Array {
  return headerBytes(MAGIC, dtype === "bf16" ? BF16 : FP32, maxT, V, L, NH, C, Vp)
}

/** Writes the tensors, all of the model's in the file's order, in what they are given in. */
export function writeModel(path: string, config: Config, tensors: NamedTensor[]): void {
  checkCount(
    config,
    tensors.reduce((sum, { data }) => sum + data.length, 0),
  )
  function* chunks() {
    yield modelHead(config, tensors[0]!.data instanceof Uint16Array ? "bf16" : "fp32")
    for (const { data } of tensors) {
      for (let start = 0; start < data.length; start += PIECE) {
        yield bytesOf(data.subarray(start, start + PIECE))
      }
    }
  }
  writeWhole(path, chunks())
}

function checkHeader(file: BinaryFile): ModelHeader {
  const [, version, maxT = 0, V = 0, L = 0, NH = 0, C = 0, Vp = 0] = file.header
  const fields = { "context length": maxT, "vocabulary size": V, layers: L, heads: NH, channels: C }
  for (const [name, value] of Object.entries(fields)) {
    if (value < 1) throw file.wrong(`its header says ${value} for ${name}, below 1`, KIND.hint)
  }
  if (Vp < V) {
    const both = `${thousands(Vp)} is below the vocabulary of ${thousands(V)}`
    throw file.wrong(`its header's padded vocabulary of ${both}`, KIND.hint)
  }
  if (C % NH !== 0) {
    throw file.wrong(`its header's ${NH} heads do not divide its ${C} channels`, KIND.hint)
  }
  const config = { maxT, V, Vp, L, NH, C }
  const dtype = version === FP32 ? "fp32" : "bf16"
  const parameters = countParameters(config)
  const promised = modelBytes(config, dtype)
  file.checkBytes(promised, `${thousands(parameters)} parameters in ${dtype}`)
  return { config, dtype, parameters }
}

function checkCount(config: Config, given: number): void {
  const wanted = countParameters(config)
  assert(given === wanted, `${given} numbers, not the ${wanted} of the model`)
}
