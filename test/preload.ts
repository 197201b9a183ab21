// Tests run the kernels that the sources say: build them when they are missing or older. And they
// may take long: on a machine that others use too, 5 seconds, the runner's default, are not enough.

import { plugin } from "bun"
import { buildNative } from "../src/build/native.ts"
import { isSanitized } from "./sanitizers.ts"

const TIMEOUT_MS = 60_000

if (isSanitized) delete process.env.LD_PRELOAD // this process is watched, not what it starts
const isOnGpu = process.env.LLM_TEST_GPU === "1" // there, time is dear, and nothing is emulated
const purpose = isSanitized ? "sanitizers" : isOnGpu ? "use" : "tests"
const { warning } = await buildNative((line) => console.error(line), purpose)
if (warning) console.error(`warning: ${warning}`)

// The default can only be set by each file itself, for its own tests.
plugin({
  name: "timeout",
  setup(build) {
    build.onLoad({ filter: /\.test\.ts$/ }, async ({ path }) => {
      const set = `import { setDefaultTimeout } from "bun:test"; setDefaultTimeout(${TIMEOUT_MS});`
      return { contents: `${set} ${await Bun.file(path).text()}`, loader: "ts" }
    })
  },
})
