// llm itself on a GPU: the emulated one, which LLM_CUDA_LIBRARY names, or with LLM_TEST_GPU=1 the one that
// is there.

import { afterAll, beforeAll, describe, expect, test } from "bun:test"
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { EMULATED_CUDA } from "../../src/build/emulated.ts"
import { modelName, stateName } from "../../src/train/checkpoint.ts"
import { PRODUCTS } from "../../src/train/runfolder.ts"
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

async function llm(...args: string[]) {
  const env = { ...process.env, ...variables, BUN_BE_BUN: undefined }
  const ran = await run([...LLM, ...args.flatMap((arg) => arg.split(" "))], { cwd: dir, env })
  expect({ code: ran.code, stderr: ran.code === 0 ? "" : ran.stderr }).toEqual({
    code: 0,
    stderr: "",
  })
  return ran
}

const TRAIN = ["train small_train.bin", ...SHAPE, "--total-batch 32 --val-every 4 --sample-every 4"]
const GPU = "--device cuda --tf32 0"
const MARK = Buffer.from(Float32Array.of(12345.5).buffer)
const checkpoint = (out: string) =>
  [modelName(6), stateName(6)].map((name) => readFileSync(join(dir, out, name)))
const losses = (out: string): number[] =>
  readFileSync(join(dir, out, "metrics.jsonl"), "utf8")
    .trim()
    .split("\n")
    .flatMap((line) => JSON.parse(line).trainLoss ?? [])

describe.skipIf(reason !== undefined)(`a run on a GPU${title}`, () => {
  for (const precision of ["fp32", "bf16"]) {
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
        // losses stays below some 20, and six steps carry little of it on.
        const most = precision === "fp32" ? 2e-6 : 5e-3
        const [got, expected] = [losses(`${precision}-whole`), losses(`${precision}-cpu`)]
        expect(got).toHaveLength(6)
        const errors = got.map((loss, i) => Math.abs(loss / expected[i]! - 1))
        expect(Math.max(...errors)).toBeLessThan(most)
      },
      TIMEOUT_MS,
    )
  }

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
    "makes products as it did before it was resumed, whatever the cache says; or says that it does not",
    async () => {
      await llm(...TRAIN, GPU, "--precision fp32 --steps 1 --out plans")
      const file = join(dir, "plans", PRODUCTS)
      const kept = readFileSync(file)
      // The time of the last one, which stands before the 64 bytes of its algorithm and 4 of nothing.
      MARK.copy(kept, kept.length - 72)
      writeFileSync(file, kept)
      const go = (steps: number) => llm(`train --resume --batch 4 --steps ${steps} --out plans`)
      expect((await go(2)).stderr).toBe("")
      const grown = readFileSync(file) // by the products of a larger batch
      expect(grown.length).toBeGreaterThan(kept.length)
      expect(grown.includes(MARK)).toBe(true)

      writeFileSync(file, kept.subarray(0, -1))
      expect((await go(3)).stderr).toMatch(
        /^warning: plans\/products.bin is of another GPU or cuBLASLt/,
      )
      rmSync(file)
      expect((await go(4)).stderr).toMatch(/^warning: plans\/products.bin is missing/)
      expect((await go(5)).stderr).toBe("")
    },
    TIMEOUT_MS,
  )
})
