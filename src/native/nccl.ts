// NCCL, by which several GPUs would add up their gradients; one, which is all that is used so far, needs none: it comes with PyTorch, and by itself from PyPI.

import { CString, dlopen, type Pointer } from "bun:ffi"
import { findLibrary } from "./find-library.ts"

const WANTED = {
  file: "libnccl.so",
  versions: ["2"],
  wheels: ["nccl"],
  symbol: "ncclGetVersion",
}
const GET_NCCL =
  "only several GPUs need it: pip install nvidia-nccl-cu13, or name its folder by LLM_CUDA_PATH"

/** An NCCL that this process can load, "2.27.3", or why there is none. */
export function findNccl(): { path: string; version: string } | { missing: string } {
  const found = findLibrary(WANTED)
  const missing = (why: string | undefined) => ({
    missing: `missing${why ? `: ${why}` : ""} (${GET_NCCL})`,
  })
  if (!("path" in found)) return missing(found.failure)
  const { ncclGetVersion, ncclGetErrorString } = dlopen(found.path, {
    ncclGetVersion: { args: ["ptr"], returns: "i32" },
    ncclGetErrorString: { args: ["i32"], returns: "ptr" },
  }).symbols
  const code = new Int32Array(1)
  const status = ncclGetVersion(code)
  if (status !== 0)
    return missing(`${found.path}: ${new CString(ncclGetErrorString(status) as Pointer)}`)
  return { path: found.path, version: versionText(code[0]!) }
}

/** Two digits each for what comes after the major number; up to 2.8, one for the minor. */
function versionText(code: number): string {
  const unit = code < 10_000 ? 1000 : 10_000
  return `${Math.floor(code / unit)}.${Math.floor((code % unit) / 100)}.${code % 100}`
}
