// A model's forward pass is recorded as a list of ops; reversing the list, op by op, gives the
// backward pass. Where several ops use a tensor its gradients meet and are added up.

import { assert } from "../errors.ts"
import type { Platform, Precision } from "../native/contract.ts"
import type { Op } from "./ops.ts"
import type { Arg, Call, DType, Role, Runtime, Tensor } from "./tensor.ts"
import { elements, owner } from "./tensor.ts"

/** 0 in the first micro-step of an optimizer step, then 1: parameters' gradients are overwritten
 * first, so that nothing has to zero them. */
export const ACCUMULATE: Runtime = { runtime: "accumulate" }

/** A gradient to be written: with accumulate 0 it is overwritten, with 1 added to. */
export interface Target {
  tensor: Tensor
  accumulate: Arg
}

export class Graph {
  private readonly ops: Op[] = []
  /** Forward calls whose results nobody reads outside their block. */
  readonly inner = new Set<Call>()

  constructor(
    private readonly precision: Precision = "fp32",
    private readonly platform: Platform = "cpu",
  ) {}

  /** Records an op; returns its result. */
  run(op: Op): Tensor {
    this.ops.push(op)
    return op.out
  }

  /** Records the ops of one of a model's blocks; returns their result. All else that they make can be
   * made again from the block's input (recompute.ts). */
  block(record: () => Tensor): Tensor {
    const first = this.ops.length
    const result = record()
    const inside = this.ops.slice(first).filter(({ out }) => out !== result)
    for (const call of inside.flatMap(({ forward }) => forward)) this.inner.add(call)
    return result
  }

  tensor(name: string, shape: number[], role: Role, dtype: DType = "f32"): Tensor {
    return { name, shape, role, dtype }
  }

  /** What flows from op to op, in the graph's precision. */
  activation(name: string, shape: number[]): Tensor {
    return this.tensor(name, shape, "activation", this.precision === "bf16" ? "bf16" : "f32")
  }

  /** What a phase keeps from one call to the next. */
  cache(name: string, shape: number[]): Tensor {
    return { ...this.activation(name, shape), role: "cache" }
  }

  /** What an op saves for its backward pass in f32, as it comes from sums. */
  statistic(name: string, shape: number[]): Tensor {
    return this.tensor(name, shape, "activation")
  }

  scratch(name: string, shape: number[]): Tensor {
    return this.tensor(name, shape, "scratch")
  }

  /** Scratch that only a CPU's kernels ask for. */
  cpuScratch(name: string, shape: number[]): Tensor | null {
    return this.platform === "cpu" ? this.scratch(name, shape) : null
  }

  forward(): Call[] {
    return this.ops.flatMap((op) => op.forward)
  }

  /** The reversed list. `gradients` maps each parameter (not its views) to its gradient. */
  backward(gradients: Map<Tensor, Tensor>): Call[] {
    const d = new Backward(gradients)
    return this.ops.toReversed().flatMap((op) => {
      assert(op.backward, `no gradient is declared for what makes ${op.out.name}`)
      const calls = op.backward(d)
      d.finish(op.out)
      return calls
    })
  }
}

/** Which tensor holds whose gradient while the list is being reversed. */
export class Backward {
  private readonly activations = new Map<Tensor, Tensor>()
  /** Tensors whose producer has been reversed: nobody reads their gradients any more. */
  private readonly finished = new Set<Tensor>()
  private readonly written = new Set<string>()

  constructor(private readonly parameters: Map<Tensor, Tensor>) {}

  /** The gradient of an op's result, complete, as all later ops have been reversed. */
  of(out: Tensor): Tensor {
    const gradient = this.activations.get(out)
    assert(gradient, `${out.name} has no gradient: nothing uses it`)
    return gradient
  }

  /** Where to write, or add, a contribution to the gradient of an op's input. */
  into(input: Tensor): Target {
    if (input.role === "parameter") return this.intoParameter(input)
    const existing = this.activations.get(input)
    if (!existing) return { tensor: this.fresh(input), accumulate: 0 }
    // `pass` may have given the tensor other names, whose readers must all have come before.
    for (const [other, gradient] of this.activations) {
      const isSafe = gradient !== existing || other === input || this.finished.has(other)
      assert(isSafe, `adding to d${input.name} would change d${other.name}`)
    }
    return { tensor: existing, accumulate: 1 }
  }

  private intoParameter(parameter: Tensor): Target {
    const whole = this.parameters.get(owner(parameter))
    assert(whole, `parameter ${parameter.name} has no gradient tensor`)
    const { name, shape, base, offset } = parameter
    const tensor = base ? { ...whole, name: `d${name}`, shape, base: whole, offset } : whole
    // A tied weight: later uses add to what the first has written.
    const isFirst = !this.written.has(name)
    this.written.add(name)
    return { tensor, accumulate: isFirst ? ACCUMULATE : 1 }
  }

  /** A new gradient for an input that nothing has contributed to, for kernels that overwrite. */
  fresh(input: Tensor): Tensor {
    assert(!this.activations.has(input), `the gradient of ${input.name} would be overwritten`)
    const gradient: Tensor = {
      name: `d${input.name}`,
      shape: input.shape,
      dtype: input.dtype,
      role: "activation",
    }
    this.activations.set(input, gradient)
    return gradient
  }

  /** The input's gradient is the output's: the same tensor, nothing to compute. */
  pass(out: Tensor, input: Tensor): void {
    assert(elements(out) === elements(input), `${input.name} and ${out.name} differ in size`)
    assert(!this.activations.has(input), `the gradient of ${input.name} would be replaced`)
    this.activations.set(input, this.of(out))
  }

  finish(out: Tensor): void {
    this.finished.add(out)
  }
}
