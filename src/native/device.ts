// --device and --threads: which kernels a run uses.

import { UserError } from "../errors.ts"
import type { Precision } from "./contract.ts"
import { usableCores } from "./cpu.ts"
import { bestCpuLibrary, Kernels, libraries } from "./library.ts"

export const DEVICES = ["auto", "cpu", "cuda", "reference"] as const
export type Device = (typeof DEVICES)[number]

// What a CPU must have for products in bf16.
export const BF16_INSTRUCTIONS = process.arch === "arm64" ? "BFDOT" : "AVX512-BF16 or AMX-BF16"

const TOO_MANY = 4 // threads a core

/** Opens the kernels and sets the threads (0: all cores that this process may use). */
export async function openDevice(
  device: Device,
  threads: number,
  precision: Precision = "fp32",
): Promise<Kernels> {
  const kernels = await openLibrary(device)
  if (!kernels.precisions.includes(precision)) {
    throw new UserError(
      `--precision ${precision}: this CPU has no instructions for it, ${BF16_INSTRUCTIONS} (try --precision fp32, or --device reference, which is slow)`,
    )
  }
  const wanted = threads === 0 ? usableCores() : threads
  if (kernels.name === "reference" && threads > 1) {
    throw new UserError(
      `--threads ${threads}: the reference kernels use one (leave it out, or --device cpu)`,
    )
  }
  const cores = usableCores()
  if (wanted > TOO_MANY * cores) {
    throw new UserError(
      `--threads ${threads} is far above the ${cores} cores that this process may use, and threads that share a core wait for one another (try --threads ${cores})`,
    )
  }
  kernels.call("llm_threads", wanted)
  return kernels
}

async function openLibrary(device: Device): Promise<Kernels> {
  if (device === "cuda") {
    throw new UserError("--device cuda: this build has no CUDA library (try --device cpu)")
  }
  if (device === "reference") return Kernels.open("reference")
  const best = await bestCpuLibrary()
  if (best) return Kernels.open(best)
  const groups = Map.groupBy(await libraries(), ({ reason }) => reason)
  groups.delete(undefined)
  const why = [...groups]
    .map(([reason, all]) => `${all.map(({ name }) => name).join(", ")}: ${reason}`)
    .join("; ")
  if (device === "cpu") {
    throw new UserError(
      `--device cpu: no kernel library fits (${why}); --device reference is slow but works`,
    )
  }
  process.stderr.write(`warning: using the slow reference kernels (${why})\n`)
  return Kernels.open("reference")
}
