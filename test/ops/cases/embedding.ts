import { type Case, gradient, NULL, overwritten, rounding, sum } from "../case.ts"
import type { Random } from "../random.ts"
import { bit, tuples } from "../sizes.ts"

interface Sizes {
  B: number
  T: number
  C: number
  Vp: number
  maxT: number
}

// Rows that nobody looks up hold NaN: they must not be read.
function table(random: Random, rows: number, C: number, isRead: (row: number) => boolean) {
  return random.normals(rows * C).map((x, i) => (isRead(Math.floor(i / C)) ? x : Number.NaN))
}

function forward({ B, T, C, Vp, maxT }: Sizes, positions: number[] | undefined): Case {
  const first = positions ?? new Array<number>(B).fill(0)
  const place = positions ? `positions ${positions.join(" ")}` : "no positions"
  return {
    kernel: "embedding_forward",
    title: `B ${B}, T ${T}, C ${C}, Vp ${Vp}, maxT ${maxT}, ${place}`,
    draw(random) {
      const tokens = random.integers(B * T, Vp)
      const wte = table(random, Vp, C, (row) => tokens.includes(row))
      const wpe = table(random, maxT, C, (row) => first.some((at) => row >= at && row < at + T))
      return {
        args: {
          out: overwritten(B * T * C, rounding()),
          tokens,
          wte,
          wpe,
          positions: positions ? Int32Array.from(positions) : NULL,
          B,
          T,
          C,
        },
        outputs: () => ({
          out: Float64Array.from({ length: B * T * C }, (_, i) => {
            const row = Math.floor(i / C)
            const place = first[Math.floor(row / T)]! + (row % T)
            return wte[tokens[row]! * C + (i % C)]! + wpe[place * C + (i % C)]!
          }),
        }),
      }
    },
  }
}

function backward({ B, T, C, Vp, maxT }: Sizes, wteToo: boolean, wpeToo: boolean): Case {
  const adds = [wteToo && "accumulate wte", wpeToo && "accumulate wpe"].filter(Boolean)
  return {
    kernel: "embedding_backward",
    title: [`B ${B}, T ${T}, C ${C}, Vp ${Vp}, maxT ${maxT}`, ...adds].join(", "),
    draw(random) {
      const tokens = random.integers(B * T, Vp)
      const dout = random.normals(B * T * C)
      return {
        args: {
          dwte: gradient(random, Vp * C, wteToo, sum(B * T + 1)),
          dwpe: gradient(random, maxT * C, wpeToo, sum(B + 1)),
          dout,
          tokens,
          B,
          T,
          C,
          Vp,
          maxT,
          accumulate_wte: Number(wteToo),
          accumulate_wpe: Number(wpeToo),
        },
        gradients: {
          loss: ({ wte, wpe }) =>
            dout.reduce((total, d, i) => {
              const row = Math.floor(i / C)
              const token = wte![tokens[row]! * C + (i % C)]!
              return total + d * (token + wpe![(row % T) * C + (i % C)]!)
            }, 0),
          at: { wte: random.normals(Vp * C), wpe: random.normals(maxT * C) },
          of: { dwte: "wte", dwpe: "wpe" },
        },
      }
    },
  }
}

// C from the edges; few tokens, so that many rows share one, and some rows have none.
const edges: Case[] = tuples(16, 1).flatMap(([C], i) => {
  const T = [1, 3, 17, 30][i % 4]!
  const sizes = { B: 1 + (i % 3), T, C: C!, Vp: [1, 2, 5, 40][(i >> 1) % 4]!, maxT: T + (i % 6) }
  // The last ones that there are, and the ones before.
  const positions = Array.from({ length: sizes.B }, (_, b) => Math.max(0, sizes.maxT - T - b))
  return [forward(sizes, bit(i, 0) ? positions : undefined), backward(sizes, bit(i, 0), bit(i, 1))]
})

// Rows of whole vectors; more tokens than a block of threads, nearly all of one kind; a token's rows
// far apart.
const wide = { B: 2, T: 60, C: 768, Vp: 70, maxT: 64 }
const many = { B: 9, T: 200, C: 8, Vp: 2, maxT: 200 }
const far = { B: 2, T: 700, C: 24, Vp: 5, maxT: 701 }
const long = { B: 5, T: 1000, C: 8, Vp: 3, maxT: 1000 }
export const embeddingCases: Case[] = [
  ...edges,
  ...[forward(wide, undefined), backward(wide, true, false)],
  ...[forward(many, undefined), backward(many, false, true)],
  backward(far, true, false),
  backward(long, false, false),
]
