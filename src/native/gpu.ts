// A GPU through its kernel library: the functions of cuda/device.h.

import { dlopen, type FFITypeOrString } from "bun:ffi"
import { readFileSync } from "node:fs"
import { join } from "node:path"
import { writeWhole } from "../data/files.ts"
import { assert, UserError } from "../errors.ts"
import { forRun, live, type Memory, tooMuch } from "./memory.ts"

const TEXT_BYTES = 256
/** What helps, by the status. */
const WAYS_OUT: Record<number, string> = {
  2: "try a smaller --batch or --classifier-rows, or --recompute block", // cudaErrorMemoryAllocation
  801: "try --precision bf16", // cudaErrorNotSupported, of a product in eight bits
}

const f = (returns: FFITypeOrString, ...args: FFITypeOrString[]) => ({ args, returns })

function bind(path: string) {
  return dlopen(path, {
    device_count: f("i32"),
    device_open: f("i32", "i32", "ptr"),
    device_built: f("void", "ptr", "i32"),
    device_name: f("void", "ptr", "i32"),
    device_bus: f("void", "ptr", "i32"),
    device_message: f("void", "ptr", "i32"),
    device_memory: f("i64"),
    device_memory_free: f("i64"),
    device_driver: f("i32"),
    device_allocate: f("i64", "i64"),
    device_free: f("i32", "i64"),
    device_upload: f("i32", "i64", "ptr", "i64"),
    device_download: f("i32", "ptr", "i64", "i64"),
    device_copy: f("i32", "i64", "i64", "i64"),
    device_fetch: f("i32", "i64", "i64"),
    device_fetched: f("i32", "ptr", "i32", "i64"),
    device_wait: f("i32"),
    device_status: f("i32"),
    device_record: f("i32"),
    device_recorded: f("i64"),
    device_replay: f("i32", "i64"),
    device_forget: f("void", "i64"),
    device_tf32: f("void", "i32"),
    device_fp8: f("i32"),
    product_plans_save: f("i32", "ptr", "i32"),
    product_plans_load: f("i32", "ptr", "i32"),
    product_report: f("i32", "ptr", "i32"),
  }).symbols as unknown as Functions
}

type Functions = Record<string, (...args: (number | bigint | ArrayBufferView)[]) => number | bigint>

function readText(write: Functions[string] | undefined): string {
  const bytes = new Uint8Array(TEXT_BYTES)
  write!(bytes, TEXT_BYTES)
  return new TextDecoder().decode(bytes.subarray(0, bytes.indexOf(0)))
}

/** How many GPUs a library can use; or why it can use none. */
export function countGpus(path: string): { count: number } | { missing: string } {
  const functions = bind(path)
  const count = Number(functions.device_count!())
  return count < 0 ? { missing: readText(functions.device_message) } : { count }
}

/** The compute capabilities that a library's kernels were compiled for: "8.0, 9.0". */
export function builtFor(path: string): string {
  const codes = readText(bind(path).device_built).split(",")
  return codes.map((code) => code.replace(/(\d)0$/, ".$1")).join(", ")
}

// Bytes that arrays leave: for the code of kernels, which is loaded when they first run, for graphs, and
// for what is added to while cuBLASLt's ways are timed.
const RESERVED = 2 ** 28

const SUM_BYTES = 32
const sumOf = (plans: Uint8Array) => new Bun.CryptoHasher("sha256").update(plans).digest()

/** A graph: calls that were recorded, to be queued as one. */
export type Recorded = bigint

/** The one GPU of this process. */
export class Gpu {
  readonly name: string
  /** Its address on the bus, by which NVML knows it. */
  readonly bus: string
  /** After an error nothing on the device can be trusted, or freed. */
  private isLost = false

  /** Files that keep how products are made, and the bytes of each. */
  private readonly plans = new Map<string, number>()

  private constructor(private readonly functions: Functions) {
    this.name = readText(functions.device_name)
    this.bus = readText(functions.device_bus)
  }

  /** Takes the first GPU, with the kernels of a library and the cuBLASLt of a file; where that is "",
   * products are made by plain kernels. How products are made, which decides their last bits, is chosen
   * by the clock once, and kept in a file of `folder`. */
  static open(path: string, cublaslt: string, folder: string): Gpu {
    const functions = bind(path)
    const status = functions.device_open!(0, Buffer.from(`${cublaslt}\0`))
    const gpu = new Gpu(functions)
    gpu.check(status)
    const plans = join(folder, `products-${gpu.name.replace(/\W+/g, "-")}.bin`)
    gpu.takePlans(plans)
    gpu.keepPlansIn(plans)
    return gpu
  }

  /** Makes products from here on as a file has kept it, which ends with its SHA-256. False where the file
   * is missing or damaged, or is of another GPU or cuBLASLt. */
  takePlans(file: string): boolean {
    let kept: Buffer
    try {
      kept = readFileSync(file)
    } catch {
      return false
    }
    const plans = kept.subarray(0, -SUM_BYTES)
    const isTaken =
      plans.length > 0 &&
      sumOf(plans).equals(kept.subarray(plans.length)) &&
      Number(this.functions.product_plans_load!(plans, plans.length)) >= 0
    if (isTaken) this.plans.set(file, plans.length)
    return isTaken
  }

  /** Has `keepPlans` keep them in this file too. */
  keepPlansIn(file: string): void {
    if (!this.plans.has(file)) this.plans.set(file, 0)
  }

  /** Keeps how products are made, after some were first asked for. */
  keepPlans(): void {
    const { product_plans_save } = this.functions
    const bytes = new Uint8Array(Number(product_plans_save!(new Uint8Array(1), 0)))
    product_plans_save!(bytes, bytes.length)
    for (const [file, kept] of this.plans) {
      if (kept === bytes.length) continue
      this.plans.set(file, bytes.length)
      try {
        writeWhole(file, [bytes, sumOf(bytes)])
      } catch {
        // A full disk: the next run will choose anew.
      }
    }
  }

  /** A table of the products known so far: who makes each, and how fast. */
  get products(): string {
    const { product_report } = this.functions
    const bytes = new Uint8Array(1 + Number(product_report!(new Uint8Array(1), 0)))
    product_report!(bytes, bytes.length)
    return new TextDecoder().decode(bytes.subarray(0, -1))
  }

  /** Whether products of f32 may round what they multiply to TF32. */
  set tf32(isOn: boolean) {
    this.functions.device_tf32!(isOn ? 1 : 0)
  }

  /** Whether its tensor cores multiply numbers of eight bits. */
  get hasFp8(): boolean {
    return Number(this.functions.device_fp8!()) === 1
  }

  /** Bytes of memory; of what is free, arrays may take what is usable. */
  get memory(): { all: number; free: number; usable: number } {
    const { device_memory, device_memory_free } = this.functions
    const free = Number(device_memory_free!())
    return { all: Number(device_memory!()), free, usable: Math.max(0, free - RESERVED) }
  }

  /** CUDA's version that the driver has, "13.0". */
  get driver(): string {
    const version = Number(this.functions.device_driver!())
    return `${Math.floor(version / 1000)}.${Math.floor((version % 1000) / 10)}`
  }

  /** Zeroed memory on the device. */
  allocate(bytes: number, purpose = forRun()): Memory {
    assert(Number.isSafeInteger(bytes) && bytes > 0, `cannot allocate ${bytes} bytes`)
    const { usable } = this.memory
    const isRoom = bytes <= usable
    const address = isRoom ? Number(this.functions.device_allocate!(BigInt(bytes))) : 0
    this.check()
    if (address === 0) throw tooMuch(bytes, usable, `the GPU (${this.name}) has free`, purpose)
    return new DeviceMemory(this, this.functions, address, bytes)
  }

  /** Begins a download of at most 256 bytes, as they are when everything queued before is done. The
   * result waits for that alone; it must be asked for before 16 others are begun. */
  fetch(address: number, into: ArrayBufferView): () => void {
    const bytes = BigInt(into.byteLength)
    const number = Number(this.functions.device_fetch!(BigInt(address), bytes))
    if (number < 0) this.check()
    return () => this.check(this.functions.device_fetched!(into, number, bytes))
  }

  /** Waits until everything that was queued is done. */
  wait(): void {
    this.check(this.functions.device_wait!())
  }

  /** Records what `queue` queues, instead of running it. */
  record(queue: () => void): Recorded {
    this.check(this.functions.device_record!())
    queue()
    const graph = BigInt(this.functions.device_recorded!())
    this.check()
    return graph
  }

  replay(graph: Recorded): void {
    this.check(this.functions.device_replay!(graph))
  }

  forget(graph: Recorded): void {
    if (!this.isLost) this.functions.device_forget!(graph)
  }

  /** Throws when something has failed; does not wait for what is still running. */
  check(status: number | bigint = this.functions.device_status!()): void {
    if (Number(status) === 0) return
    this.isLost = true
    const message = readText(this.functions.device_message)
    const wayOut =
      WAYS_OUT[Number(status)] ?? "the system's log may say more; try again, or --device cpu"
    throw new UserError(`the GPU${this.name && ` (${this.name})`} failed: ${message} (${wayOut})`)
  }

  /** Frees memory, unless it is lost already. */
  release(address: number): void {
    if (!this.isLost) this.check(this.functions.device_free!(BigInt(address)))
  }
}

class DeviceMemory implements Memory {
  constructor(
    private readonly gpu: Gpu,
    private readonly functions: Functions,
    private readonly start: number,
    readonly bytes: number,
  ) {
    live.add(this)
  }

  get address(): number {
    assert(live.has(this), "use of freed memory")
    return this.start
  }

  read(into: ArrayBufferView, at: number): void {
    const [from, bytes] = this.span(at, into.byteLength)
    this.gpu.check(this.functions.device_download!(into, from, bytes))
  }

  write(from: ArrayBufferView, at: number): void {
    const [to, bytes] = this.span(at, from.byteLength)
    this.gpu.check(this.functions.device_upload!(to, from, bytes))
  }

  copy(to: number, from: number, bytes: number): void {
    const [[target, size], [source]] = [this.span(to, bytes), this.span(from, bytes)]
    this.gpu.check(this.functions.device_copy!(target, source, size))
  }

  free(): void {
    assert(live.delete(this), "memory freed twice")
    this.gpu.release(this.start)
  }

  /** Address and length as they cross, within the memory. */
  private span(at: number, bytes: number): [address: bigint, bytes: bigint] {
    const isWithin = Number.isSafeInteger(at) && at >= 0 && at + bytes <= this.bytes
    assert(isWithin, `${bytes} bytes at ${at} of ${this.bytes}`)
    return [BigInt(this.address + at), BigInt(bytes)]
  }
}
