// A program's calls made one by one, at the addresses where the plan put their tensors: the same
// work on the same memory as in the emitted step, with a clock between the kernels.

import { assert } from "../errors.ts"
import { type Contract, kernelOf, type Precision } from "../native/contract.ts"
import { contract, type Kernels } from "../native/library.ts"
import type { Program } from "../program/link.ts"
import { type Arg, type Call, isTensor, type Phase } from "../program/tensor.ts"
import { median } from "./table.ts"
import {
  CLASSES,
  inOrder,
  kernelWork,
  namedArguments,
  type OpClass,
  type Work,
  workOf,
} from "./work.ts"

/** A phase, and what it learns at run time. */
export interface Timed {
  phase: Phase
  runtime: Record<string, number>
}

/** What one call takes and has to do. */
export interface TimedCall extends Work {
  class: OpClass
  ms: number
}

/** What the calls of one kind take together. */
export interface Share {
  class: OpClass
  calls: number
  ms: number
  /** Operations and bytes of a kind; only the first counts where there are any. */
  flops: number
  bytes: number
  /** Time that each call's operations at the peak take, or its bytes where it has none. */
  floorMs: number
}

interface Prepared extends Work {
  kernel: string
  values: number[]
  times: number[]
}

/** Calls between two looks at the clock: to wait for a GPU takes as long as some of its kernels. */
const AT_ONCE = { cpu: 1, cuda: 10 }

/** Every call with the median of its times over `passes` of all phases. */
export async function callByCall(
  program: Program,
  phases: Timed[],
  kernels: Kernels,
  precision: Precision,
  passes: number,
): Promise<TimedCall[]> {
  const signatures = await contract()
  const calls = phases.flatMap(({ phase, runtime }) =>
    phase.calls.map((call) => prepare(call, program, runtime, precision, signatures)),
  )
  for (let pass = 0; pass < passes; pass++) {
    for (const { kernel, values, times } of calls) {
      const start = performance.now()
      for (let i = 0; i < AT_ONCE[kernels.platform]; i++) kernels.call(kernel, ...values)
      kernels.wait()
      times.push((performance.now() - start) / AT_ONCE[kernels.platform])
    }
  }
  return calls.map(({ kernel, times, flops, bytes }) => {
    return { class: kernelWork(kernel).class, ms: median(times), flops, bytes }
  })
}

function prepare(
  call: Call,
  program: Program,
  runtime: Record<string, number>,
  precision: Precision,
  signatures: Contract,
): Prepared {
  const signature = kernelOf(signatures, call.kernel, precision)
  const named = namedArguments(signature, call, (arg) => argumentOf(arg, program, runtime))
  return {
    kernel: signature.name,
    values: inOrder(signature, named),
    times: [],
    ...workOf(signature, named),
  }
}

function argumentOf(arg: Arg, program: Program, runtime: Record<string, number>): number {
  if (arg === null) return 0
  if (typeof arg === "number") return arg
  if (isTensor(arg)) return program.address(arg)
  const value = runtime[arg.runtime]
  assert(value !== undefined, `nothing is given for ${arg.runtime}`)
  return value
}

/** Calls added up by kind. `peak` in operations a second, `bandwidth` in bytes. */
export function sharesOf(calls: TimedCall[], peak: number, bandwidth: number): Share[] {
  const total = (of: TimedCall[], value: (call: TimedCall) => number) =>
    of.reduce((sum, call) => sum + value(call), 0)
  const floorMs = ({ flops, bytes }: TimedCall) =>
    1000 * (flops > 0 ? flops / peak : bytes / bandwidth)
  return CLASSES.map((name) => {
    const own = calls.filter((call) => call.class === name)
    return {
      class: name,
      calls: own.length,
      ms: total(own, ({ ms }) => ms),
      flops: total(own, ({ flops }) => flops),
      bytes: total(own, ({ bytes }) => bytes),
      floorMs: total(own, floorMs),
    }
  }).filter(({ calls }) => calls > 0)
}
