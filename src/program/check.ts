// Where the numbers go bad: a phase run call by call, with a look at what each call has written.

import { areFiniteBf16 } from "../formats/finite.ts"
import { type Contract, kernelOf } from "../native/contract.ts"
import type { Kernels } from "../native/library.ts"
import { CALIBRATE } from "./fp8.ts"
import { ACCUMULATE } from "./graph.ts"
import type { Program, ProgramSource } from "./link.ts"
import { describe } from "./plan.ts"
import { type Arg, elements, isTensor, owner, type Tensor } from "./tensor.ts"

/** The passes of the step that went bad. */
export interface BadSearch {
  /** Micro-steps whose gradients are added up. */
  accumulation: number
  /** Puts the micro-step's batch in its place. */
  next(micro: number): void
  /** Of products in eight bits: what the step's phases were told. */
  calibrate: number
}

/** What is searched: a program, and a place of its own for sums, as a GPU may have no memory left. */
export type Searched = ProgramSource & { squares: Typed<"f64">; slots?: Tensor[] }

const PIECE = 2 ** 22 // numbers in bf16, looked at on the host

/** Names the first tensor of a step with a number that is not finite: one of the parameters, or else
 * what a call of the forward or backward passes makes; undefined when all is well. */
export function findBad(
  program: Program,
  source: Searched & { parameters: Record<string, Tensor> },
  kernels: Kernels,
  contract: Contract,
  { accumulation, next, calibrate }: BadSearch,
): string | undefined {
  for (const parameter of Object.values(source.parameters)) {
    if (isBad(program, source, kernels, parameter)) return `the parameter ${describe(parameter)}`
  }
  for (let micro = 0; micro < accumulation; micro++) {
    next(micro)
    const runtime = { [ACCUMULATE.runtime]: Math.min(micro, 1), [CALIBRATE.runtime]: calibrate }
    for (const name of ["forward", "backward"]) {
      const { calls } = source.phases.find((phase) => phase.name === name)!
      for (const { kernel, args } of calls) {
        const signature = kernelOf(contract, kernel, source.precision)
        kernels.call(signature.name, ...args.map((arg) => value(program, arg, runtime)))
        for (const [i, { type, readOnly }] of signature.parameters.entries()) {
          const arg = args[i]!
          const isOutput = type === "pointer" && !readOnly && isTensor(arg)
          if (!isOutput || isBeside(source, arg) || !isBad(program, source, kernels, arg)) continue
          const of = accumulation > 1 ? ` of micro-batch ${micro}` : ""
          return `${describe(arg)}, made by ${kernel} in the ${name} pass${of}`
        }
      }
    }
  }
  return undefined
}

/** Whether a tensor tells of others, or of nothing. */
const isBeside = ({ slots = [] }: Searched, tensor: Tensor) =>
  tensor.role === "scratch" || slots.includes(owner(tensor))

/** An argument as it crosses. */
function value(program: Program, arg: Arg, runtime: Record<string, number>): number {
  if (arg === null) return 0
  if (isTensor(arg)) return program.address(arg)
  if (typeof arg === "number") return arg
  return runtime[arg.runtime]!
}

/** The first of these tensors in which a number is not finite. */
export function findNotFinite(
  program: Program,
  source: Searched,
  kernels: Kernels,
  tensors: Tensor[],
): Tensor | undefined {
  return tensors.find((tensor) => isBad(program, source, kernels, tensor))
}

function isBad(program: Program, { squares }: Searched, kernels: Kernels, tensor: Tensor): boolean {
  const count = elements(tensor)
  if (tensor.dtype === "f32") {
    // A sum of squares in f64 is finite exactly when all numbers are.
    kernels.call("squared_norm", program.address(squares), program.address(tensor), count)
    return !Number.isFinite(program.read(squares, 0, 1)[0]!)
  }
  if (tensor.dtype === "f64") return !program.read(tensor as Typed<"f64">).every(Number.isFinite)
  if (tensor.dtype === "i32") return false
  for (let start = 0; start < count; start += PIECE) {
    const length = Math.min(PIECE, count - start)
    const isGood =
      tensor.dtype === "bf16"
        ? areFiniteBf16(program.read(tensor as Typed<"bf16">, start, length))
        : !program.read(tensor as Typed<"e4m3">, start, length).some(isNaN8)
    if (!isGood) return true
  }
  return false
}

/** Of either type in eight bits: what is beyond the largest number is stored as that. */
const isNaN8 = (code: number) => (code & 0x7f) === 0x7f

type Typed<D> = Tensor & { dtype: D }
