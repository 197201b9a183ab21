// The NVIDIA driver's library, libcuda. CUDA's run-time opens it by its name alone, and then takes what
// the process has loaded already: so that it is loaded here where the loader does not find it by itself.

import { dlopen } from "bun:ffi"
import { join } from "node:path"

const FILE = "libcuda.so.1"
const FOLDERS = ["/usr/lib/wsl/lib", "/run/opengl-driver/lib"] // of WSL, of NixOS

/** Loads the driver, if there is one: of LLM_CUDA_PATH, or where the loader looks, or where it does not. */
export function loadDriver(): void {
  const { LLM_CUDA_PATH } = process.env
  const own = LLM_CUDA_PATH ? [join(LLM_CUDA_PATH, FILE)] : []
  for (const candidate of [...own, FILE, ...FOLDERS.map((folder) => join(folder, FILE))]) {
    try {
      dlopen(candidate, { cuInit: { args: ["u32"], returns: "i32" } })
      return
    } catch {
      // The next one; without any, the run-time says so.
    }
  }
}
