// c/llm.h is the only place where a kernel is specified, so its prototypes are read from there:
// their types check every call before it crosses, `const` tells what a kernel only reads, and the
// argument names become the comments of the emitted program.

import { assert } from "../errors.ts"

export type CType = "f32" | "f64" | "i32" | "u32" | "i64" | "pointer"
export type Element = "f32" | "bf16" | "e4m3" | "e5m2" | "f64" | "i32" | "u32"
export interface Parameter {
  name: string
  type: CType
  /** What a pointer points at. */
  element?: Element
  /** A pointer through which the kernel only reads. */
  readOnly: boolean
}
export interface Signature {
  name: string
  returns: CType | "void"
  parameters: Parameter[]
}
export type Contract = Map<string, Signature>
/** What `real` stands for in llm.h. */
export type Precision = "fp32" | "bf16"
/** What products are computed in: eight bits, where weights and activations are stored in bf16. */
export type Arithmetic = Precision | "fp8"
export const storedIn = (arithmetic: Arithmetic): Precision =>
  arithmetic === "fp8" ? "bf16" : arithmetic
/** What a program is planned for: how much room its kernels ask for differs. */
export type Platform = "cpu" | "cuda"

const TYPES: Record<string, CType> = {
  float: "f32",
  double: "f64",
  int: "i32",
  u32: "u32",
  i64: "i64",
}

/** The kernels' signatures from the text of a header such as c/llm.h. REAL(name) stands for two. */
export function parseContract(header: string): Contract {
  const plain = header.replace(/\/\*[\s\S]*?\*\//g, "").replace(/^\s*#(?:.*\\\n)*.*$/gm, "")
  const contract: Contract = new Map()
  for (const match of plain.matchAll(/^(\w+) (?:(\w+)|REAL\((\w+)\))\(([^)]*)\);/gm)) {
    const [, returns, plainName, realName] = match as unknown as string[]
    const add = (name: string, real: Element) => {
      const parameters = match[4]!.split(",").map((text) => parseParameter(text.trim(), real))
      contract.set(name, {
        name,
        returns: returns === "void" ? "void" : cType(returns!),
        parameters,
      })
    }
    if (plainName) add(plainName, "f32")
    if (realName) {
      add(realName, "f32")
      add(`${realName}_bf16`, "bf16")
    }
  }
  return contract
}

/** The kind of a kernel that computes in a precision: its own name where llm.h has no other. */
export function kernelOf(contract: Contract, name: string, precision: Precision): Signature {
  const other = precision === "bf16" ? contract.get(`${name}_bf16`) : undefined
  const signature = other ?? contract.get(name)
  assert(signature, `llm.h has no ${name}`)
  return signature
}

/** Whether a kernel has to do with bf16: only some libraries have those. */
export function isBf16({ name }: Signature): boolean {
  return /(^|_)bf16(_|$)/.test(name)
}

/** Whether a kernel has to do with numbers of eight bits. */
export function isFp8({ name }: Pick<Signature, "name">): boolean {
  return /^(fp8|e4m3|e5m2)_/.test(name)
}

const SMALL = ["bf16", "e4m3", "e5m2"] as const // types that are only pointed at

function parseParameter(text: string, real: Element): Parameter {
  const match = /^(const )?(\w+) (\*?)(\w+)$/.exec(text)
  assert(match, `llm.h: cannot read the parameter "${text}"`)
  const [, constant, base, star, name] = match as unknown as [
    string,
    string,
    string,
    string,
    string,
  ]
  if (star === "") return { name, type: cType(base), readOnly: true }
  const small = SMALL.find((type) => type === base)
  const element = base === "real" ? real : (small ?? cType(base))
  assert(element !== "i64" && element !== "pointer", `llm.h: no pointers to ${element}`)
  return { name, type: "pointer", element, readOnly: constant !== undefined }
}

function cType(text: string): CType {
  const type = TYPES[text]
  assert(type, `llm.h: unknown type ${text}`)
  return type
}
