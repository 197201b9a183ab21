// The kernels that know both types of number.

import { fromBf16, roundToBf16 } from "../../../src/data/bf16.ts"
import { type Case, NULL, overwritten, type Tolerance, updated } from "../case.ts"
import { LENGTHS } from "../sizes.ts"
import { adamwCases, still, updateOf } from "./adamw.ts"

const EXACT: Tolerance = { absolute: 0, relative: 0 }
const nearest = (x: number) => fromBf16(roundToBf16(x))

// Ties to even from both sides, the largest numbers, infinities.
const SPECIAL = [1 + 2 ** -8, 1 + 3 * 2 ** -8, -1 - 2 ** -8, 3.3961775e38, 3.4e38, 1 / 0, -1 / 0, 0]

function round(n: number): Case {
  return {
    kernel: "bf16_round",
    title: `n ${n}`,
    draw(random) {
      const inp = random.normals(n)
      inp.set(SPECIAL.slice(0, n))
      return {
        args: { out: overwritten(n, EXACT), inp, n },
        outputs: () => ({ out: Float64Array.from(inp, nearest) }),
      }
    },
  }
}

function widen(n: number): Case {
  return {
    kernel: "bf16_widen",
    title: `n ${n}`,
    draw(random) {
      const inp = random.normals(n).map(nearest)
      inp.set(SPECIAL.slice(0, n).map(nearest))
      return {
        args: { out: overwritten(n, EXACT), inp, n },
        outputs: () => ({ out: Float64Array.from(inp) }),
      }
    },
  }
}

function hash(x: number): number {
  let h = Math.imul(x ^ (x >>> 16), 0x7feb352d)
  h = Math.imul(h ^ (h >>> 15), 0x846ca68b)
  return (h ^ (h >>> 16)) >>> 0
}

const f32 = new Float32Array(1)
const bits = new Uint32Array(f32.buffer)
function stochastic(x: number, random: number): number {
  f32[0] = x
  bits[0] = (bits[0]! + (random & 0xffff)) & 0xffff0000
  return f32[0]!
}

/** A learning rate of 0 leaves the master as it is, so that the rounding shows bit for bit. */
function rounding(n: number, isStochastic: boolean): Case {
  const { seed, step, stream } = { seed: 4_000_000_000, step: 7, stream: 3 }
  return {
    kernel: "adamw_update_bf16",
    title: `n ${n}, lr 0, ${isStochastic ? "stochastic" : "nearest"}`,
    draw(random) {
      const master = random.normals(n)
      const key = hash(stream + hash(step + hash(seed)))
      return {
        args: {
          ...{ param: overwritten(n, EXACT), master: updated(master, EXACT) },
          m: updated(new Float32Array(n), EXACT),
          v: updated(new Float32Array(n), EXACT),
          grad: new Float32Array(n),
          update: updateOf(0, 1, 0.5, 0.5, step),
          ...{ n, beta1: 0.5, beta2: 0.5, eps: 1, weight_decay: 0 },
          ...{ stochastic: Number(isStochastic), seed, stream },
        },
        outputs: () => ({
          master: Float64Array.from(master),
          param: Float64Array.from(master, (x, i) =>
            isStochastic ? stochastic(x, hash((i + hash(key)) | 0)) : nearest(x),
          ),
        }),
      }
    },
  }
}

/** adamw_update's case, on masters or on the parameters in bf16 themselves. */
function update(row: Case, withMaster: boolean, stochastic: number): Case {
  const options = [withMaster ? "master" : "no master", stochastic ? "stochastic" : "nearest"]
  return {
    kernel: "adamw_update_bf16",
    title: [row.title, ...options].join(", "),
    draw(random) {
      const drawn = row.draw(random)
      const { param: whole, ...args } = drawn.args
      if (typeof whole !== "object" || !("kind" in whole) || whole.kind !== "output") return drawn
      const before = withMaster ? whole.initial! : whole.initial!.map(nearest)
      whole.initial!.set(before)
      // To a neighbour, at random 2⁻⁷ away at most; sums that differ in their last bit may fall to
      // other neighbours.
      const tolerance = { ...whole.tolerance, relative: 2 ** -7 }
      const { outputs } = drawn
      return {
        args: {
          ...args,
          param: withMaster ? overwritten(before.length, tolerance) : updated(before, tolerance),
          master: withMaster ? whole : NULL,
          ...{ stochastic, seed: 42, stream: 1 },
        },
        outputs() {
          const { param, m, v } = outputs!()
          return { param: param!, m: m!, v: v!, ...(withMaster && { master: param! }) }
        },
      }
    },
  }
}

export const bf16Cases: Case[] = [
  ...LENGTHS.flatMap((n) => [round(n), widen(n), rounding(n, false), rounding(n, true)]),
  ...adamwCases.map((row, i) => update(row, i % 2 === 0, (i >> 1) % 2)),
  still(65, Number.NaN, { master: true }),
  still(65, Number.NaN, { master: false }),
]
