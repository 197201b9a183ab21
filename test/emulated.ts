// Kernels for instruction sets that this machine may lack, in terms of AVX2 (src/build/native.ts).

import { existsSync } from "node:fs"
import { EMULATED_LIBRARIES } from "../src/build/native.ts"
import { instructionSets } from "../src/native/cpu.ts"
import { Kernels } from "../src/native/library.ts"

export const EMULATION_NEEDS = "the emulation takes AVX2 and a C compiler"

/** The emulated kernels; undefined where EMULATION_NEEDS is not met. */
export async function openEmulated(of: "bf16" | "amx"): Promise<Kernels | undefined> {
  const path = EMULATED_LIBRARIES[of]
  const canRun = (await instructionSets()).includes("x86-64-v3")
  return canRun && existsSync(path) ? Kernels.openFile(`emulated ${of}`, path, true) : undefined
}
