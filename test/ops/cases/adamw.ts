import { type Case, EPS, updated } from "../case.ts"
import { LENGTHS } from "../sizes.ts"

interface Options {
  step: number
  eps: number
  weightDecay: number
  gradScale: number
}

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
          n,
          lr,
          beta1,
          beta2,
          eps,
          weight_decay: weightDecay,
          grad_scale: gradScale,
          step,
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
