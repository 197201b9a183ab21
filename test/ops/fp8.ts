// Numbers of eight bits, as the OCP's specification of them (2023) has them: every code's number, and
// of all numbers the nearest.

import type { Element } from "../../src/native/contract.ts"

export interface Format {
  /** The numbers of the codes from 0 up to the largest number's. */
  numbers: number[]
  largest: number
}

/** The numbers of a sign, a bias, bits of fraction, and the code of the largest. */
function format(bias: number, fraction: number, most: number): Format {
  const numbers = Array.from({ length: most + 1 }, (_, code) => {
    const exponent = code >> fraction
    const part = (code & (2 ** fraction - 1)) / 2 ** fraction
    return exponent === 0 ? part * 2 ** (1 - bias) : (1 + part) * 2 ** (exponent - bias)
  })
  return { numbers, largest: numbers.at(-1)! }
}

export const FP8 = { e4m3: format(7, 3, 0x7e), e5m2: format(15, 2, 0x7b) }
export const isFp8 = (element: Element | undefined): element is keyof typeof FP8 =>
  element !== undefined && element in FP8

export function fromFp8(code: number, { numbers }: Format): number {
  const size = numbers[code & 0x7f] ?? Number.NaN
  return code & 0x80 ? -size : size
}

/** The code of the nearest number, of two the even one; beyond the largest, of that. */
export function toFp8(x: number, { numbers }: Format): number {
  if (Number.isNaN(x)) return 0x7f
  const size = Math.abs(x)
  let [low, high] = [0, numbers.length - 1]
  while (high - low > 1) {
    const middle = (low + high) >> 1
    if (numbers[middle]! <= size) low = middle
    else high = middle
  }
  const [below, above] = [size - numbers[low]!, numbers[high]! - size]
  const nearest = below < above || (below === above && low % 2 === 0) ? low : high
  return nearest | (x < 0 || Object.is(x, -0) ? 0x80 : 0)
}

export const nearestFp8 = (x: number, format: Format) => fromFp8(toFp8(x, format), format)
