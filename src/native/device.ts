// --device and --threads: which kernels a run uses.

import { UserError } from "../errors.ts"
import { type Arithmetic, type Platform, type Precision, storedIn } from "./contract.ts"
import { usableCores } from "./cpu.ts"
import { type CudaLibrary, findCuda } from "./cuda.ts"
import { bestCpuLibrary, Kernels, libraries } from "./library.ts"

export const DEVICES = ["auto", "cpu", "cuda", "reference"] as const
export type Device = (typeof DEVICES)[number]

// What a CPU must have for products in bf16.
export const BF16_INSTRUCTIONS = process.arch === "arm64" ? "BFDOT" : "AVX512-BF16 or AMX-BF16"

const TOO_MANY = 4 // threads a core

/** What --device comes to on this machine. */
export interface Found {
  device: Exclude<Device, "auto">
  cuda?: CudaLibrary
  /** Nobody has asked for it. */
  isAuto?: boolean
  /** Then, what a GPU lacks, or that there is none. */
  missing?: string
}

/** Where --device's kernels compute: auto takes a GPU where there is all that it needs, and tells
 * `warn` what is missing where there is only the GPU. */
export async function findDevice(
  device: Device,
  warn = (text: string): unknown => process.stderr.write(`warning: ${text}\n`),
): Promise<Found> {
  if (device !== "auto" && device !== "cuda") return { device }
  const cuda = await findCuda()
  if ("path" in cuda) return { device: "cuda", cuda, isAuto: device === "auto" }
  if (device === "cuda") {
    throw new UserError(`--device cuda: ${cuda.missing} (or try --device cpu)`)
  }
  if (cuda.hasGpu) warn(`the GPU is not used, but the CPU: ${cuda.missing}`)
  return { device: "cpu", isAuto: true, missing: cuda.missing }
}

/** What a run stores and looks back on where nothing is said. */
export interface Usual {
  precision: Precision
  context: number
}
export const USUAL: Record<Platform, Usual> = {
  cpu: { precision: "fp32", context: 64 },
  cuda: { precision: "bf16", context: 1024 },
}

export const platformOf = ({ device }: Found): Platform => (device === "cuda" ? "cuda" : "cpu")

/** Opens the kernels and sets the threads (0: all cores that this process may use). */
export async function openDevice(
  device: Device | Found,
  threads: number,
  arithmetic: Arithmetic = "fp32",
): Promise<Kernels> {
  const found = typeof device === "string" ? await findDevice(device) : device
  const kernels = await openLibrary(found)
  if (arithmetic === "fp8" && !kernels.hasFp8) {
    const name = kernels.gpu?.name ?? "a CPU"
    const why = found.missing ? `; ${found.missing}` : ""
    const half = kernels.precisions.includes("bf16") ? "--precision bf16, or " : ""
    throw new UserError(
      `--precision fp8: ${name} cannot multiply in eight bits, as NVIDIA GPUs of compute capability 8.9 and later do${why} (try ${half}--device reference, which is slow)`,
    )
  }
  if (!kernels.precisions.includes(storedIn(arithmetic))) {
    throw new UserError(
      `--precision ${arithmetic}: this CPU has no instructions for it, ${BF16_INSTRUCTIONS} (try --precision fp32, or --device reference, which is slow)`,
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
  kernels.host.call("llm_threads", wanted)
  return kernels
}

async function openLibrary({ device, cuda, isAuto }: Found): Promise<Kernels> {
  if (cuda) return Kernels.openGpu(cuda.path, cuda.cublaslt, await openHost())
  if (device === "reference") return Kernels.open("reference")
  const best = await bestCpuLibrary()
  if (best) return Kernels.open(best)
  const groups = Map.groupBy(await libraries(), ({ reason }) => reason)
  groups.delete(undefined)
  const why = [...groups]
    .map(([reason, all]) => `${all.map(({ name }) => name).join(", ")}: ${reason}`)
    .join("; ")
  if (!isAuto) {
    throw new UserError(
      `--device cpu: no kernel library fits (${why}); --device reference is slow but works`,
    )
  }
  process.stderr.write(`warning: using the slow reference kernels (${why})\n`)
  return Kernels.open("reference")
}

/** For what a run on a GPU computes on the host: little enough for any library. */
async function openHost(): Promise<Kernels> {
  return Kernels.open((await bestCpuLibrary()) ?? "reference")
}
