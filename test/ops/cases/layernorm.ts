import { sumsOf } from "../bf16.ts"
import { type Case, gradient, NULL, overwritten, rounding, sum, type Tolerance } from "../case.ts"
import type { Random } from "../random.ts"
import { bit, tuples } from "../sizes.ts"

type Numbers = Float32Array | Float64Array
const EPSILON = 1e-5 // the kernel's eps

function layernorm(inp: Numbers, weight: Numbers, bias: Numbers, C: number) {
  const N = inp.length / C
  const out = new Float64Array(N * C)
  const mean = new Float64Array(N)
  const rstd = new Float64Array(N)
  for (let n = 0; n < N; n++) {
    const row = Float64Array.from(inp.subarray(n * C, (n + 1) * C))
    const average = row.reduce((total, x) => total + x, 0) / C
    const variance = row.reduce((total, x) => total + (x - average) ** 2, 0) / C
    mean[n] = average
    rstd[n] = 1 / Math.sqrt(variance + EPSILON)
    row.forEach((x, c) => {
      out[n * C + c] = (x - average) * rstd[n]! * weight[c]! + bias[c]!
    })
  }
  return { out, mean, rstd }
}

// Neighbours differ by about 4, so that no row, not even of two numbers, has a variance near 0,
// where its derivatives have no bound.
const spread = (random: Random, N: number, C: number) =>
  random.stored(random.normals(N * C, 0.5).map((x, i) => x + ((i % C) % 2 === 0 ? 2 : -2)))

// An average's rounding stays that of its terms, while f32 sums of up to a few hundred wander by
// the root of their number.
const average = (n: number, size: number): Tolerance => rounding(size * (1 + Math.sqrt(n) / 4))

function forward(N: number, C: number, offset: number, withStatistics: boolean): Case {
  return {
    kernel: "layernorm_forward",
    title: `N ${N}, C ${C}, mean ${offset}${withStatistics ? "" : ", no mean and rstd"}`,
    draw(random) {
      const inp = spread(random, N, C).map((x) => x + offset)
      const weight = random.normals(C)
      const bias = random.normals(C)
      // A row of one number has no deviation: what its mean is off by is scaled by 1/sqrt(eps).
      const scale = C === 1 ? 1 / Math.sqrt(EPSILON) : 1
      const size = (2 + Math.abs(offset)) * scale
      return {
        args: {
          out: overwritten(N * C, average(C, 2 * size)),
          mean: withStatistics ? overwritten(N, average(C, size)) : NULL,
          rstd: withStatistics ? overwritten(N, average(C, size)) : NULL,
          inp,
          weight,
          bias,
          N,
          C,
          eps: Math.fround(EPSILON),
        },
        outputs: () => layernorm(inp, weight, bias, C),
      }
    },
  }
}

function backward(
  N: number,
  C: number,
  ofInput: boolean,
  ofWeights: boolean,
  withSums: boolean,
): Case {
  const adds = [ofInput && "accumulate inp", ofWeights && "accumulate", withSums && "sums"]
  return {
    kernel: "layernorm_backward",
    title: [`N ${N}, C ${C}`, ...adds.filter(Boolean)].join(", "),
    draw(random) {
      const inp = spread(random, N, C)
      const weight = random.normals(C)
      const bias = random.normals(C)
      const dout = random.normals(N * C)
      const { mean, rstd } = layernorm(inp, weight, bias, C)
      const scale = C === 1 ? 1 / Math.sqrt(EPSILON) : 1
      const dinp = gradient(random, N * C, ofInput, average(C, 4 * scale))
      return {
        args: {
          dinp,
          dweight: gradient(random, C, ofWeights, sum(N + 1, scale)),
          dbias: gradient(random, C, ofWeights, sum(N + 1)),
          sums: withSums
            ? gradient(random, C, ofWeights, sumsOf(N, dinp.tolerance, random.isBf16))
            : NULL,
          dout,
          inp,
          weight,
          mean: Float32Array.from(mean),
          rstd: Float32Array.from(rstd),
          N,
          C,
          accumulate_inp: Number(ofInput),
          accumulate: Number(ofWeights),
        },
        gradients: {
          // What dinp was before is the gradient of a loss that takes inp as it is.
          loss(x) {
            const shifted = x.inp!.map((value, i) => value + x.shift![i % C]!)
            const { out } = layernorm(shifted, x.weight!, x.bias!, C)
            const before = (i: number) => (dinp.initial?.[i] ?? 0) * x.shift![i % C]!
            return out.reduce((total, o, i) => total + o * dout[i]! + before(i), 0)
          },
          at: { inp, weight, bias, shift: new Float32Array(C) },
          of: {
            ...{ dinp: "inp", dweight: "weight", dbias: "bias" },
            ...(withSums && { sums: "shift" }),
          },
        },
      }
    },
  }
}

export const layernormCases: Case[] = [
  ...tuples(32, 2).flatMap(([N, C], i) => [
    forward(N!, C!, 0, i % 3 !== 0),
    backward(N!, C!, bit(i, 0), bit(i, 1), !bit(i, 2)),
  ]),
  // With a mean of 1000 deviations, E[x²] - mean² has no digit left.
  forward(5, 129, 1000, true),
  forward(3, 768, -1000, true),
  backward(200, 257, true, false, true),
  // More rows than a GPU has at a time, of a warp and of several.
  ...[forward(2200, 8, 0, true), backward(2200, 8, true, false, true)],
  ...[forward(1100, 400, 0, true), backward(1100, 400, true, true, true)],
  // Widths of models, which a GPU reads in whole vectors, in ways that depend on how many; rows of
  // several warps; rows longer than their registers.
  ...[64, 256, 768, 1024, 1600, 2048].flatMap((C, i) => [
    forward(3 + 2 * i, C, 0, true),
    backward(3 + 2 * i, C, bit(i, 0), bit(i, 1), i !== 3),
  ]),
  forward(2, 33000, 0, true),
  backward(3, 12296, false, false, true),
]
