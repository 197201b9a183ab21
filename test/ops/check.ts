// Compares what a kernel gave with what it should have given. Every function returns the problems it
// found, one line each.

import { allowed, type Case, type Drawn, type Output } from "./case.ts"
import { Random } from "./random.ts"
import { bits, equalBits, type Outcome } from "./sandbox.ts"

type Values = Record<string, Float32Array | Float64Array>

/** The outputs among a case's arguments. */
export function outputsOf({ args }: Drawn): [string, Output][] {
  return Object.entries(args).filter((entry): entry is [string, Output] => {
    const arg = entry[1]
    return typeof arg === "object" && "kind" in arg && arg.kind === "output"
  })
}

/** Every number of every output that `expected` names, within the case's tolerance. */
export function differences(drawn: Drawn, got: Values, expected: Values): string[] {
  return outputsOf(drawn).flatMap(([name, { tolerance }]) => {
    const want = expected[name]
    if (!want) return []
    let wrong = 0
    let first = ""
    got[name]!.forEach((value, i) => {
      const limit = allowed(tolerance, want[i]!)
      const isSame = Object.is(value, want[i]) // infinities and NaN have no distance
      if (isSame || Math.abs(value - want[i]!) <= limit) return
      wrong++
      first ||= `${name}[${i}] is ${value}, expected ${want[i]} ± ${limit.toPrecision(2)}`
    })
    return wrong === 0 ? [] : [`${first} (${wrong} of ${want.length} numbers are wrong)`]
  })
}

/** Outputs that are not the same bits. */
export function bitDifferences(got: Values, expected: Values): string[] {
  return Object.keys(expected).flatMap((name) => {
    const [a, b] = [bits(got[name]!), bits(expected[name]!)]
    if (equalBits(a, b)) return []
    const word = a.findIndex((x, i) => x !== b[i])
    return [`${name}: other bits, first at byte ${word * 4}`]
  })
}

/** Outputs that are NaN in `expected` and a number in `got`. */
export function swallowedNaNs(got: Values, expected: Values): string[] {
  return Object.entries(expected).flatMap(([name, want]) => {
    const at = want.findIndex((x, i) => Number.isNaN(x) && !Number.isNaN(got[name]![i]))
    return at < 0 ? [] : [`${name}[${at}] is ${got[name]![at]}, expected NaN`]
  })
}

// A variable of few elements is differentiated by each of them; a larger one by some, picked at
// random, and along directions in which all of its elements move at once.
const FEW = 24
const PICKED = 6
const DIRECTIONS = 2

/** The outputs that are gradients, against central differences of the loss in double precision. */
export function gradientDifferences(test: Case, drawn: Drawn, got: Outcome["outputs"]): string[] {
  const { loss, at, of } = drawn.gradients!
  const point = Object.fromEntries(Object.entries(at).map(([n, x]) => [n, Float64Array.from(x)]))
  const outputs = Object.fromEntries(outputsOf(drawn))
  const random = new Random(`${test.kernel} ${test.title}, where to look`)
  return Object.entries(of).flatMap(([output, variable]) => {
    const x = point[variable]!
    const { tolerance, effect, initial } = outputs[output]!
    for (const { label, indices, signs } of probes(random, x.length)) {
      let actual = 0
      let before = 0
      let limit = 0
      indices.forEach((i, k) => {
        actual += signs[k]! * got[output]![i]!
        if (effect === "added") before += signs[k]! * initial![i]!
        limit += allowed(tolerance, got[output]![i]! || 0) // a NaN must not make the limit NaN
      })
      const slope = derivative(() => loss(point), x, indices, signs)
      if (Math.abs(actual - before - slope.value) <= limit + slope.error) continue
      return [
        `${output}${label} is ${actual - before}, expected ${slope.value} ± ${limit.toPrecision(2)}`,
      ]
    }
    return []
  })
}

function probes(random: Random, n: number) {
  const all = Array.from({ length: n }, (_, i) => i)
  const picked = n <= FEW ? all : Array.from({ length: PICKED }, () => random.integer(n))
  const single = picked.map((i) => ({ label: `[${i}]`, indices: [i], signs: [1] }))
  const directions = Array.from({ length: n <= FEW ? 0 : DIRECTIONS }, () => {
    return { label: " along random signs", indices: all, signs: random.signs(n) }
  })
  return [...single, ...directions]
}

const STEP = 2 ** -8 // a power of two, for variables of unit size: x ± STEP is exact for most

/** The five-point rule, whose error is STEP⁴/30 times the fifth derivative. */
function derivative(loss: () => number, x: Float64Array, indices: number[], signs: number[]) {
  const origin = indices.map((i) => x[i]!)
  const at = (steps: number) => {
    indices.forEach((i, k) => {
      x[i] = origin[k]! + signs[k]! * steps * STEP
    })
    return loss()
  }
  const [far, near, nearBack, farBack] = [at(2), at(1), at(-1), at(-2)] as [
    number,
    number,
    number,
    number,
  ]
  indices.forEach((i, k) => {
    x[i] = origin[k]!
  })
  const value = (8 * (near - nearBack) - (far - farBack)) / (12 * STEP)
  // What the loss's own rounding amounts to once divided by the step.
  const error = (2 ** -46 * (Math.abs(near) + Math.abs(far) + 1)) / STEP
  return { value, error }
}
