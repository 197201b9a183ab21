// Whether this process can compute on a GPU: a build with the library, a driver, cuBLASLt.

import { existsSync } from "node:fs"
import { assetNames, assetPaths } from "./assets.ts"
import { findCublasLt } from "./cublaslt.ts"
import { loadDriver } from "./driver.ts"
import { countGpus } from "./gpu.ts"
import { CUDA_FILE } from "./library.ts"

export interface CudaLibrary {
  /** The kernel library's file. */
  path: string
  /** cuBLASLt's; "" where the library does without. */
  cublaslt: string
}

/** What the driver makes when it is loaded; WSL has another. */
const TRACES = ["/dev/nvidiactl", "/dev/nvidia0", "/dev/dxg"]

/** The library, ready to be opened; or what is missing, and whether a GPU is there all the same. */
export async function findCuda(): Promise<CudaLibrary | { missing: string; hasGpu: boolean }> {
  // For tests: another library with the same functions, which may compute without a GPU.
  const given = process.env.LLM_CUDA_LIBRARY
  const hasGpu = TRACES.some((path) => existsSync(path))
  if (!hasGpu && !given) {
    return { missing: `no NVIDIA GPU: there is no ${TRACES[0]}, which its driver makes`, hasGpu }
  }
  if (!given && !assetNames().includes(CUDA_FILE)) {
    return { missing: "no CUDA library in this build (install CUDA's toolkit, rebuild)", hasGpu }
  }
  const path = given ?? (await assetPaths([CUDA_FILE]))[0]!
  loadDriver()
  const found = countGpus(path)
  if ("missing" in found) return { missing: found.missing, hasGpu }
  if (found.count === 0) {
    return { missing: "CUDA sees no GPU (CUDA_VISIBLE_DEVICES may hide it)", hasGpu: false }
  }
  const cublaslt = findCublasLt()
  if ("path" in cublaslt) return { path, cublaslt: cublaslt.path }
  return given ? { path, cublaslt: "" } : { missing: cublaslt.missing, hasGpu }
}
