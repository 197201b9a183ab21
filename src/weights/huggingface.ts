// A Hugging Face folder as a source of weights: config.json, and model.safetensors or the shards that
// model.safetensors.index.json lists.

import { existsSync, readdirSync } from "node:fs"
import { join } from "node:path"
import { UserError } from "../errors.ts"
import { bytesOf } from "../formats/header.ts"
import type { Config } from "../model/config.ts"
import { readHubConfig, readJson } from "./hf-config.ts"
import { type HubTensor, hubTensors, PREFIX } from "./hf-names.ts"
import { isRecord, SafetensorsFile } from "./safetensors.ts"
import type { NumberType, WeightSource } from "./source.ts"

export const CONFIG_FILE = "config.json"
export const MODEL_FILE = "model.safetensors"
export const INDEX_FILE = "model.safetensors.index.json"

const HINT = "give a GPT-2 as transformers saves it"
const TRANSPOSED_ROWS = 64 // of a stored matrix at once: they stay cached while they are turned

/** Causal masks, which older versions of transformers stored. */
const isBuffer = (name: string) => /^h\.\d+\.attn\.(bias|masked_bias)$/.test(name)

/** A tensor where it is. */
interface Placed {
  file: SafetensorsFile
  /** In the file. */
  name: string
}

/** Opens a folder, or that file of it alone. */
export function openHuggingFace(folder: string, file?: string): WeightSource {
  const described = join(folder, CONFIG_FILE)
  if (!existsSync(described)) {
    const what = `no ${CONFIG_FILE} lies with it, which says what the model is (copy it there)`
    throw new UserError(`${file ?? folder}: ${what}`)
  }
  const config = readHubConfig(described)
  const files: SafetensorsFile[] = []
  try {
    const shards = file === undefined ? shardsOf(folder) : undefined
    const paths = shards ? new Set(shards.values()) : [file ?? join(folder, MODEL_FILE)]
    for (const each of paths) files.push(new SafetensorsFile(each))
    const tensors = collect(files)
    for (const [name, shard] of shards ?? []) {
      if (tensors.get(plain(name))?.file.path === shard) continue
      throw new UserError(`${shard}: it lacks ${name}, which ${INDEX_FILE} says it has (${HINT})`)
    }
    return new HubSource(file ?? folder, config, files, tensors)
  } catch (error) {
    for (const open of files) open.close()
    throw error
  }
}

const count = (shape: number[]) => shape.reduce((a, b) => a * b, 1)
const plain = (name: string) => (name.startsWith(PREFIX) ? name.slice(PREFIX.length) : name)

/** Files of a folder that are models by their names. */
export function modelsIn(folder: string): string[] {
  const names = readdirSync(folder).filter((name) =>
    /^model.*\.bin$|\.(gguf|safetensors)$/.test(name),
  )
  return names.sort().map((name) => join(folder, name))
}

/** The shard of every tensor; undefined where the folder has the model in one file. */
function shardsOf(folder: string): Map<string, string> | undefined {
  const path = join(folder, INDEX_FILE)
  if (existsSync(join(folder, MODEL_FILE))) return undefined
  if (!existsSync(path)) {
    const [other] = modelsIn(folder)
    const hint = other === undefined ? HINT : `give ${other} itself`
    throw new UserError(`${folder}: it has neither ${MODEL_FILE} nor ${INDEX_FILE} (${hint})`)
  }
  const list = shardList(path)
  return new Map([...list].map(([tensor, file]) => [tensor, join(folder, file)]))
}

/** What an index says: the shard of every tensor, a file beside the index. */
export function shardList(path: string): Map<string, string> {
  const { weight_map: map } = readJson(path, HINT)
  const entries = isRecord(map) ? Object.entries(map) : []
  if (entries.length === 0) throw new UserError(`${path}: it has no weight_map (${HINT})`)
  for (const [tensor, file] of entries) {
    // A name that leads out of the folder would read, or be downloaded to, somebody's other files.
    if (typeof file === "string" && /^\w[\w.-]*\.safetensors$/.test(file)) continue
    const name = JSON.stringify(file).slice(0, 80)
    throw new UserError(`${path}: the file of ${tensor}, ${name}, is no plain name (${HINT})`)
  }
  return new Map(entries as [string, string][])
}

function collect(files: SafetensorsFile[]): Map<string, Placed> {
  const tensors = new Map<string, Placed>()
  for (const file of files) {
    for (const name of file.tensors.keys()) {
      if (tensors.has(plain(name))) throw file.wrong(`it has ${plain(name)} a second time`, HINT)
      tensors.set(plain(name), { file, name })
    }
  }
  return tensors
}

class HubSource implements WeightSource {
  readonly type: NumberType
  /** Of each parameter, by layer. */
  private readonly parts = new Map<string, (Placed & HubTensor)[]>()
  /** The matrix that was turned last. */
  private turned: { of?: HubTensor; data: Float32Array } = { data: new Float32Array() }

  constructor(
    readonly path: string,
    readonly config: Config,
    private readonly files: SafetensorsFile[],
    tensors: Map<string, Placed>,
  ) {
    const left = new Map(tensors)
    const types = new Set<NumberType>()
    for (const tensor of hubTensors(config)) {
      const placed = left.get(tensor.name)
      if (!placed) throw new UserError(`${path}: it lacks ${tensor.name} (${HINT})`)
      const type = checkTensor(placed, tensor.shape)
      if (tensor.shape.length === 2) types.add(type)
      const parts = this.parts.get(tensor.parameter) ?? []
      this.parts.set(tensor.parameter, parts)
      parts.push({ ...tensor, name: placed.name, file: placed.file })
      left.delete(tensor.name)
    }
    this.type = types.size === 1 ? [...types][0]! : "f32" // which holds all of them
    for (const [name, { file }] of left) {
      if (name === "lm_head.weight") this.checkTied(left.get(name)!)
      else if (!isBuffer(name)) throw file.wrong(`${name} is no tensor of a GPT-2`, HINT)
    }
  }

  typeOf(name: string): NumberType {
    const { file, name: stored } = this.parts.get(name)![0]!
    return file.typeOf(stored)!
  }

  read(name: string, into: Float32Array, first: number): void {
    const parts = this.parts.get(name)!
    const size = count(parts[0]!.shape)
    for (let done = 0; done < into.length; ) {
      const part = parts[Math.floor((first + done) / size)]
      if (!part) {
        into.fill(0, done) // padding rows
        break
      }
      const start = (first + done) % size
      const rest = into.subarray(done, done + size - start)
      if (part.isTransposed) rest.set(this.turn(part).subarray(start, start + rest.length))
      else part.file.readNumbers(part.name, rest, start)
      done += rest.length
    }
  }

  close(): void {
    for (const file of this.files) file.close()
  }

  /** A stored (in, out) matrix as (out, in). */
  private turn(part: Placed & HubTensor): Float32Array {
    if (this.turned.of === part) return this.turned.data
    const [ins = 0, outs = 0] = part.shape
    const size = ins * outs
    const data = this.turned.data.length === size ? this.turned.data : new Float32Array(size)
    this.turned = { data } // half of it is no matrix, should reading fail
    const rows = new Float32Array(Math.min(ins, TRANSPOSED_ROWS) * outs)
    for (let start = 0; start < ins; start += TRANSPOSED_ROWS) {
      const height = Math.min(TRANSPOSED_ROWS, ins - start)
      part.file.readNumbers(part.name, rows.subarray(0, height * outs), start * outs)
      for (let o = 0; o < outs; o++) {
        for (let i = 0; i < height; i++) data[o * ins + start + i] = rows[i * outs + o]!
      }
    }
    this.turned = { of: part, data }
    return data
  }

  /** Refuses a classifier that is not the embedding, as ours is. */
  private checkTied(head: Placed): void {
    const wte = this.parts.get("wte")![0]!
    const [V = 0, C = 0] = wte.shape
    checkTensor(head, wte.shape)
    const rows = Math.max(1, Math.floor(2 ** 18 / C))
    const [ours, theirs] = [new Float32Array(rows * C), new Float32Array(rows * C)]
    for (let row = 0; row < V; row += rows) {
      const length = Math.min(rows, V - row) * C
      const [a, b] = [ours.subarray(0, length), theirs.subarray(0, length)]
      wte.file.readNumbers(wte.name, a, row * C)
      head.file.readNumbers(head.name, b, row * C)
      if (Buffer.compare(bytesOf(a), bytesOf(b)) === 0) continue
      throw head.file.wrong(`${head.name} is another matrix than wte, to which it is tied`, HINT)
    }
  }
}

/** The type of a tensor's numbers. Refuses another shape. */
function checkTensor({ file, name }: Placed, wanted: number[]): NumberType {
  const { shape, dtype } = file.tensors.get(name)!
  if (shape.join() !== wanted.join()) {
    const both = `(${shape.join(", ")}), but ${CONFIG_FILE} makes it (${wanted.join(", ")})`
    throw file.wrong(`${name} is ${both}`, "give the config.json of this model")
  }
  const type = file.typeOf(name)
  if (type) return type
  throw file.wrong(`${name} is stored in ${dtype}`, "give weights in F32, BF16 or F16")
}
