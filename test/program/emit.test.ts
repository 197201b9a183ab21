// The emitted program is C: with the reference kernels and a small main it is a trainer of its own.

import { describe, expect, test } from "bun:test"
import { mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { findCompiler } from "../../src/build/native.ts"
import { trainingProgram } from "../../src/model/program.ts"
import { Kernels } from "../../src/native/library.ts"
import { emitProgram } from "../../src/program/link.ts"
import { fixture, fixtureTruth, fixtureWeights } from "../fixtures/weights.ts"
import { ADAMW, Run } from "../model/run.ts"

const ROOT = join(import.meta.dir, "..", "..")
const truth = fixtureTruth()
const { B, T } = truth
const batch = { tokens: truth.x, targets: truth.y }
const options = { B, T, accumulation: 1, adamw: ADAMW }
const compiler = findCompiler()
const title = compiler ? "" : " (skipped: no C compiler)"

async function emitted(): Promise<string> {
  return (await emitProgram(trainingProgram(fixture.config, options))).emitted.source
}

/** Losses that the C program prints, built with these flags. */
async function lossesOfC(flags: string[]): Promise<string[]> {
  const dir = mkdtempSync(join(tmpdir(), "llm-emit-"))
  try {
    writeFileSync(join(dir, "step.c"), await emitted())
    const sources = [...new Bun.Glob("c/reference/*.c").scanSync({ cwd: ROOT, absolute: true })]
    const paths = [`-I${dir}`, `-I${join(ROOT, "c")}`, join(import.meta.dir, "main.c"), ...sources]
    const out = join(dir, "trainer")
    const build = Bun.spawnSync([compiler!, ...flags, ...paths, "-o", out, "-lm"])
    expect(build.stderr.toString()).toBe("")
    const parts = [batch.tokens, batch.targets, ...fixtureWeights().map(({ data }) => data)]
    const input = Buffer.concat(
      parts.map((part) => new Uint8Array(part.buffer, part.byteOffset, part.byteLength)),
    )
    const run = Bun.spawnSync([out], { stdin: input })
    expect(run.exitCode).toBe(0)
    return run.stdout.toString().trim().split("\n")
  } finally {
    rmSync(dir, { recursive: true })
  }
}

describe("the emitted file", () => {
  const WARNINGS = ["-std=c99", "-Wall", "-Wextra"]
  for (const optimisation of ["-O0", "-O2"]) {
    test.skipIf(!compiler)(`trains alone to the same losses, ${optimisation}${title}`, async () => {
      const kernels = await Kernels.open("reference")
      const run = await Run.link(kernels, fixture.config, options, fixtureWeights())
      const linked = [1, 2, 3, 4, 5].map((step) => run.step([batch], step).losses[0]!)
      const losses = await lossesOfC([...WARNINGS, optimisation, "-ffp-contract=off"])
      expect(losses.map((text) => Math.fround(Number(text)))).toEqual(linked)
    })
  }

  test.skipIf(!compiler)(`is C without a warning in bf16, too${title}`, async () => {
    const precise = { ...options, precision: "bf16", classifierRows: 384 } as const
    const { emitted } = await emitProgram(trainingProgram(fixture.config, precise))
    expect(emitted.source).toContain("matmul_forward_bf16(")
    expect(emitted.source).toMatch(/ {2}adamw_update_bf16\(\n +H\(\d+LL\), +\/\* param ← wte /)
    const check = Bun.spawnSync(
      [compiler!, ...WARNINGS, "-fsyntax-only", `-I${join(ROOT, "c")}`, "-x", "c", "-"],
      { stdin: Buffer.from(emitted.source) },
    )
    expect(check.stderr.toString()).toBe("")
  })

  test("names each argument, its tensor and its shape, and has a function for every phase", async () => {
    const source = await emitted()
    expect(source).toMatch(/\/\* out ← h0\.qkv \(2,16,144\) \*\//)
    expect(source).toMatch(/\/\* weight = qkvw\[1\] \(144,48\) \*\//)
    expect(source).toContain("32, 48, 144); /* N, C, OC */")
    const heads = source.match(/^int \w+\(.*\) \{$/gm)
    expect(heads).toEqual([
      "int forward(char *arena) {",
      "int backward(char *arena, int accumulate) {",
      "int gradient_norm(char *arena) {",
      "int update(char *arena) {",
      "int evaluate(char *arena) {",
      "int prefill(char *arena) {",
      "int decode(char *arena) {",
    ])
  })
})
