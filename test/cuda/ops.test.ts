// Every kernel of the CUDA library over the one table of cases, held against the reference: on the
// emulated GPU, in several orders of threads and blocks; with LLM_TEST_GPU=1 on the GPU that is there.

import { describe, test } from "bun:test"
import { checkLibrary, checkLibraryNaN, forAll, type Way } from "../ops/agreement.ts"
import { cases } from "../ops/cases.ts"
import { isOnGpu, openCuda } from "./library.ts"

const SEEDS = [1, 2]
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

describe(`CUDA (${heading})`, () => {
  for (const [kernel, rows] of Map.groupBy(cases, (row) => row.kernel)) {
    const there = test.skipIf(!library?.has(kernel))
    there(
      `${kernel} agrees with the reference, with the same bits each time`,
      () => forAll(rows, (row) => checkLibrary(library!, ways, row)),
      TIMEOUT_MS,
    )
    there(
      `${kernel} hands on NaN from any input`,
      () => forAll(rows, (row) => checkLibraryNaN(library!, inOrder(OTHER_SEED), row)),
      TIMEOUT_MS,
    )
  }
})
