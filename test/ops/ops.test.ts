// Every kernel of every library, over the one table of cases. The reference is held against
// formulas in double precision, the libraries that were built ahead of time against the reference.

import { describe, expect, test } from "bun:test"
import { isBf16, isFp8 } from "../../src/native/contract.ts"
import { contract, type Kernels } from "../../src/native/library.ts"
import { heading, reference, testedLibraries } from "../libraries.ts"
import { isSanitized } from "../sanitizers.ts"
import { checkLibrary, checkLibraryNaN, drawn, forAll, type Way, withNaN } from "./agreement.ts"
import type { Case } from "./case.ts"
import { cases } from "./cases.ts"
import { differences, gradientDifferences, outputsOf, swallowedNaNs } from "./check.ts"
import { runKernel } from "./sandbox.ts"

const THREADS = [1, 2, 3, 5]
const TIMEOUT_MS = 300_000 // for all cases of a kernel; emulated, and on cores that others use too

const onThreads = (kernels: Kernels, threads: number): Way => ({
  name: `on ${threads} threads`,
  set: () =>
    kernels.call("llm_threads", threads) === threads ? undefined : `no ${threads} threads`,
})

function checkReference(row: Case): string[] {
  const input = drawn(row)
  const { outputs, damage } = runKernel(reference, row.kernel, input.args)
  return [
    ...damage,
    ...(input.outputs ? differences(input, outputs, input.outputs()) : []),
    ...(input.gradients ? gradientDifferences(row, input, outputs) : []),
  ]
}

function checkReferenceNaN(row: Case): string[] {
  const input = withNaN(row)
  if (!input) return []
  const { outputs } = runKernel(reference, row.kernel, input.args)
  const expected = input.outputs?.() ?? {}
  const given = Object.fromEntries(outputsOf(input).map(([name]) => [name, outputs[name]!]))
  const problems = swallowedNaNs(
    given,
    Object.fromEntries(Object.entries(expected).filter(([name]) => name in given)),
  )
  // A difference quotient cannot say where; somewhere it must show.
  const isSeen = Object.values(given).some((values) => values.some(Number.isNaN))
  return isSeen ? problems : [...problems, "no output is NaN"]
}

// The generator has no formula; it has PyTorch's numbers to meet, in a test of its own.
const ELSEWHERE = ["llm_threads", "llm_peak", "llm_peak_bf16", "rng_seed", "normal_fill"]

test("the table has cases for every kernel of the contract", async () => {
  const covered = new Set([...ELSEWHERE, ...cases.map((row) => row.kernel)])
  expect([...covered].sort()).toEqual([...(await contract()).keys()].sort())
})

const signatures = await contract()
const byKernel = Map.groupBy(cases, (row) => row.kernel)

// Held against formulas once; what it touches shows whenever a library is held against it.
for (const [kernel, rows] of isSanitized ? [] : byKernel) {
  describe(kernel, () => {
    test(
      "the reference gives what the formula in double precision gives",
      () => {
        forAll(rows, checkReference)
      },
      TIMEOUT_MS,
    )
    test(
      "the reference hands on NaN from any input",
      () => {
        forAll(rows, checkReferenceNaN)
      },
      TIMEOUT_MS,
    )
  })
}

for (const library of await testedLibraries()) {
  const { name, kernels, withBf16 } = library
  const isOwn = (kernel: string) => {
    if (isFp8(signatures.get(kernel)!)) return false
    // The products' rows in f32 are AVX-512's, which have tests of their own.
    if (/AMX$/.test(name)) return isBf16(signatures.get(kernel)!)
    return withBf16 || !isBf16(signatures.get(kernel)!)
  }
  describe(heading(library), () => {
    const ways = THREADS.map((threads) => onThreads(kernels!, threads))
    for (const [kernel, rows] of byKernel) {
      if (!isOwn(kernel)) continue
      test.skipIf(!kernels)(
        `${kernel} agrees with the reference, with the same bits on 1, 2, 3 and 5 threads`,
        () => forAll(rows, (row) => checkLibrary(kernels!, ways, row)),
        TIMEOUT_MS,
      )
      test.skipIf(!kernels)(
        `${kernel} hands on NaN from any input`,
        () => forAll(rows, (row) => checkLibraryNaN(kernels!, ways[0]!, row)),
        TIMEOUT_MS,
      )
    }
  })
}
