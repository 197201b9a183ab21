import {
  type Arguments,
  type Case,
  EPS,
  overwritten,
  sameAs,
  type Tolerance,
  updated,
} from "../case.ts"
import type { Random } from "../random.ts"
import { EDGES } from "../sizes.ts"

interface Sizes {
  N: number
  V: number
  Vp: number
}

/** -log softmax(logits)[target] over the first V columns of every row. */
function crossEntropy(
  logits: Float32Array | Float64Array,
  targets: Int32Array,
  { N, V, Vp }: Sizes,
) {
  return Float64Array.from({ length: N }, (_, n) => {
    const row = Float64Array.from(logits.subarray(n * Vp, n * Vp + V))
    const max = row.reduce((a, b) => Math.max(a, b))
    const total = row.reduce((sum, logit) => sum + Math.exp(logit - max), 0)
    return max + Math.log(total) - row[targets[n]!]!
  })
}

// The padding columns hold NaN: they must not be read.
function inputs(random: Random, { N, V, Vp }: Sizes, heat: number) {
  const logits = random.normals(N * Vp, heat).map((x, i) => (i % Vp < V ? x : Number.NaN))
  return { logits, targets: random.integers(N, V) }
}

// An exponential is off by its argument's rounding, up to the logits' range; V of them, all
// positive, wander by sqrt(V) when they are added up.
const lossTolerance = (V: number, heat: number): Tolerance => ({
  absolute: EPS * (4 + 4 * heat + Math.sqrt(V)),
  relative: 4 * EPS,
})
const gradientTolerance = (V: number, heat: number, scale: number): Tolerance => ({
  absolute: 2 * EPS * scale,
  relative: EPS * (4 + 8 * heat + Math.sqrt(V)),
})

const title = ({ N, V, Vp }: Sizes, heat: number, option = "") =>
  `N ${N}, V ${V}, Vp ${Vp}${heat > 1 ? `, logits to ${3 * heat}` : ""}${option}`

function gradients(logits: Float32Array, targets: Int32Array, sizes: Sizes, scale: number) {
  return (output: string) => ({
    loss: (x: Record<string, Float64Array>) =>
      scale * crossEntropy(x.logits!, targets, sizes).reduce((total, loss) => total + loss, 0),
    at: { logits },
    of: { [output]: "logits" },
  })
}

function forward(sizes: Sizes, heat: number): Case {
  return {
    kernel: "classifier_forward",
    title: title(sizes, heat),
    draw(random) {
      const { logits, targets } = inputs(random, sizes, heat)
      const losses = overwritten(sizes.N, lossTolerance(sizes.V, heat))
      return {
        args: { losses, logits, targets, ...sizes },
        outputs: () => ({ losses: crossEntropy(logits, targets, sizes) }),
      }
    },
  }
}

function backward(sizes: Sizes, heat: number, inPlace: boolean): Case {
  return {
    kernel: "classifier_backward",
    title: title(sizes, heat, inPlace ? ", dlogits is logits" : ""),
    draw(random) {
      const { logits, targets } = inputs(random, sizes, heat)
      const scale = 0.25
      const tolerance = gradientTolerance(sizes.V, heat, scale)
      const args: Arguments = inPlace
        ? { dlogits: updated(logits, tolerance), logits: sameAs("dlogits") }
        : { dlogits: overwritten(logits.length, tolerance), logits }
      return {
        args: { ...args, targets, ...sizes, scale },
        gradients: gradients(logits, targets, sizes, scale)("dlogits"),
      }
    },
  }
}

function fused(sizes: Sizes, heat: number): Case {
  return {
    kernel: "classifier_fused",
    title: title(sizes, heat),
    draw(random) {
      const { logits, targets } = inputs(random, sizes, heat)
      const scale = 0.125
      return {
        args: {
          losses: overwritten(sizes.N, lossTolerance(sizes.V, heat)),
          logits: updated(logits, gradientTolerance(sizes.V, heat, scale)),
          targets,
          ...sizes,
          scale,
        },
        outputs: () => ({ losses: crossEntropy(logits, targets, sizes) }),
        gradients: gradients(logits, targets, sizes, scale)("logits"),
      }
    },
  }
}

// V = Vp, one column of padding, and up to the next multiple of 64, as a model has it.
const shapes: Sizes[] = [...EDGES, 257, 1000].map((V, i) => ({
  N: [1, 2, 5, 17][i % 4]!,
  V,
  Vp: [V, V + 1, Math.ceil(V / 64) * 64][i % 3]!,
}))

export const classifierCases: Case[] = [
  ...shapes.map((sizes) => ({ sizes, heat: 1 })),
  // Rows that are longer than a block of threads, or than what it can hold of one.
  { sizes: { N: 3, V: 2500, Vp: 2560 }, heat: 1 },
  { sizes: { N: 2, V: 50257, Vp: 50304 }, heat: 1 },
  // exp(90) is more than f32 can hold, exp(-110) less; in f64 it is exp(710) and exp(-750).
  { sizes: { N: 3, V: 333, Vp: 333 }, heat: 20 },
  // GPT-2's rows, which fill a GPU's shared memory.
  { sizes: { N: 2, V: 50257, Vp: 50304 }, heat: 1 },
  { sizes: { N: 7, V: 50, Vp: 64 }, heat: 50 },
  { sizes: { N: 7, V: 50, Vp: 64 }, heat: 1000 },
  // More rows than a GPU keeps at a time.
  { sizes: { N: 600, V: 50, Vp: 64 }, heat: 1 },
].flatMap(({ sizes, heat }, i) => [
  forward(sizes, heat),
  backward(sizes, heat, i % 2 === 1),
  fused(sizes, heat),
])
