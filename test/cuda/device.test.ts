// A GPU before anything runs on it: whether it is one for us, what room it has, which memory is its own.

import { dlopen } from "bun:ffi"
import { describe, expect, test } from "bun:test"
import { copyFileSync, mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { EMULATED_CUDA } from "../../src/build/emulated.ts"
import { countGpus } from "../../src/native/gpu.ts"
import { allocate, forRun } from "../../src/native/memory.ts"
import { openGpu } from "./kernels.ts"
import { emulationNeeds, isOnGpu } from "./library.ts"

const reason = await emulationNeeds()
test.skipIf(reason !== undefined)(
  "a GPU that the kernels cannot run on is none, so that auto takes the CPU",
  () => {
    const folder = mkdtempSync(join(tmpdir(), "llm-old-gpu-"))
    const path = join(folder, "old.so") // a library of its own, whose GPU no other test sees
    copyFileSync(EMULATED_CUDA, path)
    const { emulated_capability } = dlopen(path, {
      emulated_capability: { args: ["i32"], returns: "void" },
    }).symbols
    expect(countGpus(path)).toEqual({ count: 1 })
    emulated_capability(7)
    expect(countGpus(path)).toEqual({
      missing: "the GPU's compute capability is below 8.0, which the kernels need",
    })
    emulated_capability(8)
    expect(countGpus(path)).toEqual({ count: 1 })
    rmSync(folder, { recursive: true })
  },
)

test.skipIf(reason !== undefined)("tensor cores of Ada and later multiply 8-bit floats", () => {
  const { device_fp8, emulated_capability } = dlopen(EMULATED_CUDA, {
    device_fp8: { args: [], returns: "i32" },
    emulated_capability: { args: ["i32"], returns: "void" },
  }).symbols
  expect(device_fp8()).toBe(1)
  emulated_capability(8) // 8.0: Ada is 8.9
  expect(device_fp8()).toBe(0)
  emulated_capability(9)
})

const { title, kernels } = await openGpu()
describe.skipIf(!kernels)(title, () => {
  test("kernels are given no address of the other side's memory", () => {
    const [device, host] = [kernels!.allocate(1024), allocate(1024)]
    const norm = (of: typeof kernels, out: number, inp: number) =>
      of!.call("squared_norm", out, inp, 4)
    norm(kernels, device.address, device.address + 512)
    norm(kernels!.host, host.address, host.address + 512)
    expect(() => norm(kernels, device.address, host.address)).toThrow(/inp = \d+ is no pointer/)
    expect(() => norm(kernels!.host, device.address, host.address)).toThrow(
      /out = \d+ is no pointer/,
    )
    for (const memory of [device, host]) memory.free()
  })

  test("arrays leave room for the code of kernels, or are refused in words", () => {
    const { gpu } = kernels!
    const { free, usable } = gpu!.memory
    expect(usable).toBeGreaterThan(0)
    expect(usable).toBeLessThan(free)
    expect(() => kernels!.allocate(usable + 1, forRun(["--recompute block"]))).toThrow(
      /^this run needs \d+\.\d\d GB of memory, and the GPU \(.+\) has free \d+\.\d\d GB \(try --recompute block, /,
    )
  })

  test("memory that is short while it computes is no mystery", () => {
    const place = kernels!.allocate(4096).address
    // A place for each of so many tokens is more than the room that all kernels share.
    const sizes = [1, 1, 1, 2 ** 30, 1, 0, 0]
    kernels!.call("embedding_backward", place, place, place, place, ...sizes)
    expect(() => kernels!.wait()).toThrow(/^the GPU \(.+\) failed: .* \(try a smaller --batch or /)
  })

  test.skipIf(isOnGpu)("a kernel that fails is one line, after which freeing harms nothing", () => {
    const { planted_address } = dlopen(EMULATED_CUDA, {
      planted_address: { args: ["u64", "i32"], returns: "void" },
    }).symbols
    const memory = kernels!.allocate(4096)
    planted_address(BigInt(memory.address), 0)
    expect(() => kernels!.wait()).toThrow(
      /^the GPU \(emulated GPU\) failed: .*not aligned to 8 bytes.* \(the system's log may say more; try again, or --device cpu\)$/,
    )
    memory.free()
    kernels!.wait()
  })
})
