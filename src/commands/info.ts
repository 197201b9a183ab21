// llm info: this machine and its kernels, and how fast they train.

import { benchBriefly } from "../bench/brief.ts"
import { UserError } from "../errors.ts"
import { describeFile } from "../info/file.ts"
import type { Command } from "../main.ts"
import { assetNames, assetPaths } from "../native/assets.ts"
import { cpuName, instructionSets, usableCores } from "../native/cpu.ts"
import { findCuda } from "../native/cuda.ts"
import { openDevice } from "../native/device.ts"
import { builtFor } from "../native/gpu.ts"
import { CUDA_FILE, type Kernels, libraries } from "../native/library.ts"
import { findNccl } from "../native/nccl.ts"
import { measurePeak } from "../native/peak.ts"
import type { CommandSpec, Options } from "../options.ts"
import { VERSION } from "../version.ts"

const spec: CommandSpec = {
  name: "info",
  summary: "Prints this machine, its kernels and its measured peak; or what a file holds.",
  positional: {
    name: "FILE",
    help: "a model, a run folder, token files, a tokenizer, an evaluation, a state",
    required: false,
    many: true,
  },
  options: [
    {
      name: "bench",
      group: "Measure",
      kind: "flag",
      help: "train for ten seconds: time by kind of work, what is lost where",
    },
  ],
  examples: ["llm info --bench", "llm info runs/first", "llm info gpt2_124M.bin"],
}

async function run(options: Options): Promise<number> {
  const files = options.positionals()
  if (files.length > 0 && options.flag("bench")) {
    throw new UserError(`--bench goes without ${files[0]} (leave one out)`)
  }
  for (const [i, file] of files.entries()) {
    const { text, damage } = await describeFile(file)
    process.stdout.write(`${i > 0 ? "\n" : ""}${text}`)
    if (damage) throw damage
  }
  if (files.length > 0) return 0
  const sets = await instructionSets()
  const kernels = await openDevice("auto", 0)
  const peak = measurePeak(kernels)
  const rows: [string, string][] = [
    ["version", VERSION],
    ["CPU", cpuName()],
    ["instruction set", sets.at(-1) ?? "none that a kernel library is built for"],
    ["cores", `${usableCores()} that this process may use`],
    ["kernels", kernels.name],
    ...(await gpuRows(kernels)),
    ["f32 peak", `${(peak / 1e9).toFixed(1)} GFLOP/s, measured`],
  ]
  if (kernels.precisions.includes("bf16")) {
    const bf16Peak = measurePeak(kernels, "bf16")
    rows.push(["bf16 peak", `${(bf16Peak / 1e9).toFixed(1)} GFLOP/s, measured`])
  }
  for (const { name, reason } of await libraries()) {
    rows.push([`library ${name}`, reason ?? "usable"])
  }
  rows.push(["library cuda", await cudaLibrary()])
  for (const [name, value] of rows) process.stdout.write(`${name.padEnd(24)}${value}\n`)
  if (options.flag("bench")) process.stdout.write(`\n${await benchBriefly(kernels)}`)
  return 0
}

async function cudaLibrary(): Promise<string> {
  if (!assetNames().includes(CUDA_FILE)) return "not in this build, which found no nvcc"
  const [path] = await assetPaths([CUDA_FILE])
  return `for NVIDIA GPUs of compute capability ${builtFor(path!)}`
}

async function gpuRows({ gpu }: Kernels): Promise<[string, string][]> {
  const found = await findCuda()
  if (!gpu || "missing" in found) return [["GPU", "missing" in found ? found.missing : "not used"]]
  const nccl = findNccl()
  const [all, free] = [gpu.memory.all, gpu.memory.free].map((bytes) => (bytes / 1e9).toFixed(1))
  return [
    ["GPU", gpu.name],
    ["GPU memory", `${all} GB, ${free} GB free`],
    ["driver", `for CUDA ${gpu.driver}`],
    ["cuBLASLt", found.cublaslt || "none: products are made by plain kernels"],
    ["NCCL", "missing" in nccl ? nccl.missing : `${nccl.version}, ${nccl.path}`],
  ]
}

export const command: Command = { spec, run }
