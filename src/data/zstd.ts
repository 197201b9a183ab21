// Zstandard's frames (RFC 8878), walked over: Bun's decompressor is content with a file that was cut
// short, and with anything behind the last frame.

const MAGIC = 0xfd2fb528
const SKIPPABLE = 0x184d2a50 // and the 15 that follow
const DICTIONARY_BYTES = [0, 1, 2, 4]
const REPEATED = 1 // a block of one byte, many times

/** Bytes to read, or to pass over. */
type Step = { read: number } | { skip: number } | "between frames"

/** The same chunks; throws when they do not end with a whole frame. */
export async function* checkFrames(chunks: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
  const walk = steps()
  let step = walk.next().value
  let read: number[] = []
  let skipped = 0
  const advance = () => {
    step = walk.next(read).value
    read = []
    skipped = 0
  }
  const settle = () => {
    while (step !== "between frames" && "skip" in step && step.skip === skipped) advance()
  }
  for await (const chunk of chunks) {
    for (let at = 0; at < chunk.length; ) {
      if (step === "between frames") advance()
      if (step !== "between frames" && "skip" in step) {
        const passed = Math.min(step.skip - skipped, chunk.length - at)
        at += passed
        skipped += passed
      } else {
        read.push(chunk[at++]!)
        if (step !== "between frames" && read.length === step.read) advance()
      }
      settle()
    }
    yield chunk
  }
  if (step !== "between frames") throw new Error("unexpected end of file")
}

function* steps(): Generator<Step, never, number[]> {
  for (;;) {
    yield "between frames"
    const magic = number(yield { read: 4 })
    if ((magic & ~15) >>> 0 === SKIPPABLE) {
      yield { skip: number(yield { read: 4 }) }
      continue
    }
    if (magic !== MAGIC) throw new Error("no frame starts where one must")
    const [descriptor = 0] = yield { read: 1 }
    const isSingle = (descriptor & 32) !== 0
    const sizeBytes = [isSingle ? 1 : 0, 2, 4, 8][descriptor >> 6]!
    yield { skip: (isSingle ? 0 : 1) + DICTIONARY_BYTES[descriptor & 3]! + sizeBytes }
    let isLast = false
    while (!isLast) {
      const header = number(yield { read: 3 })
      isLast = (header & 1) === 1
      yield { skip: ((header >> 1) & 3) === REPEATED ? 1 : header >> 3 }
    }
    if (descriptor & 4) yield { skip: 4 } // a checksum
  }
}

function number(bytes: number[]): number {
  return bytes.reduceRight((sum, byte) => sum * 256 + byte, 0)
}
