// What a checkpoint holds is what the run was at when it began, although weights and moments change
// while it is being written.

import { afterAll, describe, expect, test } from "bun:test"
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { UserError } from "../../src/errors.ts"
import { verifyDone } from "../../src/formats/done.ts"
import { loadModel, modelBytes } from "../../src/formats/model.ts"
import { type RunState, readState, stateBytes } from "../../src/formats/state.ts"
import { type Config, padVocabulary } from "../../src/model/config.ts"
import { type TrainingProgram, trainingProgram } from "../../src/model/program.ts"
import { places } from "../../src/model/weights.ts"
import { Kernels } from "../../src/native/library.ts"
import { Program } from "../../src/program/link.ts"
import { doneName, filesOf } from "../../src/train/checkpoint.ts"
import { LOGS } from "../../src/train/runfolder.ts"
import { CheckpointWriter } from "../../src/train/writer.ts"

const folder = mkdtempSync(join(tmpdir(), "writer-"))
afterAll(() => rmSync(folder, { recursive: true }))
for (const log of LOGS) writeFileSync(join(folder, log), "")

// 9 million parameters: the files have 36 and 72 MB, and 27 pieces.
const CONFIG: Config = { maxT: 64, V: 8000, Vp: padVocabulary(8000), L: 4, NH: 4, C: 384 }
const STATE: Omit<RunState, "step"> = {
  seed: 7,
  position: { epoch: 2, shard: 1, sequence: 123 },
  dataTokens: 2 ** 33 + 5,
  dataSum: 2n ** 63n + 5n,
  T: 8,
  orders: { shards: Uint32Array.of(1, 0), sequences: Uint32Array.of(2, 0, 1) },
  losses: [1.5, 2.25],
  norms: [0.1],
  slots: [0.5, 2],
}
const adamw = { beta1: 0.9, beta2: 0.95, eps: 1e-8, weightDecay: 0 }

async function linked(precision: "fp32" | "bf16") {
  const kernels = await Kernels.open("reference")
  const bf16 = { masters: true, stochastic: false, seed: 1 }
  const tensors = trainingProgram(CONFIG, { B: 1, T: 8, accumulation: 1, adamw, precision, bf16 })
  return { tensors, program: await Program.link(tensors, kernels) }
}

/** Numbers by which each array, and the time at which it was filled, can be told. */
function fill(program: Program, { parameters, masters, m, v }: TrainingProgram, round: number) {
  for (const [s, stack] of [parameters, masters ?? {}, m, v].entries()) {
    for (const [t, tensor] of Object.values(stack).entries()) {
      program.view(tensor as never as typeof m.wte & object).fill(round * 64 + s * 16 + t + 1)
    }
  }
}

describe.each(["fp32", "bf16"] as const)("a checkpoint in %s", (precision) => {
  test("holds the numbers of its beginning, whenever they change", async () => {
    const { program, tensors } = await linked(precision)
    const keeping = { keep: 0, keepEvery: 0 }
    const writer = new CheckpointWriter(program, tensors, CONFIG, 4, { path: folder }, keeping)
    await writer.start()
    for (let step = 1; step <= 6; step++) {
      fill(program, tensors, step)
      const written = writer.begin({ ...STATE, step })
      // From at once to when all is written: before, within, and after the writer's pieces.
      await Bun.sleep((step - 1) * 15)
      writer.secure()
      fill(program, tensors, 99)
      await written
      verifyDone(folder, doneName(step), filesOf(step))
      check(program, tensors, step)
    }
    writer.close()
    program.free()
  })
})

function check(program: Program, tensors: TrainingProgram, step: number) {
  const [model, state] = filesOf(step).map((name) => join(folder, name)) as [string, string]
  const { parameters, masters, m, v, precision } = tensors
  const sections = (stack: TrainingProgram["m"]) =>
    places(program, stack, CONFIG).map(({ data }) => data as Float32Array)
  loadModel(model, places(program, parameters, CONFIG))
  const read = readState(state, CONFIG, {
    m: sections(m),
    v: sections(v),
    master: masters && sections(masters),
  })
  expect(read).toEqual({ ...STATE, step })
  for (const [s, stack] of [parameters, masters ?? {}, m, v].entries()) {
    for (const [t, tensor] of Object.values(stack).entries()) {
      const view = program.view(tensor as never as typeof m.wte & object)
      const expected = step * 64 + s * 16 + t + 1
      const bad = view.findIndex((x) => x !== expected)
      if (bad >= 0) throw new Error(`${tensor.name}[${bad}] is ${view[bad]}, not ${expected}`)
    }
  }
  expect(readFileSync(model).length).toBe(modelBytes(CONFIG, precision))
  // Two orders with their counts, the generator's two numbers, five numbers of the last steps.
  const tail = 8 + 2 * 4 + 8 + 3 * 4 + 16 + 5 * 8
  expect(readFileSync(state).length).toBe(stateBytes(CONFIG, masters !== undefined, tail))
}

test("a checkpoint that cannot be written says why, and leaves nothing of it", async () => {
  const { program, tensors } = await linked("fp32")
  const nowhere = { path: join(folder, "nowhere") }
  const writer = new CheckpointWriter(program, tensors, CONFIG, 4, nowhere, {
    keep: 0,
    keepEvery: 0,
  })
  await writer.start()
  const written = writer.begin({ ...STATE, step: 1 })
  const failure = written.catch((error: Error) => error.message)
  writer.secure()
  expect(await failure).toMatch(/model_00000001.bin: cannot write: no such file/)
  await writer.idle()
  writer.close()
  program.free()
})

describe("a copy of a GPU's numbers for which this machine has no memory", () => {
  // 5·10¹¹ parameters: moments alone are 4 TB, which no machine that runs this has.
  const LARGE: Config = { ...CONFIG, L: 160, NH: 128, C: 16384 }
  const bf16 = { masters: true, stochastic: false, seed: 1 }
  test.each([
    ["fp32", { precision: "fp32" }, false, "a smaller model, or no --out"],
    [
      "bf16",
      { precision: "bf16", bf16 },
      false,
      "a smaller model, --master-weights 0, or no --out",
    ],
    [
      "bf16 alone",
      { precision: "bf16", bf16: { ...bf16, masters: false } },
      false,
      "a smaller model, or no --out",
    ],
    ["bf16, resumed", { precision: "bf16", bf16 }, true, "a machine that has more"],
  ] as const)("is refused at the start, in %s, with what helps", (_, numbers, isResumed, ways) => {
    const tensors = trainingProgram(LARGE, { B: 1, T: 8, accumulation: 1, adamw, ...numbers })
    const onGpu = { isHost: false } as Program // which is asked for nothing else
    const keeping = { keep: 0, keepEvery: 0 }
    const make = () =>
      new CheckpointWriter(onGpu, tensors, LARGE, 4, { path: folder, isResumed }, keeping)
    expect(make).toThrow(UserError)
    expect(make).toThrow(
      /^beside the GPU's, .* needs \d+\.\d\d GB of memory, and this machine has /,
    )
    expect(make).toThrow(`GB (try ${ways})`)
  })
})
