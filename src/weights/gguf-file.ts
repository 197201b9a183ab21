// The GGUF container (ggml's docs/gguf.md), versions 2 and 3, little-endian: metadata, then what
// tensors there are, then their numbers. Counts and lengths are checked against the file's size before
// anything is made of them. Arrays, such as a vocabulary, are passed over.

import { thousands } from "../data/files.ts"
import type { InputFile } from "../formats/file.ts"
import { NUMBERS } from "./numbers.ts"
import type { NumberType } from "./source.ts"

export const MAGIC = 0x46554747 // "GGUF"
export const ALIGNMENT = 32 // bytes, where the metadata names no other
export const HINT = "give a GGUF file of a GPT-2"
const CUT = "it was cut short: copy it again"
const BROKEN = "it is broken: copy it again"
const MAX_DIMS = 4
const MAX_TEXT = 2 ** 24 // bytes: names are short, and the longest texts are licences
const PIECE = 2 ** 16 // bytes of the head read at once

/** Kinds of values in the metadata. */
export const VALUE = { u32: 4, i32: 5, f32: 6, string: 8, array: 9 }
const STRING_BYTES = 8 // at least: its length
/** Bytes, and how they are read. */
const SCALARS: Record<number, [bytes: number, read: (view: DataView, at: number) => number]> = {
  0: [1, (view, at) => view.getUint8(at)],
  1: [1, (view, at) => view.getInt8(at)],
  2: [2, (view, at) => view.getUint16(at, true)],
  3: [2, (view, at) => view.getInt16(at, true)],
  [VALUE.u32]: [4, (view, at) => view.getUint32(at, true)],
  [VALUE.i32]: [4, (view, at) => view.getInt32(at, true)],
  [VALUE.f32]: [4, (view, at) => view.getFloat32(at, true)],
  7: [1, (view, at) => view.getUint8(at)], // a truth value
  10: [8, (view, at) => Number(view.getBigUint64(at, true))],
  11: [8, (view, at) => Number(view.getBigInt64(at, true))],
  12: [8, (view, at) => view.getFloat64(at, true)],
}

/** ggml's numbers for what tensors hold, and back. */
export const TENSOR_TYPES: Record<NumberType, number> = { f32: 0, f16: 1, q8_0: 8, bf16: 30 }
const READABLE = new Map(
  Object.entries(TENSOR_TYPES).map(([type, code]) => [code, type as NumberType]),
)

export type GgufTensor = {
  /** The fastest first. */
  dims: number[]
  type: NumberType
  /** Where its bytes start in the file, and how many they are. */
  at: number
  bytes: number
}

export type Gguf = {
  /** Numbers and texts by their keys. Arrays, of which none is needed, are undefined. */
  metadata: Map<string, number | string | undefined>
  tensors: Map<string, GgufTensor>
}

export function readGguf(file: InputFile): Gguf {
  const head = new Head(file)
  if (file.bytes < 24) throw file.wrong(`${file.bytes} bytes are too few for a GGUF file`, HINT)
  const magic = head.scalar(VALUE.u32)
  if (magic !== MAGIC) throw file.wrong("not a GGUF file: it does not start with GGUF", HINT)
  const version = head.scalar(VALUE.u32)
  if (version !== 2 && version !== 3) {
    const hasOrder = version & 0xffff
    const found = hasOrder ? `version ${version}` : "its numbers are big-endian"
    throw file.wrong(`${found}, but only versions 2 and 3, little-endian, can be read`, HINT)
  }
  const tensorCount = head.count("tensors", 24) // an empty name, no dims, a type, an offset
  const keyCount = head.count("metadata keys", 13) // an empty key, a kind, a byte
  const metadata = readMetadata(head, keyCount)
  const alignment = metadata.has("general.alignment")
    ? metadata.get("general.alignment")
    : ALIGNMENT
  if (typeof alignment !== "number" || !isPowerOfTwo(alignment)) {
    throw file.wrong(`its alignment, ${alignment}, is no power of two`, BROKEN)
  }
  const tensors = readTensors(head, tensorCount)
  const start = Math.ceil(head.at / alignment) * alignment
  for (const [name, tensor] of tensors) {
    if (tensor.at % alignment !== 0) {
      throw file.wrong(`${name} starts at ${tensor.at}, no multiple of ${alignment}`, BROKEN)
    }
    tensor.at += start
  }
  checkPlaces(file, tensors, alignment)
  return { metadata, tensors }
}

function isPowerOfTwo(n: number): boolean {
  return Number.isInteger(Math.log2(n)) && n >= 1 && n <= 2 ** 31
}

function readMetadata(head: Head, count: number): Gguf["metadata"] {
  const metadata: Gguf["metadata"] = new Map()
  for (let i = 0; i < count; i++) {
    const key = head.text("a key of its metadata")
    if (metadata.has(key)) throw head.file.wrong(`its metadata has ${quote(key)} twice`, BROKEN)
    metadata.set(key, head.value(key))
  }
  return metadata
}

function readTensors(head: Head, count: number): Gguf["tensors"] {
  const { file } = head
  const tensors: Gguf["tensors"] = new Map()
  for (let i = 0; i < count; i++) {
    const name = quote(head.text("a tensor's name"))
    if (tensors.has(name)) throw file.wrong(`it has ${name} twice`, BROKEN)
    const rank = head.scalar(VALUE.u32)
    if (rank < 1 || rank > MAX_DIMS) {
      throw file.wrong(`${name} has ${rank} dimensions, not 1 to ${MAX_DIMS}`, BROKEN)
    }
    const dims: number[] = []
    let elements = 1
    for (let d = 0; d < rank; d++) {
      const dim = head.scalar(10)
      elements *= dim
      dims.push(dim)
    }
    const code = head.scalar(VALUE.u32)
    const at = head.scalar(10)
    const type = READABLE.get(code)
    if (type === undefined) {
      const known = Object.keys(TENSOR_TYPES).join(", ")
      throw file.wrong(`${name} is in ggml's type ${code}; only ${known} can be read`, HINT)
    }
    const { block, bytes } = NUMBERS[type]
    // Every type takes more than a byte a number, so larger ones are wrong, and smaller ones exact.
    if (!(elements >= 1 && elements <= file.bytes)) {
      throw file.wrong(`${name} has ${dims.join("×")} numbers, but ${sizeOf(file)}`, CUT)
    }
    if (dims[0]! % block !== 0) {
      throw file.wrong(`${name} has rows of ${dims[0]}, no multiple of ${block}`, BROKEN)
    }
    tensors.set(name, { dims, type, at, bytes: (elements / block) * bytes })
  }
  return tensors
}

/** Refuses tensors that end behind the file, or that share bytes, and bytes after the last one. */
function checkPlaces(file: InputFile, tensors: Gguf["tensors"], alignment: number): void {
  const inOrder = [...tensors].sort(([, a], [, b]) => a.at - b.at)
  let last: [name: string, end: number] = ["", 0]
  for (const [name, { at, bytes }] of inOrder) {
    if (at < last[1]) throw file.wrong(`${name} overlaps ${last[0]}`, BROKEN)
    last = [name, at + bytes]
    if (at + bytes > file.bytes) {
      throw file.wrong(`${name} ends at ${thousands(at + bytes)}, but ${sizeOf(file)}`, CUT)
    }
  }
  const more = file.bytes - Math.ceil(last[1] / alignment) * alignment
  if (more > 0 && tensors.size > 0) {
    const what = `${thousands(more)} bytes follow its last tensor`
    throw file.wrong(what, "it was added to: copy it again")
  }
}

const sizeOf = ({ bytes }: InputFile) => `the file has ${thousands(bytes)} bytes`

/** What a file calls something, short enough for a message. */
const quote = (name: string) => (name.length > 64 ? `${name.slice(0, 64)}…` : name)

/** What stands before the tensors' numbers, read from its start to its end. */
class Head {
  at = 0
  private piece = new Uint8Array()
  private view = new DataView(this.piece.buffer)
  private start = 0 // in the file, of what the piece holds
  private end = 0

  constructor(readonly file: InputFile) {}

  /** The value of a key. */
  value(key: string): number | string | undefined {
    const kind = this.scalar(VALUE.u32)
    if (kind === VALUE.string) return this.text(quote(key))
    if (kind !== VALUE.array) return this.scalar(this.checked(kind, key))
    const element = this.scalar(VALUE.u32)
    const elements = `elements of ${quote(key)}`
    if (element === VALUE.string) {
      const count = this.count(elements, STRING_BYTES)
      for (let i = 0; i < count; i++) this.skip(this.count(`bytes of one of ${quote(key)}`, 1))
    } else {
      const [bytes] = SCALARS[this.checked(element, key)]!
      this.skip(bytes * this.count(elements, bytes))
    }
    return undefined
  }

  /** A length that is followed by as many elements, each of at least so many bytes. */
  count(what: string, bytes: number): number {
    const count = this.scalar(10)
    const left = this.file.bytes - this.at
    if (count * bytes <= left) return count
    const promised = `it promises ${thousands(count)} ${what}`
    throw this.file.wrong(`${promised}, with ${thousands(left)} bytes left`, CUT)
  }

  text(what: string): string {
    const length = this.count(`bytes of ${what}`, 1)
    if (length > MAX_TEXT) {
      throw this.file.wrong(`${what} has ${thousands(length)} bytes`, BROKEN)
    }
    this.have(length)
    const from = this.at - this.start
    this.at += length
    return new TextDecoder("utf-8", { ignoreBOM: true }).decode(
      this.piece.subarray(from, from + length),
    )
  }

  scalar(kind: number): number {
    const [bytes, read] = SCALARS[kind]!
    this.have(bytes)
    this.at += bytes
    return read(this.view, this.at - bytes - this.start)
  }

  private skip(bytes: number): void {
    this.at += bytes
  }

  private checked(kind: number, key: string): number {
    if (SCALARS[kind] !== undefined) return kind
    throw this.file.wrong(`${quote(key)} is of an unknown kind, ${kind}`, BROKEN)
  }

  /** Sees to it that the piece has the next bytes. */
  private have(bytes: number): void {
    if (this.at + bytes <= this.end) return
    const left = this.file.bytes - this.at
    if (bytes > left) throw this.file.wrong(`it ends in its metadata, at ${this.at}`, CUT)
    const size = Math.min(left, Math.max(bytes, PIECE))
    if (this.piece.length < size) {
      this.piece = new Uint8Array(size)
      this.view = new DataView(this.piece.buffer)
    }
    this.file.read(this.piece.subarray(0, size), this.at)
    this.start = this.at
    this.end = this.at + size
  }
}
