// Finds where the elements of a JSON array end, in pieces and without parsing them.

const [QUOTE, BACKSLASH, COMMA] = [0x22, 0x5c, 0x2c]
const [OPEN, CLOSE, OPEN_OBJECT, CLOSE_OBJECT] = [0x5b, 0x5d, 0x7b, 0x7d]
// White space of JSON, and the three bytes of a byte order mark.
const AROUND = new Set([0x20, 0x09, 0x0a, 0x0d, 0xef, 0xbb, 0xbf])

/** Places in a piece. */
export type Places = {
  /** The array's own brackets. */
  start?: number
  end?: number
  /** The last comma between two elements. */
  comma?: number
  /** A byte that cannot stand there. */
  wrong?: number
}

export class ArrayScan {
  /** Commas between elements so far. */
  commas = 0
  hasEnded = false
  private depth = 0
  private inString = false
  private isEscaped = false

  push(piece: Uint8Array): Places {
    const places: Places = {}
    let { depth, inString, isEscaped } = this
    for (let i = 0; i < piece.length; i++) {
      const byte = piece[i]!
      if (inString) {
        if (isEscaped) isEscaped = false
        else if (byte === BACKSLASH) isEscaped = true
        else if (byte === QUOTE) inString = false
      } else if (depth === 0) {
        if (!this.hasEnded && byte === OPEN) {
          depth = 1
          places.start = i
        } else if (!AROUND.has(byte)) {
          return { wrong: i }
        }
      } else if (byte === QUOTE) {
        inString = true
      } else if (byte === OPEN || byte === OPEN_OBJECT) {
        depth++
      } else if (byte === CLOSE || byte === CLOSE_OBJECT) {
        if (--depth > 0) continue
        if (byte !== CLOSE) return { wrong: i }
        places.end = i
        this.hasEnded = true
      } else if (byte === COMMA && depth === 1) {
        places.comma = i
        this.commas++
      }
    }
    Object.assign(this, { depth, inString, isEscaped })
    return places
  }
}
