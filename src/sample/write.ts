// How samples reach their reader: a single one as it comes, several one after the other, or in turns
// with what the reader types.

import { createInterface } from "node:readline"
import { thousands } from "../data/files.ts"
import { END_OF_TEXT, type Encode } from "../data/tokenizer.ts"
import { Stop, type StopSignal } from "../native/signals.ts"
import type { Sampler } from "./generate.ts"
import type { LogProbabilities } from "./logprobs.ts"
import { type Prompt, promptTokens } from "./prompt.ts"
import { SampleText } from "./text.ts"

const SEPARATOR = "---\n"

interface Writing {
  /** Tokens a text, or a turn. */
  count: number
  stops: string[]
  context: number
  log?: LogProbabilities | undefined
}

/** Adds a piece to text b of a batch. */
type Show = (b: number, piece: string) => void

export class Writer {
  private written = 0 // tokens
  private ms = 0
  private hasDropped = false

  constructor(private readonly options: Writing) {}

  /** What there is to know when all is written: how much it was, how fast, and what was left out. */
  report(prompt: number): string {
    const { context } = this.options
    const perSecond = this.written > 0 ? (this.written / this.ms) * 1000 : 0
    const note = `the text is longer than the context of ${thousands(context)} tokens: whenever that was full, its older half was dropped\n`
    const speed = `${thousands(this.written)} tokens, ${perSecond.toFixed(1)} tokens/s, prompt of ${thousands(prompt)} included\n`
    return (this.hasDropped ? note : "") + speed
  }

  /** Writes `samples` texts, as many at a time as the sampler's batch has. `samplerAt` makes the one
   * whose first text has that index. */
  async samples(
    samples: number,
    samplerAt: (index: number) => Sampler,
    prompt: Prompt | undefined,
    tokens: number[],
  ): Promise<StopSignal | undefined> {
    const { stdout } = process
    const isSingle = samples === 1
    let signal: StopSignal | undefined
    for (let first = 0; first < samples && !signal; ) {
      const sampler = samplerAt(first)
      sampler.read(tokens)
      const texts = await this.open(Math.min(sampler.texts.length, samples - first))
      const whole = texts.map(() => prompt?.text ?? "")
      if (isSingle) stdout.write(whole[0]!)
      const show: Show = (b, piece) => {
        if (isSingle) stdout.write(piece)
        else whole[b] += piece
      }
      signal = await this.extend(sampler, texts, show, { first, untilDocumentEnds: false })
      if (isSingle) stdout.write("\n")
      for (const [b, text] of isSingle ? [] : whole.entries()) {
        stdout.write(`${first + b > 0 ? SEPARATOR : ""}${text}\n`)
      }
      first += texts.length
    }
    return signal
  }

  /** Goes on from the prompt and each line that is read, until there are no more. The model's text is
   * what a terminal shows. */
  async turns(
    sampler: Sampler,
    prompt: Prompt | undefined,
    tokens: number[],
    encode: Encode,
    V: number,
  ): Promise<StopSignal | undefined> {
    const { stdin, stdout, stderr } = process
    const ask = () => stdin.isTTY && stderr.write("> ")
    sampler.read(tokens)
    stdout.write(prompt?.text ?? "")
    let join = ""
    ask()
    for await (const line of createInterface({ input: stdin })) {
      if (line !== "") {
        const said = { source: "stdin", text: `${join}${line}\n` }
        sampler.read(promptTokens(said, encode, V))
      }
      const texts = await this.open(1)
      const show: Show = (_, piece) => stdout.write(piece)
      const signal = await this.extend(sampler, texts, show, { first: 0, untilDocumentEnds: true })
      stdout.write("\n")
      if (signal) {
        stdin.destroy() // else the program would wait for its end
        return signal
      }
      // A line of its own, but for what the model does not know to have been left out.
      join = texts[0]!.isStopped || sampler.texts[0]!.at(-1) === END_OF_TEXT ? "" : "\n"
      ask()
    }
    if (stdin.isTTY) stderr.write("\n") // behind the prompt, where Ctrl-D shows nothing
    return undefined
  }

  private open(count: number): Promise<SampleText[]> {
    const { stops } = this.options
    return Promise.all(Array.from({ length: count }, () => SampleText.open(stops)))
  }

  /** Lengthens the texts, of which `first` is the first's index. */
  private async extend(
    sampler: Sampler,
    texts: SampleText[],
    show: Show,
    { first, untilDocumentEnds }: { first: number; untilDocumentEnds: boolean },
  ): Promise<StopSignal | undefined> {
    const { count, log } = this.options
    using stop = new Stop()
    const start = performance.now()
    for (let i = 0; i < count && !texts.every((text) => text.isStopped); i++) {
      const tokens = sampler.next()
      if (untilDocumentEnds && tokens[0] === END_OF_TEXT) break
      for (const [b, text] of texts.entries()) {
        if (text.isStopped) continue
        const position = sampler.texts[b]!.length - 1
        log?.add(first + b, position, tokens[b]!, sampler.logProbability(b))
        show(b, text.push(tokens[b]!))
        this.written++
      }
      this.hasDropped ||= sampler.hasDropped
      if (await stop.heard()) break
    }
    for (const [b, text] of texts.entries()) show(b, text.end())
    this.ms += performance.now() - start
    return await stop.heard()
  }
}
