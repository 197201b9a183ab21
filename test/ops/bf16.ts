// The table's cases once more for the kernels in bf16: the same formulas over numbers that bf16 can
// hold, with the tolerance that its rounding adds.

import { fromBf16, roundToBf16 } from "../../src/data/bf16.ts"
import type { Contract } from "../../src/native/contract.ts"
import {
  type Argument,
  type Case,
  type Drawn,
  NULL,
  type Output,
  sum,
  type Tolerance,
} from "./case.ts"
import { Random } from "./random.ts"

export const EPS_BF16 = 2 ** -7 // from 1 to the next number

/** Draws numbers that bf16 can hold. */
export class Bf16Random extends Random {
  override readonly isBf16 = true
  override stored(numbers: Float32Array): Float32Array {
    return numbers.map((x) => fromBf16(roundToBf16(x)))
  }
  override normals(n: number, scale = 1): Float32Array {
    return this.stored(super.normals(n, scale))
  }
  override uniforms(n: number, low: number, high: number): Float32Array {
    return this.stored(super.uniforms(n, low, high))
  }
}

// What a kernel rounds to bf16 on its way, besides its result. A probability p is off by p·EPS/2 at
// most, and all p of a row together by EPS/2: times the largest value (4.5 deviations) for `out`.
// A score's gradient, scale·p·(dp - delta), is up to 4.5²·√HS/√HS in size and rounded likewise, and
// `out`, from which delta comes, is rounded too; it is multiplied by a query or a key.
const WITHIN: Record<string, number> = {
  attention_forward: 4.5 * (EPS_BF16 / 2),
  attention_decode: 4.5 * (EPS_BF16 / 2),
  attention_backward: 2 * 4.5 * (EPS_BF16 / 2),
}

/** Sums of n numbers that a kernel makes, each as far off as it may be itself, in random directions. In
 * bf16 they may be rounded before they are summed, or not: of columns up to 2 in size on average (the
 * largest weights are 4, and what they weigh near 1/2) a number is then off by EPS at most, by that over
 * √3 on average, and the sum by five times √n of it. */
export function sumsOf(n: number, each: Tolerance, isBf16: boolean, kernel = ""): Tolerance {
  const { absolute, relative } = sum(n + 1, 4)
  const inBf16 = isBf16 ? (WITHIN[kernel] ?? 0) + (5 / Math.sqrt(3)) * EPS_BF16 : 0
  return { absolute: absolute + Math.sqrt(n) * (each.absolute + inBf16), relative }
}

// A product's GELU is that of its rounded sum, whose neighbour is an EPS away. GELU's slope is below
// 1.13, and the sum no larger than what is given out and a residual (4.5 deviations) together.
const PRE_SLOPE = 1.13 * EPS_BF16

/** The case for the kernel's bf16 kind; undefined where there is none. */
export function inBf16(row: Case, contract: Contract): Case | undefined {
  const kernel = `${row.kernel}_bf16`
  const signature = contract.get(kernel)
  if (!signature || contract.get(row.kernel)!.parameters.length !== signature.parameters.length)
    return undefined
  const reals = signature.parameters.filter((p) => p.element === "bf16").map(({ name }) => name)
  return {
    kernel,
    title: row.title,
    draw() {
      const drawn = row.draw(new Bf16Random(`${kernel} ${row.title}`))
      for (const name of reals) round(drawn, name, WITHIN[row.kernel] ?? 0)
      if (row.kernel === "matmul_forward" && drawn.args.pre !== NULL) {
        const { tolerance } = drawn.args.out as Output
        tolerance.absolute += 4.5 * PRE_SLOPE
        tolerance.relative += PRE_SLOPE
      }
      return drawn
    },
  }
}

function round({ args }: Drawn, name: string, within: number): void {
  const arg = args[name] as Argument
  if (typeof arg === "number") return
  const roundAll = (numbers: Float32Array) => {
    numbers.forEach((x, i) => {
      numbers[i] = fromBf16(roundToBf16(x))
    })
  }
  if (arg instanceof Float32Array)
    roundAll(arg) // in place: the formula reads the same array
  else if ("kind" in arg && arg.kind === "output") {
    if (arg.initial) roundAll(arg.initial)
    arg.tolerance = rounded(arg.tolerance, within)
  }
}

/** Results that differ in their last bit of f32 may fall to neighbours, an EPS apart, when they are
 * rounded; what a copy holds, it holds exactly. */
function rounded({ absolute, relative }: Tolerance, within: number): Tolerance {
  if (absolute === 0 && relative === 0) return { absolute, relative }
  return { absolute: absolute + within, relative: relative + EPS_BF16 }
}
