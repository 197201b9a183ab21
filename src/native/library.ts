// The kernel libraries: which ones this build and this CPU have, and how they are opened.

import { dlopen } from "bun:ffi"
import { assert, UserError } from "../errors.ts"
import { assetNames, assetPaths, cacheDir, readAsset } from "./assets.ts"
import { compile, referenceSources } from "./compile.ts"
import {
  type Contract,
  isBf16,
  isFp8,
  type Platform,
  type Precision,
  parseContract,
  type Signature,
} from "./contract.ts"
import { INSTRUCTION_SETS, type InstructionSet, instructionSets, usableMemory } from "./cpu.ts"
import { checkArguments, ffiSymbols, type NativeFunctions } from "./functions.ts"
import { Gpu } from "./gpu.ts"
import { setDefaultVariable } from "./libc.ts"
import { allocate, type Memory, type Purpose } from "./memory.ts"

export type LibraryName = "reference" | InstructionSet
/** Those with kernels in bf16. */
export const BF16_LIBRARIES: LibraryName[] = [
  "reference",
  "x86-64-v4-bf16",
  "x86-64-v4-amx",
  "arm64-bf16",
]
export const libraryFile = (name: InstructionSet) => `libllm-${name}.so`
const OPENMP_FILE = "libgomp.so.1"
export const CUDA_FILE = "libllm-cuda.so"
/** What every library for a GPU leaves to the host. */
const ON_HOST = ["rng_seed", "normal_fill"]

let contractText: Promise<Contract> | undefined
export function contract(): Promise<Contract> {
  contractText ??= readAsset("llm.h").then((bytes) =>
    parseContract(new TextDecoder().decode(bytes)),
  )
  return contractText
}

export class Kernels {
  private constructor(
    readonly name: string,
    /** In which its kernels can compute. */
    readonly precisions: Precision[],
    /** Whether it multiplies numbers of eight bits. */
    readonly hasFp8: boolean,
    /** The prebuilt library's file; the reference has none. */
    readonly path: string | undefined,
    private readonly functions: NativeFunctions,
    private readonly contract: Contract,
    /** Where its arrays lie, if not in this process's memory. */
    readonly gpu?: Gpu,
    private readonly cpu?: Kernels,
  ) {}

  /** For what is computed in this process's memory. */
  get host(): Kernels {
    return this.cpu ?? this
  }

  get platform(): Platform {
    return this.gpu ? "cuda" : "cpu"
  }

  static async open(name: LibraryName): Promise<Kernels> {
    const signatures = await contract()
    if (name === "reference") {
      const functions = await compile(await referenceSources(), signatures.values())
      return new Kernels(name, ["fp32", "bf16"], true, undefined, functions, signatures)
    }
    const unusable = (await libraries()).find((library) => library.name === name)?.reason
    if (unusable) throw new UserError(`kernel library ${name}: ${unusable}`)
    // The OpenMP run-time is found beside the library by its rpath, so it is unpacked first.
    const hasOwnOpenMP = assetNames().includes(OPENMP_FILE)
    const [path] = await assetPaths([libraryFile(name), ...(hasOwnOpenMP ? [OPENMP_FILE] : [])])
    return Kernels.openFile(name, path!, BF16_LIBRARIES.includes(name))
  }

  /** A library that was built ahead of time, with the kernels in bf16 and in eight bits or without. */
  static async openFile(
    name: string,
    path: string,
    withBf16: boolean,
    withFp8 = false,
  ): Promise<Kernels> {
    const signatures = await contract()
    // By default libgomp's threads spin for milliseconds at a barrier: on a machine that others use
    // too they then burn the very time slices that the thread they wait for needs (a step took 18
    // times as long), and keep a core from it that it could move to. This many rounds, some 20 µs,
    // still bridge the gaps between kernels.
    setDefaultVariable("GOMP_SPINCOUNT", "1000")
    const there = [...signatures.values()].filter(
      (signature) => (withBf16 || !isBf16(signature)) && (withFp8 || !isFp8(signature)),
    )
    const precisions: Precision[] = withBf16 ? ["fp32", "bf16"] : ["fp32"]
    return new Kernels(name, precisions, withFp8, path, bind(path, there), signatures)
  }

  /** A library for a GPU, which is taken for this process; `host` does what is left to the host. */
  static async openGpu(path: string, cublaslt: string, host: Kernels): Promise<Kernels> {
    const signatures = await contract()
    const there = [...signatures.values()].filter(({ name }) => !ON_HOST.includes(name))
    const gpu = Gpu.open(path, cublaslt, await cacheDir())
    const functions = bind(path, there)
    return new Kernels("cuda", ["fp32", "bf16"], gpu.hasFp8, path, functions, signatures, gpu, host)
  }

  /** Zeroed memory that the kernels can work on. */
  allocate(bytes: number, purpose?: Purpose): Memory {
    return this.gpu ? this.gpu.allocate(bytes, purpose) : allocate(bytes, purpose)
  }

  /** Bytes that this process may use where the kernels' arrays lie. */
  usableMemory(): number {
    return this.gpu ? this.gpu.memory.usable : usableMemory()
  }

  /** Waits until all calls are done: a GPU's are only queued. */
  wait(): void {
    this.gpu?.wait()
  }

  /** Calls one kernel directly. Pointers are addresses in the kernels' memory, 0 for NULL. */
  call(kernel: string, ...args: (number | bigint)[]): number {
    const signature = this.contract.get(kernel)
    assert(signature, `llm.h has no ${kernel}`)
    assert(this.functions[kernel], `${this.name} has no ${kernel}`)
    return this.functions[kernel]!(...checkArguments(signature, args, !this.gpu))
  }
}

function bind(path: string, signatures: Signature[]): NativeFunctions {
  return dlopen(path, ffiSymbols(signatures)).symbols as unknown as NativeFunctions
}

/** Every library for the CPU, with the reason where it cannot be used here. */
export async function libraries(): Promise<{ name: LibraryName; reason?: string }[]> {
  const runs = await instructionSets()
  const built = assetNames()
  return [
    { name: "reference" },
    ...INSTRUCTION_SETS.map((name) => {
      if (!built.includes(libraryFile(name))) {
        return {
          name,
          reason: "not in this build, which found no C compiler (install gcc, rebuild)",
        }
      }
      return runs.includes(name) ? { name } : { name, reason: "this CPU cannot run it" }
    }),
  ]
}

/** The fastest library that can be used here; undefined when only the reference can. */
export async function bestCpuLibrary(): Promise<InstructionSet | undefined> {
  const usable = (await libraries()).filter(({ name, reason }) => name !== "reference" && !reason)
  return usable.at(-1)?.name as InstructionSet | undefined
}
