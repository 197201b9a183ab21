// What device.cu says of a GPU before anything runs on it.

import { dlopen } from "bun:ffi"
import { expect, test } from "bun:test"
import { copyFileSync, mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { EMULATED_CUDA } from "../../src/build/emulated.ts"
import { countGpus } from "../../src/native/gpu.ts"
import { emulationNeeds } from "./library.ts"

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
