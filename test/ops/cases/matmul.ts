import { EPS_BF16 } from "../bf16.ts"
import {
  type Case,
  gradient,
  NULL,
  overwritten,
  type Point,
  scratch,
  sum,
  type Tolerance,
} from "../case.ts"
import type { Random } from "../random.ts"
import { bit, tuples } from "../sizes.ts"
import { gelu } from "./elementwise.ts"

type Numbers = Float32Array | Float64Array

/** inp·weightᵀ + bias */
function linear(inp: Numbers, weight: Numbers, bias: Numbers | undefined, C: number, OC: number) {
  const N = inp.length / C
  const out = new Float64Array(N * OC)
  for (let n = 0; n < N; n++) {
    for (let o = 0; o < OC; o++) {
      let total = bias ? bias[o]! : 0
      for (let c = 0; c < C; c++) total += inp[n * C + c]! * weight[o * C + c]!
      out[n * OC + o] = total
    }
  }
  return out
}

function inner(a: Numbers, b: Numbers): number {
  let total = 0
  for (let i = 0; i < a.length; i++) total += a[i]! * b[i]!
  return total
}

const room = (N: number, C: number) => scratch(Math.ceil(N / 64) * 64 * C) // LLM_MATMUL_SCRATCH
const title = (sizes: number[], options: Record<string, boolean>) => {
  const [N, C, OC] = sizes
  const chosen = Object.keys(options).filter((name) => options[name])
  return [`N ${N}, C ${C}, OC ${OC}`, ...chosen].join(", ")
}
const normalsIf = (wanted: boolean, random: Random, n: number) =>
  wanted ? random.normals(n) : undefined

interface Forward extends Record<string, boolean> {
  bias: boolean
  pre: boolean
  residual: boolean
}
function forward(sizes: number[], options: Forward): Case {
  const [N, C, OC] = sizes as [number, number, number]
  return {
    kernel: "matmul_forward",
    title: title(sizes, options),
    draw(random) {
      const inp = random.normals(N * C)
      const weight = random.normals(OC * C)
      const bias = normalsIf(options.bias, random, OC)
      const residual = normalsIf(options.residual, random, N * OC)
      const out = overwritten(N * OC, sum(C + 2))
      return {
        args: {
          out,
          pre: options.pre ? overwritten(N * OC, sum(C + 1)) : NULL,
          inp,
          weight,
          bias: bias ?? NULL,
          residual: residual ?? NULL,
          scratch: room(N, C),
          N,
          C,
          OC,
        },
        outputs() {
          const pre = linear(inp, weight, bias, C, OC)
          const out = options.pre ? pre.map(gelu) : pre.slice()
          if (residual) for (let i = 0; i < out.length; i++) out[i]! += residual[i]!
          return { out, pre }
        },
      }
    },
  }
}

// Of N numbers of dinp, sums of OC products, each as far off as it may be, in random directions. In bf16
// they may be rounded before they are summed, or not: those of up to 4.5·√OC in size are then off by half
// an EPS_BF16 of it at most, over √3 on average, and sums by five times √N of that.
function columnSums(N: number, OC: number, each: Tolerance, isBf16: boolean): Tolerance {
  const { absolute, relative } = sum(N + 1, 4.5 * Math.sqrt(OC))
  const rounded = isBf16 ? ((5 / Math.sqrt(3)) * 4.5 * Math.sqrt(OC) * EPS_BF16) / 2 : 0
  return { absolute: absolute + Math.sqrt(N) * (each.absolute + rounded), relative }
}

interface BackwardInput extends Record<string, boolean> {
  pre: boolean
  accumulate: boolean
  sums: boolean
}
function backwardInput(sizes: number[], options: BackwardInput): Case {
  const [N, C, OC] = sizes as [number, number, number]
  const addsSums = N % 2 === 0
  return {
    kernel: "matmul_backward_input",
    title: title(sizes, options),
    draw(random) {
      const dout = random.normals(N * OC)
      const weight = random.normals(OC * C)
      // Where pre is given, inp was gelu(pre), and it is pre whose gradient is asked for.
      const inp = random.normals(N * C)
      const through = (x: Float64Array) => (options.pre ? x.map(gelu) : x)
      // gelu' has a rounding of its own, greatest where 1 - tanh² is small (see elementwise.ts).
      const dinp = gradient(random, N * C, options.accumulate, sum(OC + 1, options.pre ? 2 : 1))
      return {
        args: {
          dinp,
          sums: options.sums
            ? gradient(random, C, addsSums, columnSums(N, OC, dinp.tolerance, random.isBf16))
            : NULL,
          dout,
          weight,
          pre: options.pre ? inp : NULL,
          N,
          C,
          OC,
          accumulate_inp: Number(options.accumulate),
          accumulate: Number(addsSums),
        },
        gradients: {
          // What dinp was before is the gradient of a loss that takes inp as it is.
          loss(x) {
            const shifted = x.inp!.map((value, i) => value + x.shift![i % C]!)
            const before = (i: number) => (dinp.initial?.[i] ?? 0) * x.shift![i % C]!
            const out = linear(through(shifted), weight, undefined, C, OC)
            return shifted.reduce((total, _, i) => total + before(i), inner(dout, out))
          },
          at: { inp, shift: new Float32Array(C) },
          of: { dinp: "inp", ...(options.sums && { sums: "shift" }) },
        },
      }
    },
  }
}

interface BackwardWeight extends Record<string, boolean> {
  bias: boolean
  accumulate: boolean
}
function backwardWeight(sizes: number[], options: BackwardWeight): Case {
  const [N, C, OC] = sizes as [number, number, number]
  return {
    kernel: "matmul_backward_weight",
    title: title(sizes, options),
    draw(random) {
      const dout = random.normals(N * OC)
      const inp = random.normals(N * C)
      const weight = random.normals(OC * C)
      const bias = random.normals(OC)
      const part = (length: number) => gradient(random, length, options.accumulate, sum(N + 1))
      const gradients = {
        loss: (x: Point) => inner(dout, linear(inp, x.weight!, x.bias, C, OC)),
        at: { weight },
        of: { dweight: "weight" },
      }
      return {
        args: {
          dweight: part(OC * C),
          dbias: options.bias ? part(OC) : NULL,
          dout,
          inp,
          scratch: room(N, C),
          N,
          C,
          OC,
          accumulate: Number(options.accumulate),
        },
        gradients: options.bias
          ? { ...gradients, at: { weight, bias }, of: { ...gradients.of, dbias: "bias" } }
          : gradients,
      }
    },
  }
}

// One past what a kernel may keep in a cache: a few hundred along one dimension, little along others.
const BLOCKS = [
  [5, 385, 3],
  [17, 769, 7],
  [16, 384, 97],
  [15, 400, 65],
  [257, 5, 96],
  [265, 193, 3],
  [385, 3, 49],
  [3, 769, 95],
  [97, 66, 385],
  [1, 50, 1031],
]

// Whole tiles, as most of a model's products are, of few rows and of many.
const TILES = [
  [16, 64, 64],
  [64, 128, 64],
  [128, 64, 128],
  [256, 32, 192],
  [64, 768, 64],
  [192, 256, 16],
  [1, 768, 64],
  [8, 256, 128],
  [15, 64, 256],
]

// Parts of a tile of Hopper's own kernel, 128 or two such by 256, some with whole ones beside them. The
// first rows are odd in number, which the emulated cuBLASLt leaves to others.
const HOPPER = [
  [129, 72, 264],
  [300, 64, 256],
  [64, 200, 520],
]

export const matmulCases: Case[] = [
  ...[...tuples(48, 3), ...BLOCKS, ...TILES].flatMap((sizes, i) => [
    forward(sizes, { bias: bit(i, 0), pre: bit(i, 1), residual: bit(i, 2) }),
    backwardInput(sizes, { pre: i % 3 === 1, accumulate: i % 3 === 2, sums: bit(i, 0) }),
    backwardWeight(sizes, { bias: bit(i, 0), accumulate: bit(i, 1) }),
  ]),
  ...HOPPER.flatMap((sizes, i) => [
    forward(sizes, { bias: i !== 1, pre: true, residual: false }),
    forward(sizes, { bias: i !== 1, pre: false, residual: false }),
    backwardInput(sizes, { pre: true, accumulate: false, sums: true }),
    backwardInput(sizes, { pre: false, accumulate: false, sums: i === 1 }),
  ]),
  // For the blocks of a GPU several times what they make at once: tiles of Hopper's own kernel, rows.
  backwardInput([2, 17200, 8], { pre: true, accumulate: false, sums: true }),
  backwardWeight([35000, 1, 8], { bias: true, accumulate: true }),
]
