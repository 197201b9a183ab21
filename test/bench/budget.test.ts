// The budget counts what the step's calls must do, by the limits that it is given.

import { expect, test } from "bun:test"
import { benchBudget } from "../../bench/budget.ts"
import { preset } from "../../src/model/config.ts"
import { openGpu } from "../cuda/kernels.ts"

const config = preset("gpt2:d12")!
const budget = (limits: { flops: number; bandwidth: number }) =>
  benchBudget({ config, B: 32, T: 1024, precision: "bf16" }, limits)
const row = (text: string, kernel: string, sizes: string) =>
  text.split("\n").find((line) => line.includes(`| ${kernel} `) && line.includes(sizes))

test("a product takes its operations at the peak, where memory is fast enough", async () => {
  // 2·32768·768·50304 operations, at 1 T a second; the head is called once
  const text = await budget({ flops: 1e12, bandwidth: 1e15 })
  expect(row(text, "matmul_forward", "OC 50304")).toMatch(/ 1 \| +2532 \|.* arithmetic \| +2\.53 s/)
})

test("where memory is slow, it takes its bytes", async () => {
  // bf16: inputs 32768·768, weights 50304·768, outputs 32768·50304: 3.42 GB at 1 GB a second
  const text = await budget({ flops: 1e18, bandwidth: 1e9 })
  expect(row(text, "matmul_forward", "OC 50304")).toMatch(/ 3\.42 \| memory +\| +3\.42 s/)
})

test("no step is faster than the sum of its calls, which the MFU follows from", async () => {
  const text = await budget({ flops: 790e12, bandwidth: 4.3e12 })
  const [, ms, tokens, mfu] = /less than ([\d.]+) ms: (\d+) tokens\/s, an MFU of ([\d.]+)/.exec(
    text,
  )!
  expect(Number(tokens)).toBeCloseTo((32 * 1024) / (Number(ms) / 1000), -4)
  // 6·124,439,808 + 6·12·768·1024 operations a token (the embeddings' own weights counted)
  const flops = 6 * 124_439_808 + 6 * 12 * 768 * 1024
  expect(Number(mfu)).toBeCloseTo((100 * flops * Number(tokens)) / 790e12, 0)
})

const { title, kernels } = await openGpu()
test.skipIf(!kernels)(`measured on a GPU, it tells who makes each product: ${title}`, async () => {
  const small = { maxT: 16, V: 97, Vp: 128, L: 1, NH: 1, C: 32 }
  const shape = { config: small, B: 1, T: 16, precision: "bf16", fp8: true } as const
  const text = await benchBudget(shape, { flops: 790e12, bandwidth: 4.3e12 }, kernels)
  const [table, products] = text.split("```\n")
  expect(row(table!, "fp8_matmul_forward", "OC 96")).toMatch(/ µs \| +[\d.]+ % \|$/)
  // forward, rows, columns, inner: what follows is an epilogue, a time, and who
  expect(products).toMatch(/^forward +fp8 +16 +96 +32 .* algorithm \d+, /m)
  expect(products!.trimEnd().split("\n").length).toBeGreaterThan(8)
})
