// What llm.c's binary files have in common: a header of 256 int32 that starts with a magic and a
// version, and a body whose size the header decides. They are read piece by piece, straight into
// where the numbers belong.

import { thousands } from "../data/files.ts"
import { InputFile } from "./file.ts"

export const HEADER_BYTES = 1024

const KINDS: Record<number, string> = {
  20240326: "a GPT-2 model",
  20240327: "a debug state",
  20240328: "a tokenizer",
  20240520: "a GPT-2 token file",
  20240522: "a multiple-choice evaluation",
  20240527: "an optimizer state",
  20240801: "a Llama 3 token file",
  20240803: "a Llama 3 model",
  1179993927: "a GGUF file",
}

/** What a file is that begins with this word. */
export function kindOf(word: number): string | undefined {
  const letters = Buffer.from(Int32Array.of(word).buffer).toString("latin1")
  return KINDS[word] ?? (/^[\x20-\x7e\n\r\t]{4}$/.test(letters) ? "a text" : undefined)
}

export type Kind = {
  magic: number
  /** Version → what it stands for. */
  versions: Record<number, string>
  /** The way out, for messages. */
  hint: string
}

/** A file that is open for reading, its magic and version checked. */
export class BinaryFile extends InputFile {
  /** The 256 words of the header. */
  readonly header = new Int32Array(HEADER_BYTES / 4)

  constructor(path: string, kind: Kind) {
    super(path, kind.hint)
    try {
      this.checkKind(kind)
    } catch (error) {
      this.close()
      throw error
    }
  }

  /** Opens a file, hands it to `use` and closes it again. */
  static with<R>(path: string, kind: Kind, use: (file: BinaryFile) => R): R {
    const file = new BinaryFile(path, kind)
    try {
      return use(file)
    } finally {
      file.close()
    }
  }

  private checkKind(kind: Kind): void {
    const { bytes } = this
    if (bytes < 4)
      throw this.wrong(`${bytes} bytes are too few for ${KINDS[kind.magic]}`, kind.hint)
    this.read(new Uint8Array(this.header.buffer, 0, Math.min(bytes, HEADER_BYTES)), 0)
    const [magic = 0, version = 0] = this.header
    if (magic !== kind.magic) {
      const found = kindOf(magic) ?? `it starts with ${magic}, not ${kind.magic}`
      throw this.wrong(`not ${KINDS[kind.magic]}: ${found}`, kind.hint)
    }
    if (bytes < HEADER_BYTES) {
      const alone = thousands(HEADER_BYTES)
      throw this.wrong(`${thousands(bytes)} bytes, but its header alone takes ${alone}`, kind.hint)
    }
    if (!kind.versions[version]) {
      const known = Object.entries(kind.versions).map(([number, name]) => `${number} (${name})`)
      const text = `version ${version}, but only ${known.join(" and ")} can be read`
      throw this.wrong(text, kind.hint)
    }
  }

  /** Refuses a file that is not as long as its header says. */
  checkBytes(promised: number, what: string): void {
    if (this.bytes === promised) return
    throw this.wrong(
      `${thousands(this.bytes)} bytes, but its header promises ${what} (${thousands(promised)} bytes)`,
      this.bytes < promised ? "it was cut short: copy it again" : "it was added to: copy it again",
    )
  }
}

/** The bytes of a header with these words at its start. */
export function headerBytes(...words: number[]): Uint8Array {
  const header = new Int32Array(HEADER_BYTES / 4)
  header.set(words)
  return new Uint8Array(header.buffer)
}

/** The memory of numbers, as bytes. */
export function bytesOf(array: Float32Array | Int32Array | Uint16Array): Uint8Array {
  return new Uint8Array(array.buffer, array.byteOffset, array.byteLength)
}
