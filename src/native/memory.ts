// Native memory for tensors. It is mapped, not taken from the collector's heap, so that nothing a
// kernel holds can move or be freed; JavaScript sees views.

import { type Pointer, toArrayBuffer } from "bun:ffi"
import { assert, UserError } from "../errors.ts"
import { usableMemory } from "./cpu.ts"
import { libc, MADV_HUGEPAGE, MAP_ANONYMOUS, MAP_PRIVATE, PROT_READ, PROT_WRITE } from "./libc.ts"

const HUGE_PAGE = 2 * 2 ** 20 // bytes

type ViewConstructor<V> = {
  new (buffer: ArrayBuffer, byteOffset?: number, length?: number): V
  BYTES_PER_ELEMENT: number
}

/** Memory that kernels work on: this process's own, or a device's. */
export interface Memory {
  /** First byte. */
  readonly address: number
  readonly bytes: number
  /** Copies bytes out, once everything that was queued before is done. */
  read(into: ArrayBufferView, at: number): void
  /** Copies bytes in, for everything that is queued after; `from` may change at once. */
  write(from: ArrayBufferView, at: number): void
  /** Copies `bytes` bytes within, from one place to another that it does not meet. */
  copy(to: number, from: number, bytes: number): void
  free(): void
}

/** Who asks for memory, and how to need less, for the error where there is too little. */
export interface Purpose {
  needs: string
  ways: string[]
}
/** `savers` are options with which a run needs less. */
export const forRun = (savers: string[] = []): Purpose => ({
  needs: "this run needs",
  ways: [...savers, "a smaller --batch, --context or model"],
})

/** All that is allocated now. */
export const live = new Set<Memory>()

const bytesOf = ({ buffer, byteOffset, byteLength }: ArrayBufferView) =>
  new Uint8Array(buffer, byteOffset, byteLength)

export class NativeMemory implements Memory {
  private readonly buffers: WeakRef<ArrayBuffer>[] = [] // of the views that were handed out

  private constructor(
    private readonly start: number,
    readonly bytes: number,
    private readonly mapped: { address: number; bytes: number },
  ) {}

  /** Zeroed memory, in huge pages where the system grants them. */
  static allocate(bytes: number, purpose = forRun()): NativeMemory {
    assert(Number.isSafeInteger(bytes) && bytes > 0, `cannot allocate ${bytes} bytes`)
    // More than the machine has would be granted, and the process killed when it is touched.
    if (bytes > usableMemory()) throw tooMuch(bytes, usableMemory(), HERE, purpose)
    const mappedBytes = Math.ceil(bytes / HUGE_PAGE) * HUGE_PAGE + HUGE_PAGE
    const flags = MAP_PRIVATE | MAP_ANONYMOUS
    const mapped = Number(libc().mmap(0, mappedBytes, PROT_READ | PROT_WRITE, flags, -1, 0))
    if (mapped === -1) throw tooMuch(bytes, usableMemory(), HERE, purpose)
    const address = Math.ceil(mapped / HUGE_PAGE) * HUGE_PAGE
    // Advice only: where huge pages are off, small ones serve.
    libc().madvise(address, mappedBytes - HUGE_PAGE, MADV_HUGEPAGE)
    const memory = new NativeMemory(address, bytes, { address: mapped, bytes: mappedBytes })
    live.add(memory)
    return memory
  }

  /** First byte, on a huge page's boundary. */
  get address(): number {
    assert(live.has(this), "use of freed memory")
    return this.start
  }

  /** A typed array over `length` elements at `byteOffset`, until `free`: then it has none. */
  view<V>(type: ViewConstructor<V>, byteOffset: number, length: number): V {
    const bytes = length * type.BYTES_PER_ELEMENT
    assert(
      Number.isSafeInteger(byteOffset) && Number.isSafeInteger(length) && byteOffset >= 0,
      `bad view: ${length} elements at ${byteOffset}`,
    )
    assert(byteOffset + bytes <= this.bytes, `view ends at ${byteOffset + bytes} of ${this.bytes}`)
    const buffer = toArrayBuffer((this.address + byteOffset) as Pointer, 0, bytes)
    this.buffers.push(new WeakRef(buffer))
    return new type(buffer, 0, length)
  }

  read(into: ArrayBufferView, at: number): void {
    bytesOf(into).set(this.view(Uint8Array, at, into.byteLength))
  }

  write(from: ArrayBufferView, at: number): void {
    this.view(Uint8Array, at, from.byteLength).set(bytesOf(from))
  }

  copy(to: number, from: number, bytes: number): void {
    this.view(Uint8Array, to, bytes).set(this.view(Uint8Array, from, bytes))
  }

  free(): void {
    assert(live.delete(this), "memory freed twice")
    // A view of pages that are gone would end the process; a detached one is empty.
    for (const buffer of this.buffers) buffer.deref()?.transfer()
    libc().munmap(this.mapped.address, this.mapped.bytes)
  }
}

const HERE = "this machine has"

/** The error of what needs more memory than there is. */
export function tooMuch(
  bytes: number,
  limit: number,
  who: string,
  { needs, ways }: Purpose,
): UserError {
  const [needed, there] = [bytes, limit].map((n) => `${(n / 1e9).toFixed(2)} GB`)
  return new UserError(`${needs} ${needed} of memory, and ${who} ${there} (try ${ways.join(", ")})`)
}

export const allocate = NativeMemory.allocate

/** Whether an address lies in memory, this process's or a device's, that is allocated now; its end is
 * allowed, for empty tails. */
export function isLive(address: number, isHost: boolean): boolean {
  for (const memory of live) {
    if (memory instanceof NativeMemory !== isHost) continue
    if (address >= memory.address && address <= memory.address + memory.bytes) return true
  }
  return false
}
