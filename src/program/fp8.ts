// Products in eight bits: a rewrite of a training step's lists. What a block's product multiplies is
// first stored in eight bits, once each way that a product reads it; GELUs and their gradients are then
// computed on the way there, and the gradients of biases summed that no other call sums (fuse.ts). All
// between the products stays as it is, and so does the classifier's product.

import { assert } from "../errors.ts"
import {
  type Arg,
  type Call,
  type DType,
  elements,
  isTensor,
  type Runtime,
  type Tensor,
} from "./tensor.ts"

/** 1 in the first step of all, in which a tensor's scale comes from its own numbers. */
export const CALIBRATE: Runtime = { runtime: "calibrate" }

/** As llm.h has it: floats of a slot, and which of them is the largest number of a step under way. */
export const [SLOT, NOW] = [32, 2]
const LARGEST = { e4m3: 448, e5m2: 57344 }

export interface Fp8Step {
  forward: Call[]
  backward: Call[]
  /** Calls that begin a step, before its first forward pass: they store the weights. */
  begin: Call[]
  /** Calls that end it, when it is known to be good: the next one's scales. */
  end: Call[]
  /** The weights in eight bits, which every micro-batch of a step reads. */
  weights: Tensor[]
  /** What is known of each tensor's numbers, from step to step: slots of e4m3 and of e5m2. */
  slots: [Slots, Slots]
}
export type Slots = Tensor & { dtype: "f32" }

interface Quantized {
  out: Tensor | null
  transposed: Tensor | null
  slot: Tensor
}

/** What a gradient in eight bits is made of: dout, or dout·gelu'(pre). */
interface GradientSource {
  dout: Tensor
  pre: Tensor | null
}

/** The lists of a step, rewritten: products are fused with residuals already, but not with GELUs. */
export function inFp8(forward: Call[], backward: Call[]): Fp8Step {
  const rewrite = new Rewrite([...forward, ...backward])
  const lists = { forward: rewrite.list(forward), backward: rewrite.list(backward) }
  const { slots, weights } = rewrite
  return { ...lists, begin: rewrite.begin(), end: rewrite.end(), weights, slots }
}

/** Of each product: which argument is its weight or that one's gradient, and which are stored. */
const PRODUCTS: Record<string, { weight: number; stored: number[] }> = {
  matmul_forward: { weight: 3, stored: [2] },
  matmul_backward_weight: { weight: 0, stored: [2, 3] },
  matmul_backward_input: { weight: 3, stored: [2] },
}

/** The arguments that a call has stored: of a block's product, whose weight is stacked over layers. */
function storedBy({ kernel, args }: Call): Arg[] {
  const product = PRODUCTS[kernel]
  const weight = product && args[product.weight]!
  const isInBlock = weight !== undefined && isTensor(weight) && weight.base !== undefined
  return isInBlock ? product!.stored.map((at) => args[at]!) : []
}

class Rewrite {
  private readonly e4m3 = newSlots("e4m3")
  private readonly e5m2 = newSlots("e5m2")
  /** Tensors that products read as they are, or transposed; or that others read. */
  private readonly read = new Set<Arg>()
  private readonly readTransposed = new Set<Arg>()
  private readonly readElsewhere = new Set<Arg>()
  /** GELU's result, or the gradient that comes back from it → what they are made of. */
  private readonly gelus = new Map<Arg, Tensor>()
  private readonly geluGradients = new Map<Arg, GradientSource>()
  private readonly activations = new Map<Tensor, Quantized>()
  private readonly activationSlots = new Map<string, Tensor>()
  private readonly weightsByName = new Map<string, Quantized & { whole: Tensor }>()
  private calls: Call[] = []
  private gradient?: Quantized & { of: Tensor }

  constructor(all: Call[]) {
    for (const call of all) {
      const stored = storedBy(call)
      if (call.kernel === "matmul_forward" && stored[0]) this.read.add(stored[0])
      if (call.kernel === "matmul_backward_weight" && stored[1]) this.readTransposed.add(stored[1])
      const [, ...inputs] = call.args // the first argument is what a call makes
      for (const arg of inputs) if (!stored.includes(arg)) this.readElsewhere.add(arg)
    }
  }

  get slots(): [Slots, Slots] {
    return [this.e4m3, this.e5m2]
  }

  get weights(): Tensor[] {
    return [...this.weightsByName.values()].flatMap(({ out, transposed }) => [out!, transposed!])
  }

  list(calls: Call[]): Call[] {
    this.calls = []
    for (const call of calls) this.rewrite(call)
    return this.calls
  }

  begin(): Call[] {
    return [...this.weightsByName.values()].map(({ whole, ...weight }) =>
      quantize(weight, whole, 0),
    )
  }

  end(): Call[] {
    return (["e4m3", "e5m2"] as const).map((type) => {
      return { kernel: "fp8_scales", args: [this[type], this[type].shape[0]!, LARGEST[type]] }
    })
  }

  private rewrite(call: Call): void {
    const { kernel, args } = call
    const isOnlyStored = !this.readElsewhere.has(args[0]!)
    if (kernel === "gelu_forward" && isOnlyStored) {
      this.gelus.set(args[0]!, args[1] as Tensor)
    } else if (kernel === "gelu_backward" && isOnlyStored) {
      const [dinp, dout, pre] = args as Tensor[]
      this.geluGradients.set(dinp!, { dout: dout!, pre: pre! })
    } else if (storedBy(call).length === 0) {
      this.calls.push(call)
    } else if (kernel === "matmul_forward") {
      this.forward(args)
    } else if (kernel === "matmul_backward_weight") {
      this.toWeight(args)
    } else {
      this.toInput(args)
    }
  }

  private forward([out, , inp, weight, bias, residual, , ...sizes]: Arg[]): void {
    const x = this.activation(inp as Tensor)
    const w = this.weight(weight as Tensor)
    const args = [out!, x.out, w.out, x.slot, w.slot, bias!, residual!, ...sizes]
    this.calls.push({ kernel: "fp8_matmul_forward", args })
  }

  private toWeight([dweight, dbias, dout, inp, , N, C, OC, accumulate]: Arg[]): void {
    const x = this.activation(inp as Tensor)
    const d = this.gradientOf(dout as Tensor, dbias as Tensor | null, accumulate!)
    const args = [dweight!, d.transposed, x.transposed, d.slot, x.slot, N!, C!, OC!, accumulate!]
    this.calls.push({ kernel: "fp8_matmul_backward_weight", args })
  }

  private toInput([dinp, sums, dout, weight, pre, N, C, OC, accumulate]: Arg[]): void {
    const d = this.gradient
    assert(sums === null && pre === null, "a product's gradient was fused with others")
    assert(d?.of === dout, "a product's gradients do not follow one another")
    const w = this.weight(weight as Tensor)
    const args = [dinp!, d!.out, w.transposed, d!.slot, w.slot, N!, C!, OC!, accumulate!]
    this.calls.push({ kernel: "fp8_matmul_backward_input", args })
  }

  /** An activation in eight bits, as all products want it; made when the first of them comes. */
  private activation(inp: Tensor): Quantized {
    const known = this.activations.get(inp)
    if (known) return known
    const { name } = inp
    const made: Quantized = {
      out: this.read.has(inp) ? small("e4m3", name, inp.shape) : null,
      transposed: this.readTransposed.has(inp) ? transposed("e4m3", name, inp) : null,
      slot: this.activationSlot(name),
    }
    this.activations.set(inp, made)
    const gelu = this.gelus.get(inp)
    this.calls.push(quantize(made, gelu ?? inp, gelu ? 1 : 0))
    return made
  }

  /** Of what is made again (recompute.ts) and is the same numbers, the same slot. */
  private activationSlot(name: string): Tensor {
    const original = name.replace(/'+$/, "")
    const slot = this.activationSlots.get(original) ?? nextSlot(this.e4m3, original)
    this.activationSlots.set(original, slot)
    return slot
  }

  private weight(weight: Tensor): Quantized {
    const { name, shape } = weight
    const known = this.weightsByName.get(name)
    if (known) return known
    const kept = (tensor: Tensor): Tensor => ({ ...tensor, role: "cache" })
    const made = {
      whole: weight,
      out: kept(small("e4m3", name, shape)),
      transposed: kept(transposed("e4m3", name, weight)),
      slot: nextSlot(this.e4m3, name),
    }
    this.weightsByName.set(name, made)
    return made
  }

  /** A gradient in eight bits, for the product before this layer's and for the weight's; on the way it is
   * summed for the bias, if that is given. */
  private gradientOf(dout: Tensor, dbias: Tensor | null, accumulate: Arg): Quantized {
    const { name, shape } = dout
    const [N, C] = matrix(dout)
    const slot = nextSlot(this.e5m2, name)
    const [out, turned] = [small("e5m2", name, shape), transposed("e5m2", name, dout)]
    const source = this.geluGradients.get(dout) ?? { dout, pre: null }
    const scratch: Tensor = {
      ...{ name: `${name}.sums`, shape: [Math.ceil(N / 128), C] }, // LLM_FP8_SCRATCH
      ...{ dtype: "f32", role: "scratch" },
    }
    const inputs = [source.dout, source.pre, scratch]
    this.calls.push({
      kernel: "e5m2_quantize",
      args: [out, turned, slot, dbias, ...inputs, N, C, accumulate, CALIBRATE],
    })
    this.gradient = { of: dout, out, transposed: turned, slot }
    return this.gradient
  }
}

function quantize({ out, transposed, slot }: Quantized, inp: Tensor, gelu: number): Call {
  return {
    kernel: "e4m3_quantize",
    args: [out, transposed, slot, inp, ...matrix(inp), gelu, CALIBRATE],
  }
}

function matrix(tensor: Tensor): [N: number, C: number] {
  const C = tensor.shape.at(-1)!
  return [elements(tensor) / C, C]
}

const small = (dtype: DType, name: string, shape: number[]): Tensor => {
  return { name: `${name}.${dtype}`, shape, dtype, role: "activation" }
}
const transposed = (dtype: DType, name: string, whole: Tensor): Tensor =>
  small(dtype, `${name}ᵀ`, matrix(whole).toReversed())

const newSlots = (type: string): Slots => {
  return { name: `slots_${type}`, shape: [0, SLOT], dtype: "f32", role: "pinned" }
}

/** The next of the slots, whose tensor grows by it. */
function nextSlot(all: Slots, name: string): Tensor {
  const at = all.shape[0]!++
  return { ...all, name: `${name}.slot`, shape: [SLOT], base: all, offset: at * SLOT }
}
