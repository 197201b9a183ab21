// Sampled tokens as text to read: documents are set apart by a blank line.

import { Decoder, END_OF_TEXT } from "../data/tokenizer.ts"

const BLANK_LINE = "\n\n"

export class SampleText {
  private tail = BLANK_LINE // how what was written ends

  private constructor(private readonly stream: ReturnType<Decoder["stream"]>) {}

  static async open(): Promise<SampleText> {
    return new SampleText((await Decoder.load()).stream())
  }

  /** What a token adds. An end of text adds the blank line, or what is missing of it. */
  push(token: number): string {
    if (token !== END_OF_TEXT) return this.written(this.stream.push(token))
    const rest = this.end() // half a character, which no other document completes
    const newlines = /\n*$/.exec(this.tail)![0].length
    return rest + this.written(BLANK_LINE.slice(Math.min(newlines, BLANK_LINE.length)))
  }

  /** What is left when no more tokens come. */
  end(): string {
    return this.written(this.stream.end())
  }

  private written(text: string): string {
    this.tail = (this.tail + text).slice(-BLANK_LINE.length)
    return text
  }
}
