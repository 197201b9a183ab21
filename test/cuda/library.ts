// The CUDA kernels under test: on the emulated GPU, or with LLM_TEST_GPU=1 on the one that is there.

import { dlopen, type FFITypeOrString } from "bun:ffi"
import { buildEmulatedCuda, EMULATED_CUDA, SANITIZED_CUDA } from "../../src/build/emulated.ts"
import type { Contract, Signature } from "../../src/native/contract.ts"
import { instructionSets } from "../../src/native/cpu.ts"
import { findCuda } from "../../src/native/cuda.ts"
import { ffiSymbols, type NativeFunctions } from "../../src/native/functions.ts"
import { contract } from "../../src/native/library.ts"
import type { DeviceMemory, Library } from "../ops/sandbox.ts"
import { isSanitized } from "../sanitizers.ts"

export const isOnGpu = process.env.LLM_TEST_GPU === "1"
const EMULATED = isSanitized ? SANITIZED_CUDA : EMULATED_CUDA

const TEXT_BYTES = 256
const f = (returns: FFITypeOrString, ...args: FFITypeOrString[]) => ({ args, returns })
const DEVICE = {
  device_open: f("i32", "i32", "ptr"),
  device_name: f("void", "ptr", "i32"),
  device_message: f("void", "ptr", "i32"),
  device_allocate: f("i64", "i64"),
  device_upload: f("i32", "i64", "ptr", "i64"),
  device_download: f("i32", "ptr", "i64", "i64"),
  device_wait: f("i32"),
  product_prefer_own: f("void", "i32"),
}
type DeviceFunctions = Record<
  keyof typeof DEVICE,
  (...args: (number | bigint | ArrayBufferView)[]) => number | bigint
>

/** A library whose functions take addresses on a device. */
export class DeviceLibrary implements Library {
  private constructor(
    private readonly signatures: Contract,
    private readonly functions: NativeFunctions,
    private readonly device: DeviceFunctions,
    /** Sets the order in which the emulated GPU runs threads and blocks. */
    readonly seed: (seed: number) => void,
    /** Makes the emulated GPU one of this compute capability. */
    readonly capability: (major: number) => void,
  ) {}

  /** Takes the first GPU. An empty path to cuBLASLt leaves products to plain kernels. */
  static open(path: string, signatures: Contract, cublaslt: string): DeviceLibrary {
    const there = [...signatures.values()].filter((signature) => has(path, signature))
    const { symbols } = dlopen(path, ffiSymbols(there))
    const device = dlopen(path, DEVICE).symbols as unknown as DeviceFunctions
    const emulated = { emulated_seed: f("void", "i32"), emulated_capability: f("void", "i32") }
    const { emulated_seed: seed, emulated_capability: capability } =
      path === EMULATED
        ? dlopen(path, emulated).symbols
        : { emulated_seed: () => {}, emulated_capability: () => {} }
    const functions = symbols as unknown as NativeFunctions
    const library = new DeviceLibrary(signatures, functions, device, seed, capability)
    library.check(device.device_open(0, Buffer.from(`${cublaslt}\0`)))
    return library
  }

  get name(): string {
    return this.text(this.device.device_name)
  }

  has(kernel: string): boolean {
    return this.functions[kernel] !== undefined
  }

  call(kernel: string, ...args: (number | bigint)[]): number {
    const { parameters } = this.signatures.get(kernel)!
    const values = parameters.map(({ type }, i) => {
      if (type === "pointer" || type === "i64") return BigInt(args[i]!)
      return type === "i32" || type === "u32" ? Number(args[i]) | 0 : args[i]!
    })
    return this.functions[kernel]!(...values)
  }

  /** Lets the GPU's own kernel make all products that it takes, or only where it is the faster one. */
  preferOwn(isOn: boolean): void {
    this.device.product_prefer_own(isOn ? 1 : 0)
  }

  /** Waits for what was called; throws what went wrong, in the device's words. */
  wait(): void {
    this.check(this.device.device_wait())
  }

  onDevice = (bytes: number): DeviceMemory => {
    const address = Number(this.device.device_allocate(BigInt(bytes)))
    if (address === 0) throw new Error(`no ${bytes} bytes on the device`)
    return {
      address,
      upload: (from: ArrayBufferView) =>
        this.check(this.device.device_upload(BigInt(address), from, BigInt(from.byteLength))),
      download: (to: ArrayBufferView) =>
        this.check(this.device.device_download(to, BigInt(address), BigInt(to.byteLength))),
      wait: () => this.wait(),
    }
  }

  private check(status: number | bigint): void {
    if (Number(status) !== 0) throw new Error(this.text(this.device.device_message))
  }

  private text(write: DeviceFunctions["device_name"]): string {
    const bytes = new Uint8Array(TEXT_BYTES)
    write(bytes, TEXT_BYTES)
    return new TextDecoder().decode(bytes.subarray(0, bytes.indexOf(0)))
  }
}

function has(path: string, signature: Signature): boolean {
  try {
    dlopen(path, ffiSymbols([signature]))
    return true
  } catch {
    return false
  }
}

/** Builds the emulated GPU if need be: tests that take none do without. Returns why there is none. */
export async function emulationNeeds(): Promise<string | undefined> {
  const runs = process.arch !== "x64" || (await instructionSets()).includes("x86-64-v3")
  if (!runs) return "no emulated GPU: it takes AVX2"
  const { missing } = await buildEmulatedCuda((line) => console.error(line), EMULATED)
  return missing && `no emulated GPU: ${missing}`
}

/** The kernels under test, or why there are none. */
export async function openCuda(): Promise<{ library: DeviceLibrary } | { reason: string }> {
  const signatures = await contract()
  if (isOnGpu) {
    const found = await findCuda()
    if ("missing" in found) throw new Error(`LLM_TEST_GPU=1, but: ${found.missing}`)
    return { library: DeviceLibrary.open(found.path, signatures, found.cublaslt) }
  }
  const reason = await emulationNeeds()
  if (reason) return { reason }
  return { library: DeviceLibrary.open(EMULATED, signatures, "") }
}
