// The planned program as one readable C file: a function a phase, straight-line calls with the
// offset, the tensor's name and its shape beside each argument.

import { assert } from "../errors.ts"
import {
  type Contract,
  type CType,
  kernelOf,
  type Parameter,
  type Precision,
  type Signature,
} from "../native/contract.ts"
import { describe, type MemoryPlan, offsetOf } from "./plan.ts"
import { type Arg, type Call, elements, isTensor, type Phase, type Tensor } from "./tensor.ts"

const DTYPE_POINTER = { f32: "F", bf16: "H", e4m3: "Q", e5m2: "Q", f64: "D", i32: "I" } as const

export interface Emitted {
  source: string
  /** The phases' signatures: the arena's address, then what is known only at run time. */
  signatures: Signature[]
}

/** The C file for the phases, whose kernels are of the kind for `precision`. `title` goes into its
 * head comment. */
export function emit(
  title: string,
  phases: Phase[],
  plan: MemoryPlan,
  contract: Contract,
  precision: Precision,
): Emitted {
  const offsets = new Map(plan.placements.map(({ tensor, offset }) => [tensor, offset]))
  const signatures = phases.map(phaseSignature)
  const functions = phases.map((phase, i) => {
    const head = `int ${phase.name}(${signatures[i]!.parameters.map(declare).join(", ")})`
    const calls = phase.calls.map((call) => {
      return emitCall(call, kernelOf(contract, call.kernel, precision), offsets)
    })
    return `${head} {\n${calls.join("")}  return 0;\n}\n`
  })
  const source = [
    `/* ${title}\n * Every tensor's place in the arena was planned beforehand. */`,
    precision === "bf16" ? '#define LLM_BF16\n#include "llm.h"\n' : '#include "llm.h"\n',
    `#define ARENA_BYTES ${plan.peak}LL\n`,
    "#define F(offset) ((float *)(arena + (offset)))",
    "#define H(offset) ((bf16 *)(arena + (offset)))",
    "#define Q(offset) ((unsigned char *)(arena + (offset)))",
    "#define D(offset) ((double *)(arena + (offset)))",
    "#define I(offset) ((int *)(arena + (offset)))\n",
    emitTable(plan),
    ...functions,
  ].join("\n")
  return { source, signatures }
}

/** What a program around this file needs to find: inputs, results, parameters and their kin. */
function emitTable(plan: MemoryPlan): string {
  const kept = plan.placements.filter(({ tensor }) => !SHORT_LIVED.has(tensor.role))
  const rows = kept.map(({ tensor, offset }) => {
    return `  {"${tensor.name}", "${tensor.role}", ${offset}LL, ${elements(tensor)}LL}, /* ${describe(tensor)} ${tensor.dtype} */\n`
  })
  const type = "struct tensor { const char *name, *role; i64 offset, elements; }"
  return `${type};\nconst struct tensor tensors[] = {\n${rows.join("")}  {0, 0, 0, 0}};\n`
}
const SHORT_LIVED = new Set(["activation", "scratch", "cache"])

function phaseSignature({ name, calls }: Phase): Signature {
  const arena: Parameter = { name: "arena", type: "pointer", readOnly: false }
  const parameters = [arena]
  for (const arg of calls.flatMap((call) => call.args)) {
    if (!isRuntime(arg) || parameters.some((p) => p.name === arg.runtime)) continue
    parameters.push({ name: arg.runtime, type: "i32", readOnly: true })
  }
  return { name, returns: "i32", parameters }
}

function declare({ name, type }: Parameter): string {
  return type === "pointer" ? `char *${name}` : `int ${name}`
}

const isRuntime = (arg: Arg) => typeof arg === "object" && arg !== null && "runtime" in arg

function emitCall(
  { args }: Call,
  { name: kernel, parameters }: Signature,
  offsets: Map<Tensor, number>,
) {
  assert(parameters.length === args.length, `${kernel} takes ${parameters.length} arguments`)
  const pointers: string[] = []
  const scalars: string[] = []
  const scalarNames: string[] = []
  parameters.forEach((parameter, i) => {
    const arg = args[i]!
    const comma = i < args.length - 1 ? "," : ""
    const text = emitArg(kernel, parameter, arg, offsets) + comma
    if (parameter.type !== "pointer") {
      scalars.push(text)
      scalarNames.push(parameter.name)
      return
    }
    const arrow = parameter.readOnly ? "=" : "←"
    const comment = isTensor(arg) ? `${parameter.name} ${arrow} ${describe(arg)}` : parameter.name
    pointers.push(`      ${text.padEnd(18)} /* ${comment} */\n`)
  })
  const names = scalarNames.join(", ")
  return `  ${kernel}(\n${pointers.join("")}      ${scalars.join(" ")}); /* ${names} */\n`
}

function emitArg(kernel: string, parameter: Parameter, arg: Arg, offsets: Map<Tensor, number>) {
  const what = `${kernel}: ${parameter.name}`
  if (parameter.type === "pointer") {
    if (arg === null) return "0"
    assert(isTensor(arg), `${what} must be a tensor`)
    assert(arg.dtype === parameter.element, `${what} is ${parameter.element}, not ${arg.dtype}`)
    return `${DTYPE_POINTER[arg.dtype]}(${offsetOf(arg, offsets)}LL)`
  }
  assert(arg !== null && !isTensor(arg), `${what} must be a number`)
  if (typeof arg === "object") return arg.runtime
  return literal(what, parameter.type, arg)
}

function literal(what: string, type: CType, value: number): string {
  if (type === "f32" || type === "f64") {
    assert(Number.isFinite(value), `${what} = ${value}`)
    // All digits: the C compiler rounds it to what Math.fround gives.
    const digits = /[.e]/.test(`${value}`) ? `${value}` : `${value}.0`
    return type === "f32" ? `${digits}f` : digits
  }
  const limit = { i64: Number.MAX_SAFE_INTEGER, u32: 2 ** 32 - 1, i32: 2 ** 31 - 1, pointer: 0 }[
    type
  ]
  assert(Number.isInteger(value) && Math.abs(value) <= limit, `${what} = ${value}`)
  return `${value}${{ i64: "LL", u32: "u", i32: "", pointer: "" }[type]}`
}
