// safetensors: the header's length in 8 bytes, a JSON header with every tensor's type, shape and place,
// and the numbers, without a gap. https://github.com/huggingface/safetensors

import { widenAll } from "../data/bf16.ts"
import { thousands } from "../data/files.ts"
import { InputFile } from "../formats/file.ts"
import { checkFinite } from "../formats/finite.ts"
import { bytesOf } from "../formats/header.ts"
import type { NumberType } from "./source.ts"

/** Every type of the format whose numbers take whole bytes. */
const BYTES: Record<string, number> = {
  ...{ BOOL: 1, U8: 1, I8: 1, F8_E4M3: 1, F8_E5M2: 1, F8_E8M0: 1, I16: 2, U16: 2, F16: 2, BF16: 2 },
  ...{ I32: 4, U32: 4, F32: 4, I64: 8, U64: 8, F64: 8, C64: 8 },
}
const READABLE = { F32: "f32", BF16: "bf16", F16: "f16" } as const
const LENGTH_BYTES = 8
const MAX_HEADER = 1e8 // bytes, by the format
const PIECE = 2 ** 18 // numbers that are read at once
const HINT = "give a file that was saved as safetensors"

export type SafetensorsEntry = {
  dtype: string
  shape: number[]
  /** In the file. */
  start: number
}

export class SafetensorsFile extends InputFile {
  readonly tensors = new Map<string, SafetensorsEntry>()

  constructor(path: string) {
    super(path, HINT)
    try {
      this.readHeader()
    } catch (error) {
      this.close()
      throw error
    }
  }

  /** What a tensor's numbers are stored in; undefined for those that no weight is. */
  typeOf(name: string): NumberType | undefined {
    return READABLE[this.tensors.get(name)!.dtype as keyof typeof READABLE]
  }

  /** Fills `into` with a tensor's numbers from `first` on. Refuses those that are not finite. */
  readNumbers(name: string, into: Float32Array, first: number): void {
    const { dtype, start } = this.tensors.get(name)!
    const halves = new Uint16Array(dtype === "F32" ? 0 : Math.min(PIECE, into.length))
    for (let done = 0; done < into.length; done += PIECE) {
      const part = into.subarray(done, done + PIECE)
      const read = dtype === "F32" ? part : halves.subarray(0, part.length)
      this.read(bytesOf(read), start + (first + done) * BYTES[dtype]!)
      if (dtype === "BF16") widenAll(part, read as Uint16Array)
      if (dtype === "F16") part.set(new Float16Array(halves.buffer, 0, part.length))
      checkFinite(this, name, part, first + done, "give weights that are numbers")
    }
  }

  private readHeader(): void {
    if (this.bytes < LENGTH_BYTES)
      throw this.wrong(`${this.bytes} bytes are too few for safetensors`, HINT)
    const first = new Uint8Array(LENGTH_BYTES)
    this.read(first, 0)
    if (Buffer.from(first).toString("latin1") === "version ") {
      throw this.wrong("it is what git-lfs puts in place of a large file", "run git lfs pull there")
    }
    const length = Number(new DataView(first.buffer).getBigUint64(0, true))
    const room = Math.min(this.bytes - LENGTH_BYTES, MAX_HEADER)
    if (length > room) {
      const has = `${thousands(this.bytes)} bytes`
      throw this.wrong(`its header of ${thousands(length)} bytes is too long for ${has}`, HINT)
    }
    const text = new Uint8Array(length)
    this.read(text, LENGTH_BYTES)
    const header = this.parse(text)
    for (const [name, entry] of Object.entries(header)) {
      if (name !== "__metadata__") this.tensors.set(name, this.entry(name, entry))
    }
    this.checkPlaces(LENGTH_BYTES + length)
  }

  private parse(text: Uint8Array): Record<string, unknown> {
    let header: unknown
    try {
      header = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(text))
    } catch {
      throw this.wrong("its header is not JSON", HINT)
    }
    if (isRecord(header)) return header
    throw this.wrong("its header is no JSON object", HINT)
  }

  private entry(name: string, value: unknown): SafetensorsEntry & { end: number } {
    const { dtype, shape, data_offsets: places } = isRecord(value) ? value : {}
    if (typeof dtype !== "string" || !isSizes(shape) || !isSizes(places) || places.length !== 2)
      throw this.wrong(`${name} has no dtype, shape and data_offsets`, HINT)
    const size = Object.hasOwn(BYTES, dtype) ? BYTES[dtype]! : undefined
    if (size === undefined) throw this.wrong(`${name}: an unknown dtype, ${dtype}`, HINT)
    const [start = 0, end = 0] = places
    const promised = shape.reduce((a, b) => a * b, size)
    if (end - start !== promised) {
      const takes = `${dtype} (${shape.join(", ")})`
      throw this.wrong(`${name}: ${takes} does not take the bytes ${start} to ${end}`, HINT)
    }
    return { dtype, shape, start, end }
  }

  /** Makes places in the body places in the file. Refuses tensors that overlap, gaps between them, and
   * a body that is not as long as they are. */
  private checkPlaces(body: number): void {
    let at = 0
    const entries = [...this.tensors] as [string, SafetensorsEntry & { end: number }][]
    entries.sort(([, a], [, b]) => a.start - b.start || a.end - b.end)
    for (const [name, entry] of entries) {
      if (entry.start !== at) {
        const what = entry.start < at ? "overlaps the tensor before it" : "leaves a gap before it"
        throw this.wrong(`${name} ${what}, at byte ${entry.start} of the numbers`, HINT)
      }
      at = entry.end
      entry.start += body
    }
    const promised = body + at
    if (this.bytes === promised) return
    throw this.wrong(
      `${thousands(this.bytes)} bytes, but its header promises ${thousands(promised)}`,
      this.bytes < promised ? "it was cut short: copy it again" : "it was added to: copy it again",
    )
  }
}

export function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value)
}

function isSizes(value: unknown): value is number[] {
  return Array.isArray(value) && value.every((size) => Number.isSafeInteger(size) && size >= 0)
}
