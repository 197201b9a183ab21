import { type Case, EPS, EPS64, overwritten } from "../case.ts"
import type { Random } from "../random.ts"
import { LENGTHS } from "../sizes.ts"

// One number is so large that in f32 the others would vanish beside it.
function inputs(random: Random, n: number): Float32Array {
  const inp = random.normals(n)
  if (n > 3) inp[random.integer(n)] = 2 ** 28
  return inp
}

function mean(n: number): Case {
  return {
    kernel: "mean_forward",
    title: `n ${n}`,
    draw(random) {
      const inp = inputs(random, n)
      // Rounded once, at the end.
      const out = overwritten(1, { absolute: EPS64, relative: EPS })
      return {
        args: { out, inp, n },
        outputs: () => ({ out: Float64Array.of(inp.reduce((total, x) => total + x, 0) / n) }),
      }
    },
  }
}

// The large number pulled back to zero: what is left of it would show what the sum was kept in.
function cancellingMean(n: number): Case {
  return {
    kernel: "mean_forward",
    title: `n ${n}, large terms that cancel`,
    draw(random) {
      const inp = random.normals(n)
      inp[0] = 2 ** 28
      inp[n - 1] = -(2 ** 28)
      const out = overwritten(1, { absolute: 2 ** 28 * EPS64, relative: EPS })
      return {
        args: { out, inp, n },
        outputs: () => ({ out: Float64Array.of(inp.reduce((total, x) => total + x, 0) / n) }),
      }
    },
  }
}

function squaredNorm(n: number): Case {
  return {
    kernel: "squared_norm",
    title: `n ${n}`,
    draw(random) {
      const inp = inputs(random, n)
      // f64, with a rounding for every term at worst
      const tolerance = { absolute: 0, relative: (n + 1) * EPS64 }
      return {
        args: { out: { ...overwritten(1, tolerance), type: "f64" }, inp, n },
        outputs: () => ({ out: Float64Array.of(inp.reduce((total, x) => total + x * x, 0)) }),
      }
    },
  }
}

// Up to several of the chunks that threads take, and more than a grid of GPU threads.
const lengths = [...LENGTHS, 16383, 16384, 16385, 100003, 1 << 20]

export const reductionCases: Case[] = [
  ...lengths.flatMap((n) => [mean(n), squaredNorm(n)]),
  ...[4, 129, 4097, 65537].map(cancellingMean),
]
