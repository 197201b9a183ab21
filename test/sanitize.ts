// bun run test:sanitize: the kernels' tests on libraries that say where they go astray.

import { buildEmulatedCuda, SANITIZED_CUDA } from "../src/build/emulated.ts"
import { buildNative } from "../src/build/native.ts"
import { SANITIZERS_NEED, sanitizedEnvironment } from "./sanitizers.ts"

const FILES = [
  "ops/mistakes",
  "ops/ops.test",
  "ops/library.test",
  "formats/init.test",
  "cuda/ops.test",
]

const env = sanitizedEnvironment()
if (!env) {
  console.error(`test:sanitize: ${SANITIZERS_NEED} (on Debian: apt install build-essential)`)
  process.exit(1)
}
const log = (line: string) => console.error(line)
await buildNative(log, "sanitizers")
await buildEmulatedCuda(log, SANITIZED_CUDA)
const files = FILES.map((name) => `${import.meta.dir}/${name}.ts`)
const tests = Bun.spawn([process.execPath, "test", ...files], {
  env,
  stdio: ["inherit", "inherit", "inherit"],
})
process.exit(await tests.exited)
