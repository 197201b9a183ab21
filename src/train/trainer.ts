// The training loop.

import { END_OF_TEXT } from "../data/tokenizer.ts"
import { UserError } from "../errors.ts"
import { type Config, trainingFlops } from "../model/config.ts"
import type { TrainingProgram } from "../model/program.ts"
import type { Stop, StopSignal } from "../native/signals.ts"
import type { Program } from "../program/link.ts"
import { generate } from "../sample/generate.ts"
import { SampleText } from "../sample/text.ts"
import type { Display } from "./display.ts"
import type { RunFolder } from "./runfolder.ts"
import { learningRate, type Schedule } from "./schedule.ts"
import type { Data, Shape } from "./settings.ts"

export interface TrainOptions extends Shape {
  schedule: Schedule
  /** Norm at which gradients are clipped; 0: never. */
  gradClip: number
  valEvery: number
  valBatches: number
  sampleEvery: number
  sampleTokens: number
  overfitBatch: boolean
  seed: number
}

export interface Outcome {
  /** Updates that were made. */
  steps: number
  /** Of the last validation. */
  valLoss?: number
  /** The signal that ended the run early. */
  signal?: StopSignal
}

/** A loss or norm that is not a number ends the run; its numbers are worthless from there on. */
export class Diverged extends Error {}

export class Trainer {
  private readonly views

  constructor(
    private readonly program: Program,
    private readonly tensors: TrainingProgram,
    private readonly config: Config,
    private readonly data: Data,
    private readonly options: TrainOptions,
    /** Measures the floating-point operations a second that the machine can do. */
    private readonly measurePeak: () => number,
    private readonly display: Display,
    private readonly folder?: RunFolder,
  ) {
    const { tokens, targets, loss, squares } = tensors
    this.views = {
      tokens: program.view(tokens),
      targets: program.view(targets),
      loss: program.view(loss),
      squares: program.view(squares),
    }
  }

  /** Trains to the end, or to the end of the step in which a signal comes. */
  async run(stop: Stop): Promise<Outcome> {
    const outcome: Outcome = { steps: 0 }
    const { schedule, totalBatch, T, valEvery, sampleEvery } = this.options
    const { steps } = schedule
    const flopsAStep = trainingFlops(this.config, T) * totalBatch
    let usualMs = 0 // a step, smoothed
    let peak = 0 // measured when the first step is done, which need not wait for it

    for (let step = 0; ; step++) {
      const isLast = step === steps
      if (this.data.val && valEvery > 0 && (step % valEvery === 0 || isLast)) {
        outcome.valLoss = (await this.validate(step, stop)) ?? outcome.valLoss
      }
      if (sampleEvery > 0 && step > 0 && (step % sampleEvery === 0 || isLast)) {
        await this.sample(step, stop)
      }
      outcome.signal = await stop.heard()
      if (isLast || outcome.signal) break

      const start = performance.now()
      const lr = learningRate(schedule, step)
      const { trainLoss, gradNorm } = this.step(step, lr)
      const ms = performance.now() - start
      const tokensPerSecond = (totalBatch / ms) * 1000
      const flops = (flopsAStep / ms) * 1000
      // No step passes the peak, unless that was measured in a bad moment.
      if (flops > peak) peak = Math.max(peak, this.measurePeak())
      const mfu = flops / peak
      const metrics = { step, trainLoss, lr, gradNorm, ms, tokensPerSecond, mfu }
      usualMs = usualMs === 0 ? ms : 0.9 * usualMs + 0.1 * ms
      this.folder?.step(metrics)
      this.display.step(metrics, usualMs * (steps - step - 1))
      outcome.steps = step + 1
    }
    this.display.clear()
    return outcome
  }

  /** One optimizer step: forward and backward passes over all micro-batches, then the update. */
  private step(step: number, lr: number) {
    const { accumulation, gradClip, overfitBatch } = this.options
    const { tokens, targets, loss, squares } = this.views
    let trainLoss = 0
    for (let micro = 0; micro < accumulation; micro++) {
      if (overfitBatch && micro === 0) this.data.train.reset()
      this.data.train.next(tokens, targets)
      this.program.run("forward")
      this.program.run("backward", micro === 0 ? 0 : 1)
      trainLoss += loss[0]! / accumulation
    }
    trainLoss = Math.fround(trainLoss)
    if (!Number.isFinite(trainLoss)) throw new Diverged(`step ${step}: the loss is ${trainLoss}`)

    this.program.run("gradient_norm")
    const gradNorm = Math.sqrt(squares.reduce((sum, square) => sum + square, 0))
    if (!Number.isFinite(gradNorm)) {
      throw new Diverged(`step ${step}: the gradient's norm is ${gradNorm}`)
    }
    const scale = gradClip > 0 && gradNorm > gradClip ? gradClip / gradNorm : 1
    this.program.run("update", lr, scale, step + 1)
    return { trainLoss, gradNorm }
  }

  /** Mean loss over the first batches of the validation tokens; undefined when it is stopped. */
  private async validate(step: number, stop: Stop): Promise<number | undefined> {
    const val = this.data.val!
    const batches = Math.min(this.options.valBatches, val.batchesPerEpoch)
    const { tokens, targets, loss } = this.views
    val.reset()
    let sum = 0
    for (let i = 0; i < batches; i++) {
      if (await stop.heard()) return undefined
      val.next(tokens, targets)
      this.program.run("evaluate")
      sum += loss[0]!
    }
    const valLoss = Math.fround(sum / batches)
    if (!Number.isFinite(valLoss)) {
      throw new Diverged(`step ${step}: the validation loss is ${valLoss}`)
    }
    this.folder?.validation(step, valLoss)
    this.display.say(`step ${step}  validation loss ${valLoss.toFixed(4)}`)
    return valLoss
  }

  /** Writes a sample, as it comes. */
  private async sample(step: number, stop: Stop): Promise<void> {
    const { sampleTokens, seed, T } = this.options
    const text = await SampleText.open()
    this.display.say("---")
    const tokens = generate(this.program, this.tensors, this.config, {
      prompt: [END_OF_TEXT < this.config.V ? END_OF_TEXT : 0],
      count: sampleTokens,
      context: T,
      temperature: 1,
      topK: 0,
      topP: 1,
      seed: seed + step,
    })
    try {
      for (const token of tokens) {
        this.display.write(text.push(token))
        if (await stop.heard()) break
      }
    } catch (error) {
      if (!(error instanceof UserError)) throw error
      throw new Diverged(`step ${step}: the next token's scores are not finite`)
    }
    this.display.say(`${text.end()}\n---`)
  }
}
