import { type Case, overwritten, rounding, sameAs, updated } from "../case.ts"
import type { Random } from "../random.ts"
import { LENGTHS } from "../sizes.ts"

export function gelu(x: number): number {
  return (x / 2) * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (x + 0.044715 * x ** 3)))
}

// The bend, both tails, and numbers whose cube leaves f32's range at either end.
function geluInputs(random: Random, n: number): Float32Array {
  const special = [0, -0, 1e-30, -1e-30, 9, -9, 20, -20, 1e5, -1e5, 1e15, -1e15]
  return random.normals(n, 3).map((x, i) => (i >= 16 && i % 3 === 0 ? special[(i / 3) % 12]! : x))
}

// 1 - tanh(u)² is off by half an EPS when tanh(u) is nearly 1, and is multiplied by x·u'(x), which
// reaches 30 before the difference vanishes; dout reaches 4.
const gradientRounding = rounding((30 / 2 / 4) * 4)

function geluForward(n: number): Case {
  return {
    kernel: "gelu_forward",
    title: `n ${n}`,
    draw(random) {
      const inp = geluInputs(random, n)
      return {
        args: { out: overwritten(n, rounding(2)), inp, n },
        outputs: () => ({ out: Float64Array.from(inp, gelu) }),
      }
    },
  }
}

function geluBackward(n: number, inPlace: boolean): Case {
  return {
    kernel: "gelu_backward",
    title: `n ${n}${inPlace ? ", dinp is dout" : ""}`,
    draw(random) {
      const inp = random.normals(n, 2)
      const dout = random.normals(n)
      return {
        args: {
          dinp: inPlace ? updated(dout, gradientRounding) : overwritten(n, gradientRounding),
          dout: inPlace ? sameAs("dinp") : dout,
          inp,
          n,
        },
        gradients: {
          loss: (x) => x.inp!.reduce((total, value, i) => total + dout[i]! * gelu(value), 0),
          at: { inp },
          of: { dinp: "inp" },
        },
      }
    },
  }
}

function addForward(n: number, inPlace: "a" | "b" | undefined): Case {
  return {
    kernel: "add_forward",
    title: `n ${n}${inPlace ? `, out is ${inPlace}` : ""}`,
    draw(random) {
      const a = random.normals(n)
      const b = random.normals(n)
      const out = inPlace
        ? updated(inPlace === "a" ? a : b, rounding())
        : overwritten(n, rounding())
      return {
        args: {
          out,
          a: inPlace === "a" ? sameAs("out") : a,
          b: inPlace === "b" ? sameAs("out") : b,
          n,
        },
        outputs: () => ({ out: Float64Array.from(a, (x, i) => x + b[i]!) }),
      }
    },
  }
}

export const elementwiseCases: Case[] = LENGTHS.flatMap((n, i) => [
  geluForward(n),
  geluBackward(n, false),
  geluBackward(n, true),
  addForward(n, ([undefined, "a", "b"] as const)[i % 3]),
])
