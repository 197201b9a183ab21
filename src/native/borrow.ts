// Memory that another thread of this process owns. A worker has modules of its own, so that it cannot
// know what is live; whoever hands out an address keeps the memory until the worker is done with it.

import { type Pointer, toArrayBuffer } from "bun:ffi"
import { assert } from "../errors.ts"

/** A place in native memory, as one thread tells it to another. */
export type Span = { address: number; bytes: number }

/** The bytes of a span, in place. */
export function borrow({ address, bytes }: Span): Uint8Array {
  const fits = Number.isSafeInteger(address) && address > 0 && Number.isSafeInteger(bytes)
  assert(fits && bytes > 0 && bytes <= 2 ** 32, `cannot borrow ${bytes} bytes at ${address}`)
  return new Uint8Array(toArrayBuffer(address as Pointer, 0, bytes))
}
