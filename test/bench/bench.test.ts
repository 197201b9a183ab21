// The benchmarks measure what is trained: the same calls, and operations that add up to the model's.

import { describe, expect, test } from "bun:test"
import { CASES } from "../../bench/cases.ts"
import { benchKernels } from "../../bench/kernels.ts"
import { callByCall, type Timed } from "../../src/bench/calls.ts"
import { benchStep } from "../../src/bench/step.ts"
import { KERNELS, kernelWork } from "../../src/bench/work.ts"
import { initialize } from "../../src/model/initialize.ts"
import { trainingProgram } from "../../src/model/program.ts"
import { isBf16, isFp8, type Signature } from "../../src/native/contract.ts"
import { bestCpuLibrary, contract, Kernels } from "../../src/native/library.ts"
import { Program } from "../../src/program/link.ts"

const TIMEOUT_MS = 60_000
const config = { maxT: 16, V: 97, Vp: 128, L: 2, NH: 4, C: 48 }
const [B, T] = [2, 16]
const adamw = { beta1: 0.9, beta2: 0.95, eps: 1e-8, weightDecay: 0 }

const kernels = await Kernels.open((await bestCpuLibrary()) ?? "reference")

describe("the kernels' table", () => {
  test("has every kernel of the contract", async () => {
    // Of those in eight bits no CPU has any: `bench budget` measures them.
    const isOther = (signature: Signature) => isBf16(signature) || isFp8(signature)
    const all = [...(await contract()).values()].filter((signature) => !isOther(signature))
    const names = all
      .map(({ name }) => name)
      .filter((name) => !name.startsWith("llm_"))
      .sort()
    expect(
      Object.keys(KERNELS)
        .filter((name) => names.includes(name))
        .sort(),
    ).toEqual(names)
    for (const name of (await contract()).keys()) if (!name.startsWith("llm_")) kernelWork(name)
    const benched = new Set(CASES.map(({ kernel }) => kernel))
    expect([...benched].sort()).toEqual([...names, "bf16_round", "bf16_widen"].sort())
  })

  test("gives kernels all numbers that they ask for", async () => {
    const signatures = await contract()
    for (const { kernel, sizes, options } of CASES) {
      const given = Object.keys({ ...sizes, ...options })
      const numbers = signatures.get(kernel)!.parameters.filter(({ type }) => type !== "pointer")
      const missing = numbers.map(({ name }) => name).filter((name) => !given.includes(name))
      expect({ kernel, missing }).toEqual({ kernel, missing: [] })
    }
  })

  test(
    "gives a rate and a share for the kernels that were asked for",
    async () => {
      const text = await benchKernels(kernels, { filter: "layernorm", quick: true })
      const rows = text.split("\n").filter((line) => line.startsWith("| layernorm"))
      expect(rows.length).toBe(2)
      for (const row of rows) expect(row).toMatch(/N 256, C 768 .* GB\/s .* % .* GB\/s .* ×/)
    },
    TIMEOUT_MS,
  )

  test("refuses a name that no kernel has, and lists those there are", async () => {
    const run = benchKernels(kernels, { filter: "softmax", quick: true })
    await expect(run).rejects.toThrow(
      /no kernel's name contains softmax \(there are matmul_forward, /,
    )
  })
})

describe("the step", () => {
  test("call by call gives the same bits as the emitted program, and its operations", async () => {
    const source = trainingProgram(config, { B, T, accumulation: 1, adamw })
    const timed: Timed[] = ["forward", "backward", "gradient_norm"].map((name) => {
      const phase = source.phases.find((phase) => phase.name === name)!
      const runtime: Timed["runtime"] = name === "backward" ? { accumulate: 0 } : {}
      return { phase, runtime }
    })
    const program = await Program.link(source, kernels)
    initialize(program, source, config, kernels, 42)
    for (const tensor of [source.tokens, source.targets]) {
      const view = program.view(tensor)
      for (let i = 0; i < view.length; i++) view[i] = (i * 31 + 7) % config.V
    }
    program.run("forward")
    program.run("backward", 0)
    program.run("gradient_norm")
    const [loss, squares] = [program.view(source.loss), program.view(source.squares)]
    const expected = [...loss, ...squares]
    loss.fill(NaN)
    squares.fill(NaN)

    const calls = await callByCall(program, timed, kernels, "fp32", 2)
    expect([...loss, ...squares]).toEqual(expected)

    const flops = (name: string) =>
      calls.filter((call) => call.class === name).reduce((sum, call) => sum + call.flops, 0)
    const { L, C, Vp } = config
    expect(flops("products")).toBe(6 * B * T * (12 * L * C * C + Vp * C))
    expect(flops("attention")).toBe(6 * B * L * C * T * (T + 1))
    program.free()
  })

  test(
    "reports time, memory and what is lost",
    async () => {
      const text = await benchStep(kernels, { config, B, T, steps: 3, passes: 2 })
      expect(text).toMatch(/^step +[\d.]+ \S+ \(median of 3, /m)
      expect(text).toMatch(/^MFU +[\d.]+ %/m)
      expect(text).toMatch(/^memory +[\d.]+ GB resident, [\d.]+ GB at most/m)
      const first = [...text.matchAll(/^\| (\w+) /gm)].map(([, name]) => name)
      const phases = ["phase", "forward", "backward", "gradient_norm", "update"]
      const kinds = ["calls", "products", "attention", "norms", "classifier", "optimizer", "rest"]
      expect(first).toEqual([...phases, ...kinds, "all"])
    },
    TIMEOUT_MS,
  )
})

test("a bad option is one line and exit code 2", () => {
  const { exitCode, stderr } = Bun.spawnSync(
    [process.execPath, "bench/main.ts", "step", "--batch", "0"],
    { cwd: `${import.meta.dir}/../..` },
  )
  expect(stderr.toString()).toBe("bench: --batch 0 is no whole number from 1 to 65536\n")
  expect(exitCode).toBe(2)
})
