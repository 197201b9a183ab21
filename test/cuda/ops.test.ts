// Every kernel of the CUDA library over the one table of cases, held against the reference: on the
// emulated GPU, in several orders of threads and blocks; with LLM_TEST_GPU=1 on the GPU that is there.

import { describe, expect, test } from "bun:test"
import { contract } from "../../src/native/library.ts"
import { checkLibrary, checkLibraryNaN, forAll, type Way } from "../ops/agreement.ts"
import { EPS_BF16 } from "../ops/bf16.ts"
import { type Argument, type Case, NULL, type Output } from "../ops/case.ts"
import { cases } from "../ops/cases.ts"
import { isSanitized } from "../sanitizers.ts"
import { isOnGpu, openCuda } from "./library.ts"

// What a kernel touches depends on the order no more than its bits do.
const SEEDS = isSanitized ? [1] : [1, 2]
const OTHER_SEED = 3
const TIMEOUT_MS = 300_000

const opened = await openCuda()
const library = "library" in opened ? opened.library : undefined
const heading = "library" in opened ? opened.library.name : `skipped: ${opened.reason}`
const inOrder = (seed: number): Way => ({
  name: isOnGpu ? "once more" : `in order ${seed}`,
  set() {
    library!.seed(seed)
    return undefined
  },
})
const ways = SEEDS.map(inOrder)

const signatures = await contract()

/** What cuBLASLt adds to a product in bf16, it may add to the rounded product (llm.h), which is off by
 * half an EPS of a sum of `terms` of unit size: 4.5 deviations are 4.5·√terms. */
function roundedTwice(row: Case): Case {
  const draw: Case["draw"] = (random) => {
    const drawn = row.draw(random)
    const { bias, residual, accumulate_inp, C, OC, out, pre, dinp } = drawn.args
    const widen = (output: Argument, terms: Argument) => {
      ;(output as Output).tolerance.absolute += 4.5 * Math.sqrt(terms as number) * (EPS_BF16 / 2)
    }
    if (row.kernel === "matmul_forward_bf16") {
      if (bias !== NULL || residual !== NULL) widen(out!, C!)
      if (bias !== NULL && pre !== NULL) widen(pre!, C!)
    }
    if (row.kernel === "matmul_backward_input_bf16" && accumulate_inp) widen(dinp!, OC!)
    return drawn
  }
  return { ...row, draw }
}

/** Hopper's tensor cores add products of eight bits with 13 bits after the point of the largest, 32 at
 * a time: each time a sum may lose 2^-13 of its size, which for `inner` terms of unit size is within
 * 4.5·√inner. What is added to it in bf16 may be added to the rounded sum; under emulation that is a
 * residual. */
function addedInFewBits(row: Case): Case {
  if (!row.kernel.startsWith("fp8_matmul_")) return row
  const draw: Case["draw"] = (random) => {
    const drawn = row.draw(random)
    const { N, C, OC, out, dinp, dweight, residual = NULL } = drawn.args
    const inner = (out ? C : dinp ? OC : N) as number
    const { tolerance } = (out ?? dinp ?? dweight) as Output
    const lost = isOnGpu ? Math.ceil(inner / 32) * 2 ** -13 : 0
    const isTwice = isOnGpu ? !dweight : residual !== NULL
    const roundings = lost + (isTwice ? EPS_BF16 / 2 : 0)
    tolerance.absolute += 4.5 * Math.sqrt(inner) * roundings
    return drawn
  }
  return { ...row, draw }
}
const table = cases.map(isOnGpu ? roundedTwice : (row) => row).map(addedInFewBits)

describe(`CUDA (${heading})`, () => {
  test.skipIf(!library)("every kernel of the contract is there", () => {
    expect([...signatures.keys()].filter((kernel) => !library!.has(kernel))).toEqual([])
  })
  for (const [kernel, rows] of Map.groupBy(table, (row) => row.kernel)) {
    const there = test.skipIf(!library?.has(kernel))
    there(
      `${kernel} agrees with the reference, with the same bits each time`,
      () => forAll(rows, (row) => checkLibrary(library!, ways, row)),
      TIMEOUT_MS,
    )
    if (isSanitized) continue
    there(
      `${kernel} hands on NaN from any input`,
      () => forAll(rows, (row) => checkLibraryNaN(library!, inOrder(OTHER_SEED), row)),
      TIMEOUT_MS,
    )
  }
  for (const kernel of ["matmul_forward_bf16", "matmul_backward_input_bf16"]) {
    test.skipIf(!library)(
      `${kernel} agrees with the reference where Hopper's own kernel makes it`,
      () => {
        library!.preferOwn(true)
        try {
          const rows = table.filter((row) => row.kernel === kernel)
          forAll(rows, (row) => checkLibrary(library!, ways, row))
        } finally {
          library!.preferOwn(false)
        }
      },
      TIMEOUT_MS,
    )
  }
  // By tensor cores of a warp, where Hopper's take a warpgroup.
  for (const kernel of ["attention_forward_bf16", "attention_backward_bf16"]) {
    test.skipIf(!library || isOnGpu)(
      `${kernel} agrees with the reference on a GPU before Hopper`,
      () => {
        library!.capability(8)
        try {
          const rows = table.filter((row) => row.kernel === kernel)
          forAll(rows, (row) => checkLibrary(library!, [inOrder(OTHER_SEED)], row))
        } finally {
          library!.capability(9)
        }
      },
      TIMEOUT_MS,
    )
  }
})
