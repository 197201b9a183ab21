// bun run test:sanitize: the kernels' tests on libraries that say where they go astray.

import { buildNative } from "../src/build/native.ts"
import { SANITIZERS_NEED, sanitizedEnvironment } from "./sanitizers.ts"

const FILES = ["ops/mistakes", "ops/ops.test", "ops/library.test", "formats/init.test"]

const env = sanitizedEnvironment()
if (!env) {
  console.error(`test:sanitize: ${SANITIZERS_NEED} (on Debian: apt install build-essential)`)
  process.exit(1)
}
await buildNative((line) => console.error(line), "sanitizers")
const files = FILES.map((name) => `${import.meta.dir}/${name}.ts`)
const tests = Bun.spawn([process.execPath, "test", ...files], {
  env,
  stdio: ["inherit", "inherit", "inherit"],
})
process.exit(await tests.exited)
