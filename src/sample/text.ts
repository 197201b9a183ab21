// Sampled tokens as text to read: documents are set apart by a blank line, and a stop string ends it.

import { Decoder, END_OF_TEXT } from "../data/tokenizer.ts"
import { StopStrings } from "./stop.ts"

const BLANK_LINE = "\n\n"

export class SampleText {
  private tail = BLANK_LINE // how what was written ends
  private readonly stops: StopStrings

  private constructor(
    private readonly stream: ReturnType<Decoder["stream"]>,
    stops: readonly string[],
  ) {
    this.stops = new StopStrings(stops)
  }

  static async open(stops: readonly string[] = []): Promise<SampleText> {
    return new SampleText((await Decoder.load()).stream(), stops)
  }

  /** Whether a stop string has come: nothing is added any more. */
  get isStopped(): boolean {
    return this.stops.isFound
  }

  /** What a token adds. An end of text adds the blank line, or what is missing of it. */
  push(token: number): string {
    if (token !== END_OF_TEXT) return this.stops.push(this.written(this.stream.push(token)))
    const rest = this.written(this.stream.end()) // half a character, which no other document completes
    const newlines = /\n*$/.exec(this.tail)![0].length
    const blank = this.written(BLANK_LINE.slice(Math.min(newlines, BLANK_LINE.length)))
    return this.stops.push(rest + blank)
  }

  /** What is left when no more tokens come. */
  end(): string {
    return this.stops.push(this.written(this.stream.end())) + this.stops.end()
  }

  private written(text: string): string {
    this.tail = (this.tail + text).slice(-BLANK_LINE.length)
    return text
  }
}
