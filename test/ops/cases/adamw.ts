import { fromBf16, roundToBf16 } from "../../../src/data/bf16.ts"
import { type Case, EPS, EPS64, type Output, overwritten, updated } from "../case.ts"
import { LENGTHS } from "../sizes.ts"

interface Options {
  step: number
  eps: number
  weightDecay: number
  gradScale: number
}

/** What update_begin makes for a step. */
export const updateOf = (lr: number, scale: number, beta1: number, beta2: number, step: number) =>
  Float64Array.of(lr, scale, 1 / (1 - beta1 ** step), 1 / (1 - beta2 ** step), step)

function update(n: number, options: Options, untouched = false): Case {
  const { step, gradScale } = options
  const lr = Math.fround(1e-3)
  const beta1 = Math.fround(0.9)
  const beta2 = Math.fround(0.95)
  const eps = Math.fround(options.eps)
  const weightDecay = Math.fround(options.weightDecay)
  const settings = Object.entries(options)
    .map((option) => option.join(" "))
    .join(", ")
  const state = untouched ? ", no gradient so far" : ""
  return {
    kernel: "adamw_update",
    title: `n ${n}, ${settings}${state}`,
    draw(random) {
      const param = random.normals(n)
      const m = random.normals(n, untouched ? 0 : 0.1)
      const v = untouched ? new Float32Array(n) : random.uniforms(n, 0.001, 0.1)
      const grad = random.normals(n, untouched ? 0 : 1)
      // The direction, m/sqrt(v) with both corrected, stays below 64 for these draws.
      const direction = 64 * lr * 16 * EPS
      return {
        args: {
          param: updated(param, { absolute: direction, relative: 2 * EPS }),
          m: updated(m, { absolute: EPS, relative: 4 * EPS }),
          v: updated(v, { absolute: 0, relative: 8 * EPS }), // all terms are positive
          grad,
          update: updateOf(lr, gradScale, beta1, beta2, step),
          n,
          beta1,
          beta2,
          eps,
          weight_decay: weightDecay,
        },
        outputs() {
          const newM = new Float64Array(n)
          const newV = new Float64Array(n)
          const newParam = Float64Array.from(param, (p, i) => {
            const g = grad[i]! * gradScale
            newM[i] = beta1 * m[i]! + (1 - beta1) * g
            newV[i] = beta2 * v[i]! + (1 - beta2) * g * g
            const mean = newM[i]! / (1 - beta1 ** step)
            const square = newV[i]! / (1 - beta2 ** step)
            return p - lr * (mean / (Math.sqrt(square) + eps) + weightDecay * p)
          })
          return { param: newParam, m: newM, v: newV }
        },
      }
    },
  }
}

/** No update: whatever the gradients are, all stays as it is. */
export function still(n: number, step: number, more?: { master: boolean }): Case {
  return {
    kernel: more ? "adamw_update_bf16" : "adamw_update",
    title: `n ${n}, step ${step}${more?.master ? ", master" : ""}`,
    draw(random) {
      const kept = (numbers: Float32Array) => updated(numbers, { absolute: 0, relative: 0 })
      const outputs = { param: random.normals(n).map(exact), m: random.normals(n) }
      const master = more?.master ? { master: random.normals(n) } : {}
      const before = { ...outputs, v: random.uniforms(n, 0.001, 0.1), ...master }
      return {
        args: {
          ...(more && { master: 0, stochastic: 1, seed: 42, stream: 1 }),
          ...Object.fromEntries(Object.entries(before).map(([name, x]) => [name, kept(x)])),
          grad: new Float32Array(n).fill(Number.NaN),
          update: updateOf(1, 1, 0.9, 0.95, step),
          ...{ n, beta1: 0.9, beta2: 0.95, eps: 1e-8, weight_decay: 0.1 },
        },
        outputs: () =>
          Object.fromEntries(Object.entries(before).map(([k, x]) => [k, Float64Array.from(x)])),
      }
    },
  }
}
const exact = (x: number) => fromBf16(roundToBf16(x))

interface Beginning {
  step?: number
  /** Of the norm; 0: never. */
  clip?: number
  /** Numbers in place of a square, and of the loss. */
  square?: number
  loss?: number
}

function begin(count: number, given: Beginning): Case {
  const { step = 1, clip = 0, square, loss = 5 } = given
  const [lr, beta1, beta2] = [3e-4, Math.fround(0.9), Math.fround(0.999)]
  const settings = Object.entries(given).map((entry) => entry.join(" "))
  return {
    kernel: "update_begin",
    title: [`count ${count}`, ...settings].join(", "),
    draw(random) {
      const squares = Float64Array.from(random.uniforms(count, 0.5, 2))
      if (square !== undefined) squares[count - 1] = square
      const sum = squares.reduce((total, x) => total + x, 0)
      const norm = Math.sqrt(sum)
      // beta^step is off by a rounding for each step, as it may be made by multiplying; 1 - beta^step
      // by as much, and one of 1.
      const power = beta2 ** step
      const relative = (4 * EPS64 * (1 + step * power)) / (1 - power)
      const made = (length: number): Output => {
        return { ...overwritten(length, { absolute: 0, relative }), type: "f64" }
      }
      return {
        args: {
          ...{ update: made(5), norm: made(1), controls: Float64Array.of(lr, step, clip) },
          ...{ squares, loss: Float32Array.of(loss), count, beta1, beta2 },
        },
        outputs() {
          const scale = clip <= 0 || norm <= clip ? 1 : clip / norm
          const update = updateOf(lr, scale, beta1, beta2, step)
          if (!Number.isFinite(norm) || !Number.isFinite(loss)) update[4] = Number.NaN
          return { update, norm: Float64Array.of(norm) }
        },
      }
    },
  }
}

const NONE = [Number.NaN, Number.POSITIVE_INFINITY]
export const beginCases: Case[] = [
  ...[1, 2, 10, 1000, 1_000_000].map((step, i) => begin(1 + 5 * i, { step, clip: i % 3 })),
  ...NONE.flatMap((x) => [begin(16, { square: x, clip: 1 }), begin(16, { loss: x })]),
  begin(3, { loss: Number.NEGATIVE_INFINITY, square: Number.NaN }),
]

export const adamwCases: Case[] = [
  ...LENGTHS.map((n, i) =>
    update(n, {
      step: [1, 2, 10, 1000, 1_000_000][i % 5]!,
      eps: [1e-8, 1e-2][i % 2]!,
      weightDecay: [0, 0.1, 0.1, 0][i % 4]!,
      gradScale: [1, 0.25, 0.0078125][i % 3]!,
    }),
  ),
  update(65, { step: 1, eps: 1e-8, weightDecay: 0.1, gradScale: 1 }, true),
]
