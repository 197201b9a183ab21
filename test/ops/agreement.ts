// Whether a library's kernels do what the reference does, case by case of the table.

import { expect } from "bun:test"
import { reference } from "../libraries.ts"
import type { Case, Drawn } from "./case.ts"
import { bitDifferences, differences, swallowedNaNs } from "./check.ts"
import { Random } from "./random.ts"
import { type Library, type Outcome, runKernel } from "./sandbox.ts"

/** A way to run a kernel that must not show in its bits; `set` prepares for it, and says what is wrong
 * where it cannot. */
export interface Way {
  name: string
  set: () => string | undefined
}

export const drawn = (row: Case) => row.draw(new Random(`${row.kernel} ${row.title}`))

/** Runs `check` on every case; fails with a line for every problem. */
export function forAll(rows: Case[], check: (row: Case) => string[]) {
  const problems = rows.flatMap((row) => check(row).map((problem) => `${row.title}: ${problem}`))
  expect(problems).toEqual([])
}

type Outputs = Outcome["outputs"]

/** What the reference gives of a case: the same for every library, and kept, as it takes its time. */
function byReference(kept: WeakMap<Case, Outputs>, row: Case, input: Drawn): Outputs {
  const outputs = kept.get(row) ?? runKernel(reference, row.kernel, input.args).outputs
  kept.set(row, outputs)
  return outputs
}
const expectations = new WeakMap<Case, Outputs>()
const expectationsWithNaN = new WeakMap<Case, Outputs>()

/** The problems of a case on a library: what it gives the first way, and where others differ. */
export function checkLibrary(library: Library, [first, ...others]: Way[], row: Case): string[] {
  const input = drawn(row)
  const expected = byReference(expectations, row, input)
  first!.set()
  const { outputs, damage } = runKernel(library, row.kernel, input.args)
  const problems = [...damage, ...differences(input, outputs, expected)]
  for (const { name, set } of others) {
    const unset = set()
    const again = runKernel(library, row.kernel, input.args)
    const found = [...again.damage, ...bitDifferences(again.outputs, outputs)]
    problems.push(...(unset ? [unset] : []), ...found.map((problem) => `${name}: ${problem}`))
  }
  return problems
}

/** The case with one number of one of its inputs replaced by NaN; undefined where it has none. */
export function withNaN(row: Case) {
  const input = drawn(row)
  const random = new Random(`${row.kernel} ${row.title}, where the NaN is`)
  const inputs = Object.values(input.args).flatMap((arg) => {
    if (typeof arg === "number") return []
    if ("kind" in arg) return arg.kind === "output" && arg.initial ? [arg.initial] : []
    return arg instanceof Float32Array ? [arg] : []
  })
  const numbers = inputs[random.integer(inputs.length)]!
  // Some inputs hold NaN already, where nothing may be read.
  const finite = [...numbers.keys()].filter((i) => !Number.isNaN(numbers[i]))
  if (finite.length === 0) return undefined
  numbers[finite[random.integer(finite.length)]!] = Number.NaN
  return input
}

/** The NaN that the reference hands on from a NaN in an input, and the library does not. */
export function checkLibraryNaN(library: Library, way: Way, row: Case): string[] {
  const input = withNaN(row)
  if (!input) return []
  const expected = byReference(expectationsWithNaN, row, input)
  way.set()
  return swallowedNaNs(runKernel(library, row.kernel, input.args).outputs, expected)
}
