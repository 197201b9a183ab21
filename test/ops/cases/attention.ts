import { sumsOf } from "../bf16.ts"
import {
  type Case,
  EPS,
  gradient,
  NULL,
  overwritten,
  scratch,
  type Tolerance,
  updated,
} from "../case.ts"
import { bit } from "../sizes.ts"

type Numbers = Float32Array | Float64Array
interface Sizes {
  B: number
  T: number
  NH: number
  HS: number
}

/** One row of softmax(q·kᵀ/sqrt(HS))·v over the first `rows` of k and v, which are `stride` apart. */
function attend(q: Numbers, k: Numbers, v: Numbers, rows: number, stride: number, HS: number) {
  const scores = new Float64Array(rows)
  for (let row = 0; row < rows; row++) {
    let dot = 0
    for (let i = 0; i < HS; i++) dot += q[i]! * k[row * stride + i]!
    scores[row] = dot / Math.sqrt(HS)
  }
  const max = scores.reduce((a, b) => Math.max(a, b))
  const total = scores.reduce((sum, score) => sum + Math.exp(score - max), 0)
  const out = new Float64Array(HS)
  for (let row = 0; row < rows; row++) {
    const probability = Math.exp(scores[row]! - max) / total
    for (let i = 0; i < HS; i++) out[i]! += probability * v[row * stride + i]!
  }
  return { out, lse: max + Math.log(total) }
}

function attention(qkv: Numbers, { B, T, NH, HS }: Sizes) {
  const C = NH * HS
  const out = new Float64Array(B * T * C)
  const lse = new Float64Array(B * NH * T)
  for (let b = 0; b < B; b++) {
    for (let h = 0; h < NH; h++) {
      const head = qkv.subarray(b * T * 3 * C + h * HS)
      for (let t = 0; t < T; t++) {
        const q = head.subarray(t * 3 * C)
        const row = attend(q, head.subarray(C), head.subarray(2 * C), t + 1, 3 * C, HS)
        out.set(row.out, (b * T + t) * C + h * HS)
        lse[(b * NH + h) * T + t] = row.lse
      }
    }
  }
  return { out, lse }
}

// A score is a sum of HS products over sqrt(HS): rounded by sqrt(HS)·EPS, and so, relatively, is its
// exponential; the sum over T of them, all positive, wanders by sqrt(T)·EPS. Scores grow with
// `heat`, the size of q and k, to heat²: their roundings too.
function tolerance(T: number, HS: number, heat = 1, size = 1): Tolerance {
  const steps = 8 + 2 * Math.sqrt(HS) * heat ** 2 + Math.sqrt(T)
  return { absolute: EPS * steps * size, relative: 4 * EPS }
}

const title = ({ B, T, NH, HS }: Sizes, option?: string) =>
  [`B ${B}, T ${T}, NH ${NH}, HS ${HS}`, option].filter(Boolean).join(", ")

function forward(sizes: Sizes, withLse: boolean, heat: number): Case {
  const { B, T, NH, HS } = sizes
  const C = NH * HS
  const options = [!withLse && "no lse", heat > 1 && `scores to ${3 * heat ** 2}`].filter(Boolean)
  return {
    kernel: "attention_forward",
    title: title(sizes, options.join(", ")),
    draw(random) {
      const normals = random.normals(B * T * 3 * C)
      const qkv = random.stored(normals.map((x, i) => (i % (3 * C) < 2 * C ? x * heat : x)))
      return {
        args: {
          out: overwritten(B * T * C, tolerance(T, HS, heat)),
          lse: withLse ? overwritten(B * NH * T, tolerance(T, HS, heat)) : NULL,
          qkv,
          B,
          T,
          C,
          NH,
        },
        outputs: () => attention(qkv, sizes),
      }
    },
  }
}

function backward(sizes: Sizes, withSums: boolean, accumulate: boolean): Case {
  const { B, T, NH, HS } = sizes
  const C = NH * HS
  const options = [withSums && "sums", accumulate && "accumulate"].filter(Boolean)
  return {
    kernel: "attention_backward",
    title: title(sizes, options.join(", ")),
    draw(random) {
      const qkv = random.normals(B * T * 3 * C)
      const dout = random.normals(B * T * C)
      const { out, lse } = attention(qkv, sizes)
      // A value's gradient is a sum of up to T numbers of unit size.
      const each = tolerance(T, HS, 1, 4)
      const total = sumsOf(B * T, each, random.isBf16, "attention_backward")
      return {
        args: {
          dqkv: overwritten(B * T * 3 * C, each),
          sums: withSums ? gradient(random, 3 * C, accumulate, total) : NULL,
          dout,
          qkv,
          out: Float32Array.from(out),
          lse: Float32Array.from(lse),
          scratch: scratch(B * T * (NH + (random.isBf16 ? 2 * C : 0))), // LLM_ATTENTION_SCRATCH
          B,
          T,
          C,
          NH,
          accumulate: Number(accumulate),
        },
        gradients: {
          loss(x) {
            const biased = x.qkv!.map((value, i) => value + x.bias![i % (3 * C)]!)
            return attention(biased, sizes).out.reduce((total, o, i) => total + o * dout[i]!, 0)
          },
          at: { qkv, bias: new Float32Array(3 * C) },
          of: { dqkv: "qkv", ...(withSums && { sums: "bias" }) },
        },
      }
    },
  }
}

interface CacheSizes extends Sizes {
  maxT: number
  /** Of each sequence's first new token. */
  positions: number[]
}

function decode({ B, T, NH, HS, maxT, positions }: CacheSizes): Case {
  const C = NH * HS
  return {
    kernel: "attention_decode",
    title: `${title({ B, T, NH, HS })}, positions ${positions.join(" ")} of ${maxT}`,
    draw(random) {
      const qkv = random.normals(B * T * 3 * C)
      // From its position on a sequence's caches hold nothing yet.
      const isFilled = (row: number) => row % maxT < positions[Math.floor(row / maxT)]!
      const cache = () =>
        random.normals(B * maxT * C).map((x, i) => (isFilled(Math.floor(i / C)) ? x : Number.NaN))
      const k = cache()
      const v = cache()
      const stored = { absolute: 0, relative: 0 } // copies
      return {
        args: {
          out: overwritten(B * T * C, tolerance(Math.max(...positions) + T, HS)),
          kcache: updated(k, stored),
          vcache: updated(v, stored),
          qkv,
          positions: Int32Array.from(positions),
          scratch: scratch(B * NH * maxT),
          ...{ B, T, C, NH, maxT },
        },
        outputs() {
          const kcache = Float64Array.from(k)
          const vcache = Float64Array.from(v)
          const out = new Float64Array(B * T * C)
          for (let token = 0; token < B * T; token++) {
            const b = Math.floor(token / T)
            const row = positions[b]! + (token % T)
            const own = qkv.subarray(token * 3 * C, (token + 1) * 3 * C)
            const [keys, values] = [kcache, vcache].map((x) => x.subarray(b * maxT * C))
            keys!.set(own.subarray(C, 2 * C), row * C)
            values!.set(own.subarray(2 * C), row * C)
            for (let at = 0; at < C; at += HS) {
              const [q, k, v] = [own, keys!, values!].map((x) => x.subarray(at))
              out.set(attend(q!, k!, v!, row + 1, C, HS).out, token * C + at)
            }
          }
          return { out, kcache, vcache }
        },
      }
    },
  }
}

const oneToken = (NH: number, HS: number, position: number, maxT: number) =>
  decode({ B: 1, T: 1, NH, HS, maxT, positions: [position] })

// T around tiles of 64 and 96 rows; heads of every width that a tile, a vector or its end may have.
const TIMES = [1, 2, 3, 7, 13, 16, 17, 31, 33, 48, 63, 64, 65, 95, 96, 97, 127, 128, 129, 130]
const HEADS = [1, 2, 3, 7, 8, 13, 16, 17, 31, 32, 47, 48, 64, 65, 80, 96, 127, 128]

const shapes: Sizes[] = [
  ...TIMES.map((T, i) => ({ B: 1 + (i % 2), T, NH: 1 + (i % 3), HS: HEADS[(i * 5) % 18]! })),
  ...HEADS.map((HS, i) => ({ B: 1 + (i % 3), T: TIMES[(i * 3) % 16]!, NH: 1 + (i % 2), HS })),
  { B: 1, T: 200, NH: 1, HS: 20 },
  { B: 1, T: 19, NH: 2, HS: 255 },
  { B: 1, T: 19, NH: 1, HS: 256 },
  { B: 1, T: 19, NH: 2, HS: 257 },
  { B: 70, T: 1, NH: 1, HS: 64 }, // whose sums a GPU makes in another way
  // Heads as models have them, around blocks of 64 and of 128 rows.
  ...[63, 64, 65, 127, 128, 129, 200].flatMap((T, i) => [
    { B: 1 + (i % 2), T, NH: 1 + ((i + 1) % 2), HS: 64 },
    { B: 1, T, NH: 1 + (i % 2), HS: [128, 96, 40][i % 3]! },
  ]),
]

export const attentionCases: Case[] = [
  ...shapes.flatMap((sizes, i) => [
    forward(sizes, !bit(i, 1), 1),
    backward(sizes, i % 4 !== 3, bit(i, 0)),
  ]),
  // Exponentials that f32 (beyond 89) and f64 (beyond 710) cannot hold.
  ...[5, 64, 129].map((T) => forward({ B: 1, T, NH: 2, HS: 16 }, true, T === 64 ? 20 : 6)),
  ...HEADS.map((HS, i) => oneToken(1 + (i % 3), HS, TIMES[i]! - 1, TIMES[i]! + (i % 3))),
  oneToken(2, 257, 40, 41),
  // Caches of more rows than one block of threads takes on, and up to the last of them.
  ...[254, 255, 256, 511, 512, 600].map((position, i) =>
    oneToken(1 + (i % 2), [64, 8, 13, 128, 16, 130][i]!, position, 601),
  ),
  decode({ B: 3, T: 1, NH: 2, HS: 20, maxT: 300, positions: [299, 0, 256] }),
  decode({ B: 3, T: 70, NH: 2, HS: 64, maxT: 200, positions: [0, 59, 130] }),
  decode({ B: 3, T: 1, NH: 2, HS: 64, maxT: 1024, positions: [1023, 600, 5] }),
  decode({ B: 1, T: 1, NH: 1, HS: 128, maxT: 2048, positions: [2000] }),
  // Several sequences of different lengths, several new tokens each, some up to the last row.
  ...HEADS.map((HS, i) => {
    const [B, T] = [1 + (i % 4), TIMES[(i * 7) % 16]!]
    const maxT = T + 3 + i
    const positions = Array.from({ length: B }, (_, b) => [maxT - T, 0, 2, i][(b + i) % 4]!)
    return decode({ B, T, NH: 1 + (i % 3), HS, maxT, positions })
  }),
]
