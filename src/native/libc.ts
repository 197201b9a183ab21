// The few functions of libc that Bun does not offer.

import { dlopen } from "bun:ffi"

export const PROT_READ = 1
export const PROT_WRITE = 2
export const MAP_PRIVATE = 2
export const MAP_ANONYMOUS = 0x20
export const MADV_HUGEPAGE = 14

let symbols: ReturnType<typeof open> | undefined
function open() {
  return dlopen("libc.so.6", {
    mmap: { args: ["u64", "u64", "i32", "i32", "i32", "i64"], returns: "i64" },
    munmap: { args: ["u64", "u64"], returns: "i32" },
    madvise: { args: ["u64", "u64", "i32"], returns: "i32" },
    getauxval: { args: ["u64"], returns: "u64" },
    syscall: { args: ["i64", "i64", "i64"], returns: "i64" },
    sigaction: { args: ["i32", "u64", "u64"], returns: "i32" },
    flock: { args: ["i32", "i32"], returns: "i32" },
    __errno_location: { args: [], returns: "ptr" },
    setenv: { args: ["cstring", "cstring", "i32"], returns: "i32" },
  }).symbols
}

export function libc() {
  symbols ??= open()
  return symbols
}

/** Sets a variable that native code reads, unless the user has set it. `process.env` alone would not
 * reach it. */
export function setDefaultVariable(name: string, value: string): void {
  const text = (s: string) => Buffer.from(`${s}\0`)
  libc().setenv(text(name) as never, text(value) as never, 0)
}
