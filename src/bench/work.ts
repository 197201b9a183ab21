// What a kernel has to do, from its sizes: the floating-point operations and the memory traffic that
// no implementation can avoid. Both benchmarks divide these by time.

import { assert } from "../errors.ts"
import { type Contract, kernelOf, type Precision, type Signature } from "../native/contract.ts"
import { type Arg, type Call, isTensor } from "../program/tensor.ts"

export const CLASSES = [
  "products",
  "attention",
  "norms",
  "classifier",
  "optimizer",
  "rest",
  "set-up",
] as const
export type OpClass = (typeof CLASSES)[number]

/** A call's scalars by the contract's names, and its pointers as addresses, 0 for NULL. */
export type Arguments = Record<string, number>

interface Kernel {
  class: OpClass
  /** Elements behind each pointer. */
  elements: (s: Arguments) => Record<string, number>
  /** Multiplications and additions of what a step needs; none where only memory counts. */
  flops?: (s: Arguments) => number
  /** Elements read or written, where that is not each of a pointer's once. */
  touched?: (s: Arguments) => Record<string, number>
}

const pick =
  (...names: string[]) =>
  (value: number) => {
    return Object.fromEntries(names.map((name) => [name, value]))
  }
const product = ({ N, C, OC }: Arguments) => 2 * N! * C! * OC!
const scratch = ({ N, C }: Arguments) => Math.ceil(N! / 64) * 64 * C! // LLM_MATMUL_SCRATCH
// Two products over the causal half. The gradient needs four; scores computed again do not count.
const attention = ({ B, T, C }: Arguments) => 2 * B! * T! * (T! + 1) * C!
const twice = (n: number) => 2 * n // read and written

export const KERNELS: Record<string, Kernel> = {
  embedding_forward: {
    class: "rest",
    elements: ({ B, T, C, Vp, maxT }) => {
      return { out: B! * T! * C!, tokens: B! * T!, wte: Vp! * C!, wpe: maxT! * C!, positions: B! }
    },
    touched: ({ B, T, C }) => ({ wte: B! * T! * C!, wpe: T! * C! }),
  },
  embedding_backward: {
    class: "rest",
    elements: ({ B, T, C, Vp, maxT }) => {
      return { dwte: Vp! * C!, dwpe: maxT! * C!, dout: B! * T! * C!, tokens: B! * T! }
    },
    touched: ({ B, T, C, Vp, maxT, accumulate_wte, accumulate_wpe }) => ({
      dwte: accumulate_wte ? twice(B! * T! * C!) : Vp! * C!,
      dwpe: accumulate_wpe ? twice(T! * C!) : maxT! * C!,
    }),
  },
  layernorm_forward: {
    class: "norms",
    elements: ({ N, C }) => ({
      ...pick("out", "inp")(N! * C!),
      ...pick("mean", "rstd")(N!),
      ...pick("weight", "bias")(C!),
    }),
  },
  layernorm_backward: {
    class: "norms",
    elements: ({ N, C }) => ({
      ...pick("dinp", "dout", "inp")(N! * C!),
      ...pick("mean", "rstd")(N!),
      ...pick("dweight", "dbias", "sums", "weight")(C!),
    }),
    touched: ({ N, C, accumulate_inp }) => ({ dinp: (accumulate_inp ? twice : Number)(N! * C!) }),
  },
  matmul_forward: {
    class: "products",
    elements: (s) => ({
      ...pick("out", "pre", "residual")(s.N! * s.OC!),
      inp: s.N! * s.C!,
      weight: s.OC! * s.C!,
      bias: s.OC!,
      scratch: scratch(s),
    }),
    flops: product,
  },
  matmul_backward_input: {
    class: "products",
    elements: ({ N, C, OC }) => {
      return { ...pick("dinp", "pre")(N! * C!), sums: C!, dout: N! * OC!, weight: OC! * C! }
    },
    flops: product,
    touched: ({ N, C, accumulate_inp }) => ({ dinp: (accumulate_inp ? twice : Number)(N! * C!) }),
  },
  matmul_backward_weight: {
    class: "products",
    elements: (s) => ({
      dweight: s.OC! * s.C!,
      dbias: s.OC!,
      dout: s.N! * s.OC!,
      inp: s.N! * s.C!,
      scratch: scratch(s),
    }),
    flops: product,
    touched: ({ C, OC, accumulate }) => ({ dweight: (accumulate ? twice : Number)(OC! * C!) }),
  },
  gelu_forward: { class: "rest", elements: ({ n }) => pick("out", "inp")(n!) },
  gelu_backward: { class: "rest", elements: ({ n }) => pick("dinp", "dout", "inp")(n!) },
  add_forward: { class: "rest", elements: ({ n }) => pick("out", "a", "b")(n!) },
  attention_forward: {
    class: "attention",
    elements: ({ B, T, C, NH }) => {
      return { out: B! * T! * C!, lse: B! * NH! * T!, qkv: 3 * B! * T! * C! }
    },
    flops: attention,
  },
  attention_backward: {
    class: "attention",
    elements: ({ B, T, C, NH }) => ({
      ...pick("dqkv", "qkv")(3 * B! * T! * C!),
      ...pick("dout", "out")(B! * T! * C!),
      sums: 3 * C!,
      lse: B! * NH! * T!,
      scratch: B! * T! * (NH! + 2 * C!), // LLM_ATTENTION_SCRATCH of bf16
    }),
    flops: (s) => 2 * attention(s),
  },
  attention_decode: {
    class: "attention",
    elements: ({ B, T, C, NH, maxT }) => ({
      out: B! * T! * C!,
      ...pick("kcache", "vcache")(B! * maxT! * C!), // filled to the last row
      qkv: 3 * B! * T! * C!,
      positions: B!,
      scratch: B! * NH! * maxT!,
    }),
    // Two products over the rows that each token sees. Of a single one memory sets the pace.
    flops: ({ B, T, C, maxT }) => (T === 1 ? 0 : 4 * B! * C! * T! * (maxT! - (T! - 1) / 2)),
  },
  classifier_forward: {
    class: "classifier",
    elements: ({ N, Vp }) => ({ ...pick("losses", "targets")(N!), logits: N! * Vp! }),
  },
  classifier_backward: {
    class: "classifier",
    elements: ({ N, Vp }) => ({ ...pick("dlogits", "logits")(N! * Vp!), targets: N! }),
  },
  classifier_fused: {
    class: "classifier",
    elements: ({ N, Vp }) => ({ ...pick("losses", "targets")(N!), logits: N! * Vp! }),
    touched: ({ N, Vp }) => ({ logits: twice(N! * Vp!) }),
  },
  mean_forward: { class: "classifier", elements: ({ n }) => ({ out: 1, inp: n! }) },
  squared_norm: { class: "optimizer", elements: ({ n }) => ({ out: 1, inp: n! }) },
  update_begin: {
    class: "optimizer",
    elements: ({ count }) => ({ update: 5, norm: 1, controls: 3, squares: count!, loss: 1 }),
  },
  adamw_update: {
    class: "optimizer",
    elements: ({ n }) => ({ ...pick("param", "master", "m", "v", "grad")(n!), update: 5 }),
    touched: ({ n, master }) => ({
      ...pick("param", "master", "m", "v")(twice(n!)),
      ...(master ? { param: n! } : {}), // overwritten
    }),
  },
  fp8_scales: { class: "rest", elements: ({ count }) => ({ slots: 32 * count! }) },
  e4m3_quantize: {
    class: "rest",
    elements: ({ N, C }) => ({ ...pick("out", "transposed", "inp")(N! * C!), slot: 32 }),
  },
  e5m2_quantize: {
    class: "rest",
    elements: ({ N, C }) => ({
      ...pick("out", "transposed", "inp", "pre")(N! * C!),
      ...{ slot: 32, sums: C!, scratch: Math.ceil(N! / 128) * C! }, // LLM_FP8_SCRATCH
    }),
  },
  fp8_matmul_forward: {
    class: "products",
    elements: ({ N, C, OC }) => ({
      ...pick("out", "residual")(N! * OC!),
      ...{ inp: N! * C!, weight: OC! * C!, bias: OC!, inp_slot: 32, weight_slot: 32 },
    }),
    flops: product,
  },
  fp8_matmul_backward_input: {
    class: "products",
    elements: ({ N, C, OC }) => ({
      ...{ dinp: N! * C!, dout: N! * OC!, weight: C! * OC!, dout_slot: 32, weight_slot: 32 },
    }),
    flops: product,
    touched: ({ N, C, accumulate }) => ({ dinp: (accumulate ? twice : Number)(N! * C!) }),
  },
  fp8_matmul_backward_weight: {
    class: "products",
    elements: ({ N, C, OC }) => ({
      ...{ dweight: OC! * C!, dout: OC! * N!, inp: C! * N!, dout_slot: 32, inp_slot: 32 },
    }),
    flops: product,
    touched: ({ C, OC, accumulate }) => ({ dweight: (accumulate ? twice : Number)(OC! * C!) }),
  },
  bf16_round: { class: "set-up", elements: ({ n }) => pick("out", "inp")(n!) },
  bf16_widen: { class: "rest", elements: ({ n }) => pick("out", "inp")(n!) },
  rng_seed: { class: "set-up", elements: () => ({ state: 625 }) },
  normal_fill: { class: "set-up", elements: ({ n }) => ({ out: n!, state: 625 }) },
}

/** What a kernel of llm.h has to do, in either precision. */
export function kernelWork(name: string): Kernel {
  const kernel = KERNELS[name] ?? KERNELS[name.replace(/_bf16$/, "")]
  assert(kernel, `src/bench/work.ts does not know ${name}`)
  return kernel
}

export interface Work {
  flops: number
  bytes: number
}

/** What one call has to do. Scratch is an implementation's own affair and counts nothing. */
export function workOf({ name, parameters }: Signature, args: Arguments): Work {
  const kernel = kernelWork(name)
  const touched = { ...kernel.elements(args), ...kernel.touched?.(args) }
  const pointers = parameters.filter(
    (p) => p.type === "pointer" && p.name !== "scratch" && args[p.name] !== 0,
  )
  const bytes = pointers.reduce((sum, p) => sum + touched[p.name]! * BYTES[p.element!], 0)
  return { flops: kernel.flops?.(args) ?? 0, bytes }
}

/** A call's arguments by the contract's names. */
export function namedArguments(
  { parameters }: Signature,
  { args }: Call,
  numberOf: (arg: Arg) => number,
): Arguments {
  return Object.fromEntries(parameters.map(({ name }, i) => [name, numberOf(args[i]!)]))
}

/** What all calls of a list have to do. What they learn at run time counts as 0. */
export function workOfCalls(calls: Call[], contract: Contract, precision: Precision): Work {
  const numberOf = (arg: Arg) => (typeof arg === "number" ? arg : isTensor(arg) ? 1 : 0)
  const all = calls.map((call) => {
    const signature = kernelOf(contract, call.kernel, precision)
    return workOf(signature, namedArguments(signature, call, numberOf))
  })
  const total = (value: (work: Work) => number) => all.reduce((sum, work) => sum + value(work), 0)
  return { flops: total(({ flops }) => flops), bytes: total(({ bytes }) => bytes) }
}

export const BYTES = { f32: 4, bf16: 2, e4m3: 1, e5m2: 1, f64: 8, i32: 4, u32: 4 } as const

/** A call's arguments in the contract's order. */
export function inOrder({ name, parameters }: Signature, args: Arguments): number[] {
  return parameters.map((parameter) => {
    const value = args[parameter.name]
    assert(value !== undefined, `${name}: nothing is given for ${parameter.name}`)
    return value
  })
}
