// AddressSanitizer and UndefinedBehaviorSanitizer in a process of Bun: their run-time has to be loaded
// before everything else. Preloaded it takes Bun as it is, so that the tests run unchanged, and all
// libraries in one process.

import { spawnSync } from "node:child_process"
import { realpathSync } from "node:fs"
import { findCompiler } from "../src/build/native.ts"

/** Whether this process tests the sanitized libraries. */
export const isSanitized = process.env.LLM_SANITIZED === "1"

export const SANITIZERS_NEED = "the sanitizers take gcc with libasan and libubsan"

/** The variables of a process that tests the sanitized libraries; undefined where it cannot be. */
export function sanitizedEnvironment(): Record<string, string | undefined> | undefined {
  const compiler = findCompiler()
  if (!compiler) return undefined
  const paths = ["libasan.so", "libubsan.so"].map((name) =>
    spawnSync(compiler, [`-print-file-name=${name}`], { encoding: "utf8" }).stdout.trim(),
  )
  // What the compiler does not have it names without a folder.
  if (!paths.every((path) => path.startsWith("/"))) return undefined
  return {
    ...process.env,
    LLM_SANITIZED: "1",
    LD_PRELOAD: paths.map((path) => realpathSync(path)).join(":"),
    // Bun ends without freeing, and handles some faults of its own.
    ASAN_OPTIONS: "detect_leaks=0:handle_segv=0",
    UBSAN_OPTIONS: "halt_on_error=1:print_stacktrace=1",
  }
}
