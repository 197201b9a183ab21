// The kernels of eight bits: tensors with their scales, and the products of such.

import { fromBf16 } from "../../../src/data/bf16.ts"
import { Bf16Random, EPS_BF16 } from "../bf16.ts"
import {
  type Arguments,
  type Case,
  EPS,
  gradient,
  NULL,
  overwritten,
  scratch,
  sum,
  type Tolerance,
  updated,
} from "../case.ts"
import { type Format, FP8, nearestFp8 } from "../fp8.ts"
import type { Random } from "../random.ts"
import { bit, tuples } from "../sizes.ts"
import { gelu } from "./elementwise.ts"

const EXACT: Tolerance = { absolute: 0, relative: 0 }
const SLOT = 32 // LLM_FP8_SLOT: 1/scale, scale, the largest so far, and of the steps before
const WINDOW = 16

/** The power of two that brings `most` to the largest number or up to half below it; none for 0. */
function scaleFor(most: number, largest: number): number | undefined {
  if (most === 0) return undefined
  return 2 ** Math.min(126, Math.max(-126, Math.floor(Math.log2(Math.fround(largest / most)))))
}

const maximum = (numbers: Iterable<number>) => {
  let most = 0
  for (const x of numbers) if (!(x <= most)) most = x // NaN too
  return most
}

/** A slot with these numbers, and NaN where nothing is read. */
function slotOf(numbers: number[]): Float32Array {
  const slot = new Float32Array(SLOT).fill(Number.NaN)
  slot.set(numbers)
  return slot
}
/** The slot of a factor. */
const factor = (scale: number) => slotOf([1 / scale])

function scales(count: number, { largest }: Format): Case {
  return {
    kernel: "fp8_scales",
    title: `count ${count}, largest ${largest}`,
    draw(random) {
      const slots = new Float32Array(count * SLOT)
      for (let i = 0; i < count; i++) {
        const size = 2 ** (random.integer(60) - 40)
        const sizes = random.normals(WINDOW).map((x) => Math.abs(x) * size)
        slots.set(slotOf([Number.NaN, Number.NaN, ...sizes]), i * SLOT)
        // No gradient yet, and numbers beyond what a scale can be.
        if (i % 7 === 1) slots.set([0.25, 4, ...new Float32Array(WINDOW)], i * SLOT)
        if (i % 7 === 2) slots.set([Number.NaN, 0, ...new Float32Array(WINDOW)], i * SLOT)
        if (i % 7 === 3) slots[i * SLOT + 5] = Number.POSITIVE_INFINITY
        if (i % 7 === 5) slots.fill(2 ** -140, i * SLOT + 2, i * SLOT + 2 + WINDOW)
      }
      return {
        args: { slots: updated(slots, EXACT), count, largest },
        outputs() {
          const after = Float64Array.from(slots)
          for (let i = 0; i < count; i++) {
            const own = after.subarray(i * SLOT, (i + 1) * SLOT)
            own.copyWithin(3, 2, 2 + WINDOW)
            own[2] = 0
            const unmet = own[1] === 0 ? 1 : undefined
            const scale = scaleFor(maximum(own.subarray(3, 3 + WINDOW)), largest) ?? unmet
            if (scale) own.set([1 / scale, scale])
          }
          return { slots: after }
        },
      }
    },
  }
}

interface Shape {
  N: number
  C: number
  out: boolean
  transposed: boolean
  calibrate: boolean
}
const shapeTitle = ({ N, C, ...options }: Shape, more: Record<string, boolean>) => {
  const chosen = Object.entries({ ...options, ...more }).filter(([, isOn]) => isOn)
  return [`N ${N}, C ${C}`, ...chosen.map(([name]) => name)].join(", ")
}

// Where x is computed, its last bit may be another; what is rounded may then fall to the neighbour,
// which is 2^-fraction away at most, or by the smallest number there is.
const COMPUTED: Record<"e4m3" | "e5m2", Tolerance> = {
  e4m3: { absolute: FP8.e4m3.numbers[1]!, relative: 2 ** -3 },
  e5m2: { absolute: FP8.e5m2.numbers[1]!, relative: 2 ** -2 },
}

/** The product rule on x/2 and 1 + tanh(u(x)). */
function geluGradient(x: number): number {
  const slope = Math.sqrt(2 / Math.PI)
  const tanh = Math.tanh(slope * (x + 0.044715 * x ** 3))
  return 0.5 * (1 + tanh) + 0.5 * x * (1 - tanh ** 2) * slope * (1 + 3 * 0.044715 * x ** 2)
}

/** What both kinds of tensor have in common: arguments, and the outputs by the formula for x. */
function stored(
  random: Random,
  type: "e4m3" | "e5m2",
  { N, C, out, transposed, calibrate }: Shape,
  isComputed: boolean,
) {
  const format = FP8[type]
  const tolerance = isComputed ? COMPUTED[type] : EXACT
  // Of a tensor whose numbers are up to 4 in size, unless a scale has yet to be found.
  const scale = calibrate ? Number.NaN : scaleFor(4, format.largest)!
  const before = slotOf([1 / scale, scale, 4 * random.uniform()])
  return {
    args: {
      out: out ? overwritten(N * C, tolerance) : NULL,
      transposed: transposed ? overwritten(N * C, tolerance) : NULL,
      slot: updated(before, isComputed ? { absolute: 0, relative: 8 * EPS } : EXACT),
      ...{ N, C, calibrate: Number(calibrate) },
    },
    outputs(x: Float64Array) {
      const after = Float64Array.from(before)
      after[2] = maximum([after[2]!, ...x.map(Math.abs)])
      const scale = calibrate ? scaleFor(after[2]!, format.largest) : undefined
      if (scale) after.set([1 / scale, scale])
      const q = x.map((value) => nearestFp8(Math.fround(value) * Math.fround(after[1]!), format))
      const turned = q.map((_, at) => q[(at % N) * C + Math.floor(at / N)]!)
      return { ...(out && { out: q }), ...(transposed && { transposed: turned }), slot: after }
    },
  }
}

function activation(shape: Shape, isGelu: boolean): Case {
  const title = shapeTitle(shape, { gelu: isGelu })
  return {
    kernel: "e4m3_quantize",
    title,
    draw() {
      const random = new Bf16Random(`e4m3_quantize ${title}`)
      const inp = random.normals(shape.N * shape.C)
      const { args, outputs } = stored(random, "e4m3", shape, isGelu)
      return {
        args: { ...args, inp, gelu: Number(isGelu) },
        outputs: () => outputs(Float64Array.from(inp, (x) => (isGelu ? gelu(x) : x))),
      }
    },
  }
}

/** Every bf16 but NaN: ties, infinities, and what is too small or too large for eight bits. */
function everyNumber(type: "e4m3" | "e5m2"): Case {
  const format = FP8[type]
  const [N, C] = [256, 256]
  return {
    kernel: `${type}_quantize`,
    title: "every number",
    draw() {
      const codes = Array.from({ length: N * C }, (_, i) => i)
      const inp = Float32Array.from(codes, fromBf16)
      const slot = slotOf([1, 1, 0])
      const more: Arguments =
        type === "e4m3"
          ? { gelu: 0 }
          : { sums: NULL, pre: NULL, scratch: scratch((N / 128) * C), accumulate: 0 }
      return {
        args: {
          ...{ out: overwritten(N * C, EXACT), transposed: NULL, slot: updated(slot, EXACT) },
          ...{ inp, N, C, calibrate: 0, ...more },
        },
        outputs() {
          const after = Float64Array.from(slot)
          after[2] = Number.NaN
          return { out: Float64Array.from(inp, (x) => nearestFp8(x, format)), slot: after }
        },
      }
    },
  }
}

interface GradientOptions extends Record<string, boolean> {
  pre: boolean
  sums: boolean
  accumulate: boolean
}
function gradients(shape: Shape, options: GradientOptions): Case {
  const title = shapeTitle(shape, options)
  const { N, C } = shape
  return {
    kernel: "e5m2_quantize",
    title,
    draw() {
      const random = new Bf16Random(`e5m2_quantize ${title}`)
      const inp = random.normals(N * C)
      const pre = options.pre ? random.normals(N * C) : undefined
      const { args, outputs } = stored(random, "e5m2", shape, options.pre)
      const sums = gradient(random, C, options.accumulate, sum(N, 1.13))
      const before = sums.initial
      return {
        args: {
          ...{ ...args, inp, pre: pre ?? NULL, accumulate: Number(options.accumulate) },
          sums: options.sums ? sums : NULL,
          scratch: scratch(Math.ceil(N / 128) * C), // LLM_FP8_SCRATCH
        },
        outputs() {
          const x = Float64Array.from(inp, (d, i) => (pre ? d * geluGradient(pre[i]!) : d))
          const total = Float64Array.from({ length: C }, (_, c) => before?.[c] ?? 0)
          x.forEach((value, i) => {
            total[i % C]! += value
          })
          return { ...outputs(x), ...(options.sums && { sums: total }) }
        },
      }
    },
  }
}

/** Random numbers of a type, of about unit size with this slot. */
function tensor(random: Random, n: number, format: Format, scale: number): Float32Array {
  return random.normals(n).map((x) => nearestFp8(x * scale, format))
}

/** left (rows,inner)·right (columns,inner)ᵀ by both scales. */
function product(
  [left, right]: [Float32Array, Float32Array],
  slots: [Float32Array, Float32Array],
  [rows, columns, inner]: [number, number, number],
  add: (at: number, column: number) => number,
): Float64Array {
  return Float64Array.from({ length: rows * columns }, (_, at) => {
    const [i, j] = [Math.floor(at / columns), at % columns]
    let total = 0
    for (let k = 0; k < inner; k++) total += left[i * inner + k]! * right[j * inner + k]!
    return total * slots[0][0]! * slots[1][0]! + add(at, j)
  })
}

const inBf16 = ({ absolute, relative }: Tolerance): Tolerance => {
  return { absolute, relative: relative + EPS_BF16 }
}
const sizesTitle = ([N, C, OC]: number[], option: string) => `N ${N}, C ${C}, OC ${OC}${option}`

function forward(sizes: number[], hasResidual: boolean): Case {
  const [N, C, OC] = sizes as [number, number, number]
  const title = sizesTitle(sizes, hasResidual ? ", residual" : "")
  return {
    kernel: "fp8_matmul_forward",
    title,
    draw() {
      const random = new Bf16Random(`fp8_matmul_forward ${title}`)
      const [inpSlot, weightSlot] = [factor(64), factor(32)]
      const inp = tensor(random, N * C, FP8.e4m3, 64)
      const weight = tensor(random, OC * C, FP8.e4m3, 32)
      const bias = random.normals(OC)
      const residual = hasResidual ? random.normals(N * OC) : undefined
      return {
        args: {
          out: overwritten(N * OC, inBf16(sum(C + 2))),
          ...{ inp, weight, inp_slot: inpSlot, weight_slot: weightSlot, bias },
          ...{ residual: residual ?? NULL, N, C, OC },
        },
        outputs: () => ({
          out: product([inp, weight], [inpSlot, weightSlot], [N, OC, C], (at, o) => {
            return bias[o]! + (residual?.[at] ?? 0)
          }),
        }),
      }
    },
  }
}

function backwardInput(sizes: number[], accumulate: boolean): Case {
  const [N, C, OC] = sizes as [number, number, number]
  const title = sizesTitle(sizes, accumulate ? ", accumulate" : "")
  return {
    kernel: "fp8_matmul_backward_input",
    title,
    draw() {
      const random = new Bf16Random(`fp8_matmul_backward_input ${title}`)
      const [doutSlot, weightSlot] = [factor(512), factor(32)]
      const dout = tensor(random, N * OC, FP8.e5m2, 512)
      const weight = tensor(random, C * OC, FP8.e4m3, 32)
      const dinp = gradient(random, N * C, accumulate, inBf16(sum(OC + 1)))
      const before = dinp.initial
      return {
        args: {
          ...{ dinp, dout, weight, dout_slot: doutSlot, weight_slot: weightSlot },
          ...{ N, C, OC, accumulate: Number(accumulate) },
        },
        outputs: () => ({
          dinp: product([dout, weight], [doutSlot, weightSlot], [N, C, OC], (at) => {
            return before?.[at] ?? 0
          }),
        }),
      }
    },
  }
}

function backwardWeight(sizes: number[], accumulate: boolean): Case {
  const [N, C, OC] = sizes as [number, number, number]
  const title = sizesTitle(sizes, accumulate ? ", accumulate" : "")
  return {
    kernel: "fp8_matmul_backward_weight",
    title,
    draw(random) {
      const [doutSlot, inpSlot] = [factor(512), factor(64)]
      const dout = tensor(random, OC * N, FP8.e5m2, 512)
      const inp = tensor(random, C * N, FP8.e4m3, 64)
      const dweight = gradient(random, OC * C, accumulate, sum(N + 1))
      const before = dweight.initial
      return {
        args: {
          ...{ dweight, dout, inp, dout_slot: doutSlot, inp_slot: inpSlot },
          ...{ N, C, OC, accumulate: Number(accumulate) },
        },
        outputs: () => ({
          dweight: product([dout, inp], [doutSlot, inpSlot], [OC, C, N], (at) => {
            return before?.[at] ?? 0
          }),
        }),
      }
    },
  }
}

const shapes = [...tuples(24, 2), [64, 768], [384, 64], [130, 264], [256, 128]]
const quantized = shapes.flatMap(([N, C], i): Case[] => {
  const shape = (place: number): Shape => {
    const [out, transposed] = [!bit(i, place) || bit(i, 1), bit(i, place)]
    return { N: N!, C: C!, out, transposed, calibrate: bit(i, 2) }
  }
  const options = { pre: bit(i, 1), sums: bit(i, 3) || i % 5 === 0, accumulate: bit(i, 4) }
  return [activation(shape(0), bit(i, 3)), gradients(shape(0), options)]
})
const products = [
  ...tuples(16, 3),
  [64, 128, 48],
  [96, 64, 160],
  [32, 64, 16],
  [48, 32, 48],
].flatMap((sizes, i) => [
  forward(sizes, bit(i, 0)),
  backwardInput(sizes, bit(i, 1)),
  backwardWeight(sizes, bit(i, 0)),
])

export const fp8Cases: Case[] = [
  ...[1, 2, 9, 33].flatMap((count) => [scales(count, FP8.e4m3), scales(count, FP8.e5m2)]),
  ...quantized,
  ...[everyNumber("e4m3"), everyNumber("e5m2")],
  ...products,
]
