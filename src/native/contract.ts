// c/llm.h is the only place where a kernel is specified, so its prototypes are read from there:
// their types check every call before it crosses, `const` tells what a kernel only reads, and the
// argument names become the comments of the emitted program.

import { assert } from "../errors.ts"

export type CType = "f32" | "f64" | "i32" | "u32" | "i64" | "pointer"
export interface Parameter {
  name: string
  type: CType
  /** What a pointer points at. */
  element?: "f32" | "f64" | "i32" | "u32"
  /** A pointer through which the kernel only reads. */
  readOnly: boolean
}
export interface Signature {
  name: string
  returns: CType | "void"
  parameters: Parameter[]
}
export type Contract = Map<string, Signature>

const TYPES: Record<string, CType> = {
  float: "f32",
  double: "f64",
  int: "i32",
  u32: "u32",
  i64: "i64",
}

/** The kernels' signatures from the text of a header such as c/llm.h. */
export function parseContract(header: string): Contract {
  const plain = header.replace(/\/\*[\s\S]*?\*\//g, "").replace(/^\s*#(?:.*\\\n)*.*$/gm, "")
  const contract: Contract = new Map()
  for (const match of plain.matchAll(/^(\w+) (\w+)\(([^)]*)\);/gm)) {
    const [, returns, name, list] = match as unknown as [string, string, string, string]
    contract.set(name, {
      name,
      returns: returns === "void" ? "void" : cType(returns),
      parameters: list.split(",").map((text) => parseParameter(text.trim())),
    })
  }
  return contract
}

function parseParameter(text: string): Parameter {
  const match = /^(const )?(\w+) (\*?)(\w+)$/.exec(text)
  assert(match, `llm.h: cannot read the parameter "${text}"`)
  const [, constant, base, star, name] = match as unknown as [
    string,
    string,
    string,
    string,
    string,
  ]
  const type = cType(base)
  if (star === "") return { name, type, readOnly: true }
  assert(type !== "i64" && type !== "pointer", `llm.h: no pointers to ${type}`)
  return { name, type: "pointer", element: type, readOnly: constant !== undefined }
}

function cType(text: string): CType {
  const type = TYPES[text]
  assert(type, `llm.h: unknown type ${text}`)
  return type
}
