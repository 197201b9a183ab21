// llm itself on a GPU: the emulated one, which LLM_CUDA_LIBRARY names, or with LLM_TEST_GPU=1 the one that
// is there.

import { afterAll, beforeAll, describe, expect, test } from "bun:test"
import { createHash } from "node:crypto"
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { EMULATED_CUDA } from "../../src/build/emulated.ts"
import { modelName, stateName } from "../../src/train/checkpoint.ts"
import { PRODUCTS, type StepMetrics } from "../../src/train/runfolder.ts"
import { ROOT, run, SHAPE, writeSmallTokens } from "../cli/executable.ts"
import { emulationNeeds, isOnGpu } from "./library.ts"

const TIMEOUT_MS = 300_000
const reason = isOnGpu ? undefined : await emulationNeeds()
const title = reason ? ` (skipped: ${reason})` : ""
const variables = isOnGpu ? {} : { LLM_CUDA_LIBRARY: EMULATED_CUDA }

const dir = mkdtempSync(join(tmpdir(), "llm-gpu-"))
beforeAll(() => {
  writeSmallTokens(dir)
})
afterAll(() => rmSync(dir, { recursive: true }))

// Where there is a GPU, the executable is what is tested; it need not be built where there is none.
const LLM = isOnGpu ? [join(ROOT, "llm")] : [process.execPath, join(ROOT, "src", "main.ts")]

function start(...args: string[]) {
  const env = { ...process.env, ...variables, BUN_BE_BUN: undefined }
  return run([...LLM, ...args.flatMap((arg) => arg.split(" "))], { cwd: dir, env })
}

async function llm(...args: string[]) {
  const ran = await start(...args)
  expect({ code: ran.code, stderr: ran.code === 0 ? "" : ran.stderr }).toEqual({
    code: 0,
    stderr: "",
  })
  return ran
}

const TRAIN = ["train small_train.bin", ...SHAPE, "--total-batch 32 --val-every 4 --sample-every 4"]
const QUIET = ["train small_train.bin", ...SHAPE, "--total-batch 32 --val-every 0 --sample-every 0"]
const GPU = "--device cuda --tf32 0"
const [HEADER, COUNT, CHOICE, US, SUM] = [80, 12, 112, 40, 32] // bytes, of a file of plans
const MARK = Buffer.from(Float32Array.of(12345.5).buffer)
const checkpoint = (out: string) =>
  [modelName(6), stateName(6)].map((name) => readFileSync(join(dir, out, name)))
const metrics = (out: string) =>
  Bun.JSONL.parse(readFileSync(join(dir, out, "metrics.jsonl"), "utf8")) as StepMetrics[]
const losses = (out: string) => metrics(out).flatMap(({ trainLoss }) => trainLoss ?? [])

describe.skipIf(reason !== undefined)(`a run on a GPU${title}`, () => {
  for (const precision of ["fp32", "bf16", "fp8"]) {
    test(
      `in ${precision} has the bits of one that was broken off and resumed, and the CPU's losses`,
      async () => {
        const train = [...TRAIN, `--precision ${precision}`]
        const more = `--steps 6 --checkpoint-every 3 --out ${precision}-whole`
        const { stdout } = await llm(...train, GPU, more)
        expect(stdout).toMatch(new RegExp(`^kernels {5}cuda, .+, ${precision}$`, "m"))
        await llm(...train, GPU, `--steps 3 --out ${precision}-parts`)
        const { stderr } = await llm(`train --resume --steps 6 --out ${precision}-parts`)
        expect(stderr).toBe("")
        expect(checkpoint(`${precision}-parts`)).toEqual(checkpoint(`${precision}-whole`))

        await llm(...train, `--device reference --steps 6 --out ${precision}-cpu`)
        // A rounding is 2⁻²⁴ or 2⁻⁸ of a number; what a few thousand of them leave of a mean of 16
        // losses stays below some 20, and six steps carry little of it on. In eight bits numbers are
        // the same but where a last bit before makes a neighbour of one, 2⁻⁴ away.
        const most = { fp32: 2e-6, bf16: 5e-3, fp8: 1e-2 }[precision]!
        const [got, expected] = [losses(`${precision}-whole`), losses(`${precision}-cpu`)]
        expect(got).toHaveLength(6)
        const errors = got.map((loss, i) => Math.abs(loss / expected[i]! - 1))
        expect(Math.max(...errors)).toBeLessThan(most)
      },
      TIMEOUT_MS,
    )
  }

  test("in fp8 of sizes that tensor cores do not take is refused", async () => {
    const fp8 = "train small_train.bin --layers 1 --heads 1 --batch 2 --precision fp8 --vocab 97"
    const refused = async (sizes: string) => (await start(fp8, GPU, sizes)).stderr
    expect(await refused("--channels 16 --context 7")).toMatch(
      /^llm: --precision fp8: --batch 2 × --context 7 = 14 tokens are no multiple of 16, .* \(try --context 16\)\n$/,
    )
    expect(await refused("--channels 24 --context 8")).toMatch(
      /^llm: --precision fp8: the model's 24 channels are no multiple of 16, .* \(try --precision bf16\)\n$/,
    )
  })

  test.skipIf(isOnGpu)("in fp8 of which cuBLASLt refuses a product ends in words", async () => {
    const sizes = "--layers 1 --heads 11 --channels 176 --batch 2 --context 8" // refused under emulation
    expect(
      await start("train small_train.bin --vocab 97 --precision fp8", sizes, GPU),
    ).toMatchObject({
      code: 2,
      stderr:
        "llm: the GPU (emulated GPU) failed: cuBLASLt refuses a product in eight bits, forward 16×528×176, with status 13 (try --precision bf16)\n",
    })
  })

  test(
    "in fp32 has the same bits whatever it makes again",
    async () => {
      const train = [...QUIET, GPU, "--precision fp32 --steps 6"]
      for (const mode of ["1", "2", "block"]) {
        await llm(...train, `--recompute ${mode} --out again-${mode}`)
        expect(checkpoint(`again-${mode}`)).toEqual(checkpoint("fp32-whole"))
      }
    },
    TIMEOUT_MS,
  )

  for (const precision of ["fp32", "bf16"]) {
    test(
      `in ${precision} whose numbers go bad ends with code 3 and the first tensor's name`,
      async () => {
        const more = `--precision ${precision} --steps 3 --lr 1e30 --grad-clip 0 --out bad-${precision}`
        const { code, stderr } = await start(...TRAIN, GPU, more)
        expect({ code, stderr }).toEqual({
          code: 3,
          stderr: expect.stringMatching(
            /^llm: step 1: the loss is NaN; first in h0\.qkv \(2,8,48\), made by matmul_forward in the forward pass of micro-batch 0 \(.*\)\n$/,
          ),
        })
      },
      TIMEOUT_MS,
    )
  }

  test(
    "skips the updates that the CPU skips",
    async () => {
      const more = "--precision fp32 --steps 150 --skip-loss-z 1 --lr 1e-5"
      const skipped = async (device: string, out: string) => {
        await llm(...QUIET, more, device, `--out ${out}`)
        return metrics(out).flatMap(({ step, skipped }) => (skipped ? [step] : []))
      }
      const expected = await skipped("--device reference", "skips-cpu")
      expect(expected).not.toEqual([])
      expect(await skipped(GPU, "skips-gpu")).toEqual(expected)
    },
    TIMEOUT_MS,
  )

  test(
    "leaves a model that is sampled and measured on a GPU as on the CPU",
    async () => {
      const sample = "sample fp32-whole --precision fp32 --temperature 0 --tokens 12 --samples 2"
      const measure = "eval fp32-whole --precision fp32 --val small_val.bin --val-batches 4"
      for (const command of [sample, `${measure} --context 8`]) {
        const [got, expected] = [
          await llm(command, "--device cuda"),
          await llm(command, "--device reference"),
        ]
        expect(got.stdout).toBe(expected.stdout)
      }
    },
    TIMEOUT_MS,
  )

  test(
    "in fp32 keeps its products in TF32, or in f32 where it was begun on a CPU, when it is resumed",
    async () => {
      const begun = ["--precision fp32 --steps 1"]
      const rounded = /^kernels .*, fp32, products in TF32$/m
      await llm(...QUIET, ...begun, "--device reference --out from-cpu")
      const later = await llm("train --resume --device cuda --steps 2 --out from-cpu")
      expect(later.stdout).toMatch(/^kernels {5}cuda, .+, fp32$/m)
      expect((await llm(...QUIET, ...begun, "--device cuda --out tf32")).stdout).toMatch(rounded)
      expect((await llm("train --resume --steps 2 --out tf32")).stdout).toMatch(rounded)
      const elsewhere = "train --resume --device reference --steps 3 --out tf32"
      expect(await start(elsewhere)).toMatchObject({
        code: 2,
        stderr: "llm: --tf32 1: only a GPU has TF32 (try --tf32 0)\n",
      })
      expect((await llm(elsewhere, "--tf32 0")).stdout).toMatch(/^changed {5}--tf32 1 → 0$/m)
    },
    TIMEOUT_MS,
  )

  test(
    "makes products as it did before it was resumed, whatever the cache says; or says that it does not",
    async () => {
      await llm(...QUIET, GPU, "--precision fp32 --steps 1 --out plans")
      const file = join(dir, "plans", PRODUCTS)
      const all = readFileSync(file).subarray(0, -SUM)
      // One alone, the last, with a time that it cannot have taken (cuda/plans.cu).
      const one = Buffer.concat([all.subarray(0, HEADER), all.subarray(-CHOICE)])
      one.writeInt32LE(1, COUNT)
      MARK.copy(one, HEADER + US)
      const kept = Buffer.concat([one, createHash("sha256").update(one).digest()])
      writeFileSync(file, kept)
      const go = (steps: number, device = GPU) =>
        llm(`train --resume --steps ${steps} --out plans ${device}`)
      expect((await go(2)).stderr).toBe("")
      const grown = readFileSync(file) // by the other products, which the cache may have
      expect(grown.length).toBeGreaterThanOrEqual(all.length)
      expect(grown.includes(MARK)).toBe(true)

      writeFileSync(file, kept.subarray(0, -1))
      expect((await go(3)).stderr).toMatch(
        /^warning: plans\/products.bin is damaged, or of another GPU, cuBLASLt or llm/,
      )
      rmSync(file)
      expect((await go(4)).stderr).toMatch(/^warning: plans\/products.bin is missing/)
      expect((await go(5)).stderr).toBe("")
      expect((await go(6, "--device reference --tf32 auto")).stderr).toMatch(
        /^warning: plans\/products.bin is of a GPU/,
      )
    },
    TIMEOUT_MS,
  )
})
