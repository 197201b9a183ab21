// What the kernels' tests run on: every library of this build, and the emulations; in a sanitized
// process the sanitized ones.

import { SANITIZED, SANITIZED_REFERENCE, type Sanitized } from "../src/build/native.ts"
import { instructionSets } from "../src/native/cpu.ts"
import { BF16_LIBRARIES, Kernels, libraries } from "../src/native/library.ts"
import { EMULATION_NEEDS, openEmulated } from "./emulated.ts"
import { isSanitized } from "./sanitizers.ts"

/** A library under test: `kernels` is undefined where it cannot be used, for a `reason`. */
export interface Tested {
  name: string
  kernels?: Kernels
  reason?: string
  withBf16: boolean
}

// Another build of it, where the one by Bun's compiler would take long: on an emulated CPU.
const built = isSanitized ? SANITIZED_REFERENCE.path : process.env.LLM_TEST_REFERENCE
export const reference = built
  ? await Kernels.openFile("reference", built, true, true)
  : await Kernels.open("reference")

/** All but the reference. */
export async function testedLibraries(): Promise<Tested[]> {
  if (isSanitized) return Promise.all(SANITIZED.map(openSanitized))
  const own = (await libraries()).filter(({ name }) => name !== "reference")
  const opened = own.map(async ({ name, reason }) => ({
    name,
    reason,
    kernels: reason === undefined ? await Kernels.open(name) : undefined,
    withBf16: BF16_LIBRARIES.includes(name),
  }))
  const emulated = (["bf16", "amx"] as const).map(async (of) => ({
    name: of === "amx" ? "emulated AMX" : "emulated AVX-512 with BF16",
    reason: EMULATION_NEEDS,
    kernels: await openEmulated(of),
    withBf16: true,
  }))
  return Promise.all([...opened, ...emulated])
}

async function openSanitized({ name, path, needs, withBf16 }: Sanitized): Promise<Tested> {
  if (needs && !(await instructionSets()).includes(needs))
    return { name, withBf16, reason: `this CPU has no ${needs}` }
  return { name, withBf16, kernels: await Kernels.openFile(name, path, withBf16) }
}

/** The heading of a library's tests. */
export const heading = ({ name, kernels, reason }: Tested) =>
  kernels ? name : `${name} (skipped: ${reason})`
