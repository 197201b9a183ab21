// The CUDA library as the program opens it: on the emulated GPU, or with LLM_TEST_GPU=1 on the one that
// is there.

import { EMULATED_CUDA } from "../../src/build/emulated.ts"
import { findCuda } from "../../src/native/cuda.ts"
import { bestCpuLibrary, Kernels } from "../../src/native/library.ts"
import { emulationNeeds, isOnGpu } from "./library.ts"

/** Opened, or without kernels and with the reason in its title. */
export async function openGpu(): Promise<{ name: string; title: string; kernels?: Kernels }> {
  const name = isOnGpu ? "cuda" : "cuda, emulated"
  const host = await Kernels.open((await bestCpuLibrary()) ?? "reference")
  if (!isOnGpu) {
    const reason = await emulationNeeds()
    if (reason) return { name, title: `${name} (skipped: ${reason})` }
    return { name, title: name, kernels: await Kernels.openGpu(EMULATED_CUDA, "", host) }
  }
  const found = await findCuda()
  if ("missing" in found) throw new Error(`LLM_TEST_GPU=1, but: ${found.missing}`)
  const kernels = await Kernels.openGpu(found.path, found.cublaslt, host)
  return { name, title: kernels.gpu!.name, kernels }
}
