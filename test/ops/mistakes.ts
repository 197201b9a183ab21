// The sanitizers see what they are there for, in this way of running kernels. Only a sanitized process
// runs this: `bun test` does not take it for a test by its name.

import { afterAll, beforeAll, describe, expect, test } from "bun:test"
import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { dirname, join } from "node:path"
import { findCompiler, SANITIZED_REFERENCE, SANITIZERS } from "../../src/build/native.ts"
import { ROOT, run } from "../cli/executable.ts"
import { emulationNeeds } from "../cuda/library.ts"
import { sanitizedEnvironment } from "../sanitizers.ts"

const FIXTURES = join(import.meta.dir, "..", "fixtures")
const dir = mkdtempSync(join(tmpdir(), "llm-sanitizers-"))
afterAll(() => rmSync(dir, { recursive: true }))

const poisoned = (access: string, kernel: string) =>
  new RegExp(`AddressSanitizer: use-after-poison[^]*?${access}[^]*? in ${kernel} [^]*broken\\.c:`)

const MISTAKES: [mistake: string, kernel: string, report: RegExp][] = [
  ["a number read after an array", "add_forward", poisoned("READ of size 4", "add_forward")],
  ["a number written before an array", "gelu_forward", poisoned("WRITE of size 4", "gelu_forward")],
  ["half a number written after an array", "bf16_widen", poisoned("WRITE of size 2", "bf16_widen")],
  ["an overflow", "mean_forward", /broken\.c:.* signed integer overflow: 2147483647 \+ 1 /],
  ["a float that no int can hold", "squared_norm", /broken\.c:.*outside the range of .* 'int'/],
  ["a shift by too many bits", "gelu_backward", /broken\.c:.*shift exponent \d+ is too large/],
  ["an address that is not aligned", "bf16_round", /broken\.c:.* load of misaligned address/],
]

const onGpu = (what: string, access: string, kernel: string) =>
  new RegExp(
    `AddressSanitizer: ${what}[^]*?${access} of size 4[^]*? in ${kernel} [^]*planted\\.cpp:`,
  )

const ON_GPU: [mistake: string, kernel: string, report: RegExp][] = [
  ["a write far off", "planted_far_write", onGpu("use-after-poison", "WRITE", "far_write")],
  ["a read far off", "planted_far_read", onGpu("use-after-poison", "READ", "far_read")],
  [
    "a read past dynamic shared memory",
    "planted_dynamic",
    onGpu("use-after-poison", "READ", "beyond_dynamic"),
  ],
  [
    "a read past an array in shared memory",
    "planted_static",
    onGpu("global-buffer-overflow", "READ", "beyond_static"),
  ],
  [
    "a write past a thread's own array",
    "planted_own",
    onGpu("stack-buffer-overflow", "WRITE", "beyond_own"),
  ],
]

const NOTHING = { code: 0, stdout: "nothing was found\n", stderr: "" }

const TIMEOUT_MS = 60_000

describe("a mistake in a kernel", () => {
  const library = join(dir, "libbroken.so")
  // Of the kernels that the first has not, the second's are found.
  beforeAll(async () => {
    const flags = ["-shared", "-fPIC", ...SANITIZERS, `-I${ROOT}/c`, "-o", library]
    const rest = [SANITIZED_REFERENCE.path, `-Wl,-rpath,${dirname(SANITIZED_REFERENCE.path)}`]
    const { stderr } = await run([findCompiler()!, ...flags, `${FIXTURES}/broken.c`, ...rest])
    expect(stderr).toBe("")
  })

  test.each(MISTAKES)(
    "%s ends the run, and is named",
    async (_, kernel, report) => {
      const { code, stdout, stderr } = await run(
        [process.execPath, join(FIXTURES, "broken.ts"), library, kernel],
        { env: sanitizedEnvironment() },
      )
      expect(stderr).toMatch(report)
      expect({ code, stdout }).toEqual({ code: 1, stdout: "" })
    },
    TIMEOUT_MS,
  )

  test(
    "that is none is not found",
    async () => {
      const { code, stdout, stderr } = await run(
        [process.execPath, join(FIXTURES, "broken.ts"), library, "layernorm_forward"],
        { env: sanitizedEnvironment() },
      )
      expect({ code, stdout, stderr }).toEqual(NOTHING)
    },
    TIMEOUT_MS,
  )
})

const reason = await emulationNeeds()
describe.skipIf(reason !== undefined)(`a mistake on a GPU${reason ? ` (${reason})` : ""}`, () => {
  const runOn = (kernel: string) =>
    run([process.execPath, join(FIXTURES, "broken-cuda.ts"), kernel], {
      env: sanitizedEnvironment(),
    })

  test.each(ON_GPU)(
    "%s ends the run, and is named",
    async (_, kernel, report) => {
      const { code, stdout, stderr } = await runOn(kernel)
      expect(stderr).toMatch(report)
      expect({ code, stdout }).toEqual({ code: 1, stdout: "" })
    },
    TIMEOUT_MS,
  )

  test(
    "that is none is not found",
    async () => {
      const { code, stdout, stderr } = await runOn("add_forward")
      expect({ code, stdout, stderr }).toEqual(NOTHING)
    },
    TIMEOUT_MS,
  )
})
