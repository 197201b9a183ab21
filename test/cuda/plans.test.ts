// How a GPU's products are made is chosen by the clock: what is kept of it must stand in for the clock.

import { dlopen, type FFITypeOrString } from "bun:ffi"
import { afterAll, describe, expect, test } from "bun:test"
import { copyFileSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { EMULATED_CUDA } from "../../src/build/emulated.ts"
import { contract } from "../../src/native/library.ts"
import { openGpu } from "./kernels.ts"
import { DeviceLibrary, isOnGpu, openCuda } from "./library.ts"

const opened = await openCuda()
const folder = mkdtempSync(join(tmpdir(), "llm-plans-"))
afterAll(() => rmSync(folder, { recursive: true }))

const f = (returns: FFITypeOrString, ...args: FFITypeOrString[]) => ({ args, returns })
const PRODUCTS = {
  product_plans_save: f("i32", "ptr", "i32"),
  product_plans_load: f("i32", "ptr", "i32"),
  product_report: f("i32", "ptr", "i32"),
}
type Write = (out: Uint8Array, size: number) => number

function whole(write: Write, more = 0): Uint8Array {
  const size = write(new Uint8Array(1), 0) + more
  const bytes = new Uint8Array(size)
  write(bytes, size)
  return bytes
}

const [CHOICE_BYTES, US] = [112, 44] // of a choice, and of the time in it (cuda/plans.cu)
const [N, C, OC] = [32, 24, 40] // of so many rows the emulated cuBLASLt offers two algorithms

/** A process's view of the library: loaded from a file of its own, it shares nothing with the others. */
async function fresh(name: string) {
  const path = join(folder, `${name}.so`)
  copyFileSync(EMULATED_CUDA, path)
  const library = DeviceLibrary.open(path, await contract(), "")
  const symbols = dlopen(path, PRODUCTS).symbols as unknown as Record<keyof typeof PRODUCTS, Write>
  const multiply = () => {
    const [out, inp, weight] = [N * OC, N * C, OC * C].map(
      (length) => library.onDevice(length * 4).address,
    )
    library.call("matmul_forward", out!, 0, inp!, weight!, 0, 0, 0, N, C, OC)
    library.wait()
  }
  const multiplyFp8 = (N: number, C: number, OC: number, { residual = false, slotAt = 0 } = {}) => {
    const [wide, left, right, slots, added] = [N * OC, N * C, OC * C, 64, N * OC].map(
      (length) => library.onDevice(length * 4).address,
    )
    const [slot, third] = [slots! + slotAt, residual ? added! : 0]
    library.call("fp8_matmul_forward", wide!, left!, right!, slot, slot, wide!, third, N, C, OC)
    library.call("fp8_matmul_backward_input", left!, wide!, right!, slot, slot, N, C, OC, 0)
    library.call("fp8_matmul_backward_weight", right!, wide!, left!, slot, slot, N, C, OC, 1)
    library.wait()
  }
  const report = () => new TextDecoder().decode(whole(symbols.product_report, 1).slice(0, -1))
  return { ...symbols, multiply, multiplyFp8, report }
}

describe.skipIf(isOnGpu || !("library" in opened))("the plans of products", () => {
  test("a kept plan is taken as it is, with the time that it was chosen by", async () => {
    const first = await fresh("first")
    first.multiply()
    const report = first.report()
    expect(report.trimEnd().split("\n")).toHaveLength(2)
    expect(report).toMatch(/forward +f32 +32 +40 +24 .* algorithm 2,/) // 1 does not run
    const kept = whole(first.product_plans_save)

    const second = await fresh("second")
    expect(second.product_plans_load(kept, kept.length)).toBe(1)
    second.multiply()
    expect(second.report()).toBe(report)
    expect(whole(second.product_plans_save)).toEqual(kept)
  })

  test("products of eight bits are cuBLASLt's where it takes them, each with a plan", async () => {
    const library = await fresh("eighth")
    library.multiplyFp8(48, 64, 32)
    const plans = () => library.report().trimEnd().split("\n").slice(1)
    expect(plans()).toEqual([
      expect.stringMatching(/^forward +fp8 +48 +32 +64 +4 +0 .* algorithm 2,/),
      expect.stringMatching(/^input +fp8 +48 +64 +32 +1 +0 .* algorithm 2,/),
      expect.stringMatching(/^weight +fp8 +32 +64 +48 +1 +1 .* algorithm 2,/),
    ])
    library.multiplyFp8(48, 64, 24)
    expect(plans().slice(3)).toEqual(
      ["forward", "input", "weight"].map((form) =>
        expect.stringMatching(new RegExp(`^${form} +fp8 .* own kernel \\(status 15\\)$`)),
      ),
    )
  })

  test("a product of eight bits that cuBLASLt should take and refuses is a failure", async () => {
    const library = await fresh("refused")
    const failure = (product: string) =>
      `cuBLASLt refuses a product in eight bits, ${product}, with status 13`
    const inner = 176 // that the emulated cuBLASLt refuses
    for (const residual of [false, true]) {
      expect(() => library.multiplyFp8(48, inner, 64, { residual })).toThrow(
        failure("forward 48×64×176"),
      )
    }
    expect(() => library.multiplyFp8(48, 64, inner)).toThrow(failure("input 48×64×176"))
    expect(() => library.multiplyFp8(inner, 64, 48)).toThrow(failure("weight 48×64×176"))
    library.multiplyFp8(48, inner, 24)
    library.multiplyFp8(48, 64, 48, { residual: true }) // which takes two steps
  })

  test("scales that do not lie as cuBLASLt wants them are a failure", async () => {
    const library = await fresh("misaligned")
    expect(() => library.multiplyFp8(48, 64, 32, { slotAt: 4 })).toThrow(
      "cuBLASLt refuses a product in eight bits, forward 48×32×64, with status 15",
    )
    library.multiplyFp8(48, 64, 32, { slotAt: 16 })
  })

  test("a kept plan counts more than what was chosen before it was told", async () => {
    const [first, second] = [await fresh("third"), await fresh("fourth")]
    first.multiply()
    const kept = whole(first.product_plans_save)
    new DataView(kept.buffer).setFloat32(kept.length - CHOICE_BYTES + US, 12345, true)
    second.multiply()
    expect(second.product_plans_load(kept, kept.length)).toBe(1)
    expect(whole(second.product_plans_save)).toEqual(kept)
    expect(second.report()).toContain(" 12345.00 ")
    second.multiply()
    expect(whole(second.product_plans_save)).toEqual(kept)
  })

  test("plans of another version or GPU, and cut ones, are not taken", async () => {
    const first = await fresh("fifth")
    first.multiply()
    const kept = whole(first.product_plans_save)
    const second = await fresh("sixth")
    for (const at of [0, new TextDecoder("latin1").decode(kept).indexOf("emulated GPU")]) {
      const other = kept.slice()
      other[at] = kept[at]! + 1
      expect(second.product_plans_load(other, other.length)).toBe(-1)
    }
    for (const size of [0, 7, kept.length - 1]) {
      expect(second.product_plans_load(kept.slice(0, size || 1), size)).toBe(-1)
    }
    expect(second.report().trimEnd().split("\n")).toHaveLength(1)
  })

  test("a file of plans in which one bit has changed, or that was cut, is not taken", async () => {
    const { kernels } = await openGpu()
    const [{ gpu }, file] = [kernels!, join(folder, "products.bin")]
    const { address } = kernels!.allocate(4 * (N * OC + N * C + OC * C))
    const [inp, weight] = [address + 4 * N * OC, address + 4 * (N * OC + N * C)]
    gpu!.keepPlansIn(file)
    kernels!.call("matmul_forward", address, 0, inp, weight, 0, 0, 0, N, C, OC)
    gpu!.keepPlans()
    const kept = readFileSync(file)
    expect(gpu!.takePlans(file)).toBe(true)
    for (let at = 0; at < kept.length; at++) {
      const damaged = Buffer.from(kept)
      damaged[at]! ^= 1 << (at % 8)
      writeFileSync(file, damaged)
      expect([at, gpu!.takePlans(file)]).toEqual([at, false])
    }
    for (let size = 0; size < kept.length; size += 7) {
      writeFileSync(file, kept.subarray(0, size))
      expect([size, gpu!.takePlans(file)]).toEqual([size, false])
    }
    writeFileSync(file, kept)
    expect(gpu!.takePlans(file)).toBe(true)
  })
})
