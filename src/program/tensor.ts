// What a program is made of: tensors, and calls of kernels on them.

export type DType = "f32" | "bf16" | "e4m3" | "e5m2" | "f64" | "i32"
export const BYTES: Record<DType, number> = { f32: 4, bf16: 2, e4m3: 1, e5m2: 1, f64: 8, i32: 4 }

/** How long a tensor lives. "parameter", "master" (parameters in f32 where those are bf16), "gradient",
 * "moment" and "pinned" (what the trainer reads and writes between phases) always; "cache" through
 * every phase that uses it; the others from their first use to their last. */
export type Role =
  | "parameter"
  | "master"
  | "gradient"
  | "moment"
  | "pinned"
  | "cache"
  | "activation"
  | "scratch"

export interface Tensor {
  name: string
  shape: number[]
  dtype: DType
  role: Role
  /** A view: `offset` elements into another tensor. */
  base?: Tensor
  offset?: number
}

/** A whole number that is known only when a phase is called, and passed to it by this name. */
export interface Runtime {
  runtime: string
}

export type Arg = Tensor | Runtime | number | null

/** One kernel call; what the arguments mean is in llm.h. */
export interface Call {
  kernel: string
  args: Arg[]
}

/** A list of calls that is run as one native function. */
export interface Phase {
  name: string
  calls: Call[]
}

export const elements = (tensor: Tensor): number => tensor.shape.reduce((n, size) => n * size, 1)
export const tensorBytes = (tensor: Tensor): number => elements(tensor) * BYTES[tensor.dtype]

/** The tensor whose memory a view lies in. */
export const owner = (tensor: Tensor): Tensor => (tensor.base ? owner(tensor.base) : tensor)

export const isTensor = (arg: Arg): arg is Tensor =>
  typeof arg === "object" && arg !== null && "shape" in arg

/** The part of a stacked tensor (L, …) that belongs to layer l. */
export function layer(stacked: Tensor, l: number): Tensor {
  const shape = stacked.shape.slice(1)
  const size = shape.reduce((n, dim) => n * dim, 1)
  return { ...stacked, name: `${stacked.name}[${l}]`, shape, base: stacked, offset: l * size }
}
