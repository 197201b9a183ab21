// cuBLASLt, half a gigabyte: it comes with CUDA's toolkit and with PyTorch, and by itself from PyPI.

import { findLibrary } from "./find-library.ts"

const WANTED = {
  file: "libcublasLt.so",
  versions: ["13", "12"],
  wheels: ["cu13", "cublas"],
  symbol: "cublasLtGetVersion",
}
export const GET_CUBLASLT =
  "pip install nvidia-cublas, or nvidia-cublas-cu12 for CUDA 12; or name its folder by LLM_CUDA_PATH"

/** The path of a cuBLASLt that this process can load, or why there is none. */
export function findCublasLt(): { path: string } | { missing: string } {
  const found = findLibrary(WANTED)
  if ("path" in found) return found
  const why = found.failure ? `: ${found.failure}` : ""
  return { missing: `cuBLASLt is missing${why} (${GET_CUBLASLT})` }
}
