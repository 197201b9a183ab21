// Memory that sanitized kernels may not touch, to the byte. Elsewhere nothing happens here.

import { dlopen } from "bun:ffi"
import { SANITIZED_REFERENCE } from "../src/build/native.ts"
import { isSanitized } from "./sanitizers.ts"

// AddressSanitizer's own, found through a library that is linked with it.
const functions = isSanitized
  ? dlopen(SANITIZED_REFERENCE.path, {
      __asan_poison_memory_region: { args: ["u64", "u64"], returns: "void" },
      __asan_unpoison_memory_region: { args: ["u64", "u64"], returns: "void" },
    }).symbols
  : undefined

export function poison(address: number, bytes: number): void {
  functions?.__asan_poison_memory_region(address, bytes)
}

export function unpoison(address: number, bytes: number): void {
  functions?.__asan_unpoison_memory_region(address, bytes)
}
