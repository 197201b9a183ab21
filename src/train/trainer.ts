// The training loop.

import type { LoaderPosition } from "../data/loader.ts"
import { END_OF_TEXT } from "../data/tokenizer.ts"
import { UserError } from "../errors.ts"
import { describeScore, scoreChoices } from "../eval/choices.ts"
import { validationLoss } from "../eval/loss.ts"
import type { RunState } from "../formats/state.ts"
import { type Config, trainingFlops } from "../model/config.ts"
import type { TrainingProgram } from "../model/program.ts"
import type { DeviceMonitor } from "../native/nvml.ts"
import type { Stop, StopSignal } from "../native/signals.ts"
import { Batch } from "../program/batch.ts"
import type { BadSearch } from "../program/check.ts"
import { NOW, SLOT } from "../program/fp8.ts"
import type { Program } from "../program/link.ts"
import { elements } from "../program/tensor.ts"
import { NO_FILTERS } from "../sample/choose.ts"
import { generate } from "../sample/generate.ts"
import { SampleText } from "../sample/text.ts"
import type { Display } from "./display.ts"
import { Outliers } from "./outliers.ts"
import type { RunFolder, StepMetrics } from "./runfolder.ts"
import { learningRate, type Schedule } from "./schedule.ts"
import type { Data, Shape } from "./settings.ts"
import type { CheckpointWriter } from "./writer.ts"

export interface TrainOptions extends Shape {
  schedule: Schedule
  /** Steps between checkpoints; 0: none but at the end. */
  checkpointEvery: number
  /** z-scores of loss and gradient norm above which an update is skipped; 0: never. */
  skipLossZ: number
  skipGradZ: number
  /** Norm at which gradients are clipped; 0: never. */
  gradClip: number
  valEvery: number
  valBatches: number
  sampleEvery: number
  sampleTokens: number
  overfitBatch: boolean
  /** Steps between entries on the accelerator's state; 0: none. */
  logDevice: number
  seed: number
}

export interface Outcome {
  /** Updates that were made, those before a resume included. */
  steps: number
  /** Of the last validation. */
  valLoss?: number
  /** The signal that ended the run early. */
  signal?: StopSignal
}

/** Where a resumed run goes on, its data at their place already; a new one begins at the start. */
export type Start = Pick<RunState, "step" | "losses" | "norms" | "slots">

/** What a run is watched and kept by. */
export interface Surroundings {
  display: Display
  folder?: RunFolder | undefined
  writer?: CheckpointWriter | undefined
  /** Measures the floating-point operations a second that the machine can do. */
  measurePeak(): number
  /** What tells the accelerator's state. */
  monitor?: Pick<DeviceMonitor, "state"> | undefined
  /** Names the first tensor of a step in which a number is not finite. */
  findBad(search: BadSearch): string | undefined
  /** Names a weight or moment of which a number is not finite. */
  findBadState(): string | undefined
}

/** A loss or norm that is not a number ends the run; its numbers are worthless from there on. */
export class Diverged extends Error {}

export class Trainer {
  private readonly batch: Batch
  private step = 0 // the next one; updates that were made
  private position: LoaderPosition // of the next step's data
  private readonly losses: Outliers
  private readonly norms: Outliers
  /** 1 until a step has been made, where products in eight bits know nothing of their tensors yet. */
  private calibrate: number

  constructor(
    private readonly program: Program,
    private readonly tensors: TrainingProgram,
    private readonly config: Config,
    private readonly data: Data,
    private readonly options: TrainOptions,
    private readonly around: Surroundings,
    start?: Start,
  ) {
    this.batch = new Batch(program, tensors)
    if (start) this.step = start.step
    this.position = data.train.position
    this.losses = new Outliers(start?.losses)
    this.norms = new Outliers(start?.norms)
    this.calibrate = start && start.slots.length > 0 ? 0 : 1
  }

  /** Updates that were made. */
  get steps(): number {
    return this.step
  }

  /** What a checkpoint holds beside weights and moments: the run as it is between two steps. A step that
   * was broken off is taken back. */
  state(): RunState {
    const { step, position } = this
    const { seed, T } = this.options
    const { train } = this.data
    train.restore(position)
    const { orders, tokenCount: dataTokens, sum: dataSum } = train
    const windows = { losses: [...this.losses.window], norms: [...this.norms.window] }
    const slots = this.calibrate ? [] : this.slots().flatMap((all) => [...all])
    return { step, seed, position, dataTokens, dataSum, T, orders, ...windows, slots }
  }

  /** What products in eight bits know of their tensors, without what a step under way has found. */
  private slots(): Float32Array[] {
    return (this.tensors.slots ?? []).map((all) => {
      if (this.calibrate) return new Float32Array(elements(all))
      const slots = this.program.read(all).slice()
      for (let at = NOW; at < slots.length; at += SLOT) slots[at] = 0
      return slots
    })
  }

  /** Trains to the end, or to the end of the step in which a signal comes. */
  async run(stop: Stop): Promise<Outcome> {
    const outcome: Outcome = { steps: this.step }
    const { schedule, totalBatch, T, valEvery, sampleEvery } = this.options
    const { steps } = schedule
    const flopsAStep = trainingFlops(this.config, T) * totalBatch
    const firstStep = this.step
    let usualMs = 0 // a step, smoothed
    let peak = 0 // measured when the first step is done, which need not wait for it

    for (; ; this.step++) {
      const { step } = this
      const isLast = step === steps
      if (valEvery > 0 && (step % valEvery === 0 || isLast)) {
        outcome.valLoss = (await this.validate(step, stop)) ?? outcome.valLoss
        await this.scoreHellaswag(step, stop)
      }
      if (sampleEvery > 0 && step > 0 && (step % sampleEvery === 0 || isLast)) {
        await this.sample(step, stop)
      }
      outcome.signal = await stop.heard()
      if (isLast || outcome.signal) break
      if (step > firstStep) await this.checkpoint(step)

      const start = performance.now()
      const lr = learningRate(schedule, step)
      const { trainLoss, gradNorm, ...skipped } = this.makeStep(step, lr)
      const ms = performance.now() - start
      const tokensPerSecond = (totalBatch / ms) * 1000
      const flops = (flopsAStep / ms) * 1000
      // No step passes the peak, unless that was measured in a bad moment; but one in eight bits may, as
      // the peak is that of bf16.
      if (peak === 0 || (flops > peak && !this.tensors.slots))
        peak = Math.max(peak, this.around.measurePeak())
      const mfu = flops / peak
      const metrics = { step, trainLoss, lr, gradNorm, ms, tokensPerSecond, mfu, ...skipped }
      usualMs = usualMs === 0 ? ms : 0.9 * usualMs + 0.1 * ms
      this.around.folder?.step(metrics)
      this.around.display.step(metrics, usualMs * (steps - step - 1))
      const { logDevice } = this.options
      const { monitor } = this.around
      if (monitor && step % logDevice === 0) this.around.folder?.device(step, monitor.state())
      this.position = this.data.train.position
      outcome.steps = step + 1
    }
    this.around.display.clear()
    return outcome
  }

  /** Begins a checkpoint, if one is due. It never ends the run: the last one is still there. */
  private async checkpoint(step: number): Promise<void> {
    const { checkpointEvery } = this.options
    const { writer } = this.around
    if (!writer || checkpointEvery === 0 || step % checkpointEvery !== 0) return
    await writer.idle()
    const { display, folder } = this.around
    const failed = (error: unknown) => {
      if (!(error instanceof UserError)) throw error
      display.warn(`no checkpoint of step ${step}, training goes on: ${error.message}`)
    }
    try {
      // Before an older one goes: the update may have spoiled what no loss has shown yet.
      const bad = this.around.findBadState()
      if (bad) throw new UserError(`a number of ${bad} is not finite`)
      folder?.flush() // a checkpoint is of no use without the lines before it
      writer.begin(this.state()).then((warning) => warning && display.warn(warning), failed)
    } catch (error) {
      failed(error)
    }
  }

  /** One optimizer step: forward and backward passes over all micro-batches, then the update. */
  private makeStep(
    step: number,
    lr: number,
  ): Pick<StepMetrics, "trainLoss" | "gradNorm" | "skipped"> {
    const { gradClip, skipLossZ, skipGradZ } = this.options
    const { program, tensors } = this
    program.write(tensors.controls, Float64Array.of(lr, step + 1, gradClip))
    const results = this.passes(step)
    const update = () => {
      this.around.writer?.secure()
      program.run("update")
    }
    // Whether it is an outlier's the host has to know first; a GPU waits for that.
    const isJudged = skipLossZ > 0 || skipGradZ > 0
    if (!isJudged) update()
    const { trainLoss, gradNorm } = results()
    // Of such numbers no update has been made, nor will be.
    if (!Number.isFinite(trainLoss)) this.diverge(step, `the loss is ${trainLoss}`)
    if (!Number.isFinite(gradNorm)) this.diverge(step, `the gradient's norm is ${gradNorm}`)

    this.nextScales()
    const lossZ = this.losses.push(trainLoss) ?? 0
    const gradZ = this.norms.push(gradNorm) ?? 0
    const skip = (reason: "loss" | "norm", option: string, z: number, limit: number) => {
      const what = `the ${reason}'s z-score is ${z.toFixed(2)}, above --${option} ${limit}`
      this.around.display.say(`step ${step}  update skipped: ${what}`)
      return { trainLoss, gradNorm, skipped: reason }
    }
    if (skipLossZ > 0 && lossZ > skipLossZ) return skip("loss", "skip-loss-z", lossZ, skipLossZ)
    if (skipGradZ > 0 && gradZ > skipGradZ) return skip("norm", "skip-grad-z", gradZ, skipGradZ)

    if (isJudged) update()
    return { trainLoss, gradNorm }
  }

  /** Ends a step whose numbers are good. */
  private nextScales(): void {
    if (this.tensors.slots) this.program.run("next_scales")
    this.calibrate = 0
  }

  /** Queues forward and backward passes over the step's micro-batches, then the gradient's norm. What
   * is returned waits for the mean loss and the norm. A micro-batch's loss is asked for when the next one
   * has been queued: a GPU need not wait for that. */
  private passes(step: number): () => { trainLoss: number; gradNorm: number } {
    const { program, tensors } = this
    const { accumulation } = this.options
    let trainLoss = 0
    let loss: (() => Float32Array) | undefined
    const add = () => {
      if (loss) trainLoss += loss()[0]! / accumulation
    }
    const calibrate = tensors.slots ? [this.calibrate] : []
    if (tensors.slots) program.run("quantize_weights", ...calibrate)
    for (let micro = 0; micro < accumulation; micro++) {
      this.nextBatch(micro)
      program.run("forward", ...calibrate)
      program.run("backward", micro === 0 ? 0 : 1, ...calibrate)
      add()
      loss = program.readLater(tensors.loss)
    }
    // The update looks at the last micro-batch's loss alone.
    if (!Number.isFinite(trainLoss)) this.diverge(step, `the loss is ${trainLoss}`)
    program.run("gradient_norm")
    const norm = program.readLater(tensors.norm)
    return () => {
      add()
      return { trainLoss: Math.fround(trainLoss), gradNorm: norm()[0]! }
    }
  }

  private nextBatch(micro: number): void {
    if (this.options.overfitBatch && micro === 0) this.data.train.reset()
    this.data.train.next(this.batch.tokens, this.batch.targets)
    this.batch.load()
  }

  /** Ends the run; makes the step's passes again, and looks where the first bad number comes up. */
  private diverge(step: number, what: string): never {
    this.data.train.restore(this.position)
    const { program, tensors, calibrate } = this
    for (const [i, slots] of this.slots().entries()) program.write(tensors.slots![i]!, slots)
    const { accumulation } = this.options
    const next = (micro: number) => this.nextBatch(micro)
    const bad = this.around.findBad({ accumulation, next, calibrate })
    throw new Diverged(`step ${step}: ${what}${bad ? `; first in ${bad}` : ""}`)
  }

  /** Mean loss over the first batches of the validation tokens; undefined when it is stopped, or
   * there are none. */
  private async validate(step: number, stop: Stop): Promise<number | undefined> {
    const { program, tensors } = this
    const { val } = this.data
    if (!val) return undefined
    const batches = Math.min(this.options.valBatches, val.batchesPerEpoch)
    const valLoss = await validationLoss(program, tensors, val, batches, stop)
    if (valLoss === undefined) return undefined
    if (!Number.isFinite(valLoss)) {
      throw new Diverged(`step ${step}: the validation loss is ${valLoss}`)
    }
    this.around.folder?.validation(step, valLoss)
    this.around.display.say(`step ${step}  validation loss ${valLoss.toFixed(4)}`)
    return valLoss
  }

  private async scoreHellaswag(step: number, stop: Stop): Promise<void> {
    const { hellaswag } = this.data
    if (!hellaswag) return
    const score = await scoreChoices(this.program, this.tensors, hellaswag, stop)
    if (!score) return
    const accuracy = score.correct / score.examples
    if (Number.isNaN(accuracy)) throw new Diverged(`step ${step}: a loss of HellaSwag is no number`)
    this.around.folder?.hellaswag(step, accuracy)
    this.around.display.say(`step ${step}  HellaSwag ${describeScore(score, hellaswag)}`)
  }

  /** Writes a sample, as it comes. */
  private async sample(step: number, stop: Stop): Promise<void> {
    const { sampleTokens, seed, T } = this.options
    const text = await SampleText.open()
    this.around.display.say("---")
    const tokens = generate(this.program, this.tensors, this.config, {
      prompt: [END_OF_TEXT < this.config.V ? END_OF_TEXT : 0],
      count: sampleTokens,
      context: T,
      ...NO_FILTERS,
      seed: seed + step,
    })
    try {
      for (const token of tokens) {
        this.around.display.write(text.push(token))
        if (await stop.heard()) break
      }
    } catch (error) {
      if (!(error instanceof UserError)) throw error
      throw new Diverged(`step ${step}: the next token's scores are not finite`)
    }
    this.around.display.say(`${text.end()}\n---`)
  }
}
