// What the host tells a GPU of a training step, and when it waits: on the emulated GPU, or with
// LLM_TEST_GPU=1 on the one that is there.

import { describe, expect, test } from "bun:test"
import { EMULATED_CUDA } from "../../src/build/emulated.ts"
import { Loader } from "../../src/data/loader.ts"
import { initialize } from "../../src/model/initialize.ts"
import { trainingProgram } from "../../src/model/program.ts"
import { openDevice } from "../../src/native/device.ts"
import type { Gpu } from "../../src/native/gpu.ts"
import { Kernels } from "../../src/native/library.ts"
import { Stop } from "../../src/native/signals.ts"
import { Program } from "../../src/program/link.ts"
import { Display } from "../../src/train/display.ts"
import { Trainer, type TrainOptions } from "../../src/train/trainer.ts"
import { ADAMW } from "../model/run.ts"
import { emulationNeeds, isOnGpu } from "./library.ts"

const reason = isOnGpu ? undefined : await emulationNeeds()
const title = reason ? ` (skipped: ${reason})` : ""
const config = { maxT: 8, V: 97, Vp: 128, L: 1, NH: 2, C: 16 }
const [B, T] = [2, 8]
const STEPS = 4
const tokens = Uint16Array.from({ length: 400 }, (_, i) => (i * i) % 97)

const open = async () =>
  isOnGpu
    ? openDevice("cuda", 0)
    : Kernels.openGpu(EMULATED_CUDA, "", await Kernels.open("reference"))

/** Writes down what a program is asked for, and what the GPU is told and waited for. */
function watch(program: Program, gpu: Gpu, log: string[]): Disposable {
  const { run, read, readLater } = program
  const { replay, wait } = gpu
  program.run = (phase, ...args) => {
    log.push(phase)
    run.call(program, phase, ...args)
  }
  program.read = ((...args: Parameters<typeof read>) => {
    log.push("read")
    return read.apply(program, args)
  }) as typeof read
  program.readLater = ((tensor: Parameters<typeof readLater>[0]) => {
    const result = readLater.call(program, tensor)
    return () => {
      log.push(`wait for ${tensor.name}`)
      return result()
    }
  }) as typeof readLater
  gpu.replay = (graph) => {
    log.push(`${log.pop()}, replayed`)
    replay.call(gpu, graph)
  }
  gpu.wait = () => {
    log.push("wait")
    wait.call(gpu)
  }
  return { [Symbol.dispose]: () => void Object.assign(gpu, { replay, wait }) }
}

/** What the last of a few steps is made of. */
async function lastStep(given: Partial<TrainOptions> = {}): Promise<string[]> {
  const kernels = await open()
  const { accumulation = 1 } = given
  const source = { B, T, accumulation, adamw: ADAMW, platform: kernels.platform }
  const tensors = trainingProgram(config, source)
  const program = await Program.link(tensors, kernels)
  initialize(program, tensors, config, kernels, 1)
  const log: string[] = []
  using _ = watch(program, kernels.gpu!, log)
  class Quiet extends Display {
    override step({ step }: { step: number }): void {
      if (step < STEPS - 1) log.length = 0
    }
  }
  const options: TrainOptions = {
    ...{ B, T, accumulation, totalBatch: B * T * accumulation, seed: 1, overfitBatch: false },
    schedule: { name: "cosine", lr: 1e-3, warmup: 0, steps: STEPS, finalFraction: 1 },
    ...{ gradClip: 1, skipLossZ: 0, skipGradZ: 0, checkpointEvery: 0, logDevice: 0 },
    ...{ valEvery: 0, valBatches: 0, sampleEvery: 0, sampleTokens: 0 },
    ...given,
  }
  const shape = { B, T, vocabulary: config.V, seed: 1 }
  const data = { name: "tokens", train: Loader.over("tokens", tokens, shape), val: undefined }
  const trainer = new Trainer(program, tensors, config, data, options, {
    display: new Quiet(STEPS),
    ...{ measurePeak: () => 1e9, findBadState: () => undefined, findBad: () => undefined },
  })
  using stop = new Stop()
  await trainer.run(stop)
  program.free()
  return log
}

const PASSES = ["forward, replayed", "backward, replayed"]
const UPDATE = "update, replayed"
const RESULTS = ["wait for loss", "wait for norm"]

describe.skipIf(reason !== undefined)(`a step on a GPU${title}`, () => {
  test("is queued as a few graphs, the update included, before its loss is waited for", async () => {
    expect(await lastStep()).toEqual([...PASSES, "gradient_norm, replayed", UPDATE, ...RESULTS])
  })

  test("of several micro-batches waits for the loss of one when the next is queued", async () => {
    const queued = [...PASSES, ...PASSES, "wait for loss", "gradient_norm, replayed", UPDATE]
    expect(await lastStep({ accumulation: 2 })).toEqual([...queued, ...RESULTS])
  })

  test("whose update may be skipped waits for what decides it", async () => {
    for (const given of [{ skipLossZ: 100 }, { skipGradZ: 100 }]) {
      const queued = [...PASSES, "gradient_norm, replayed"]
      expect(await lastStep(given)).toEqual([...queued, ...RESULTS, UPDATE])
    }
  })
})
