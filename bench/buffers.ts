// Memory for the arguments of one kernel call after another: one mapping, laid out anew and filled
// with plausible numbers for each.

import { type Arguments, BYTES, kernelWork } from "../src/bench/work.ts"
import { roundToBf16 } from "../src/data/bf16.ts"
import type { Parameter, Signature } from "../src/native/contract.ts"
import type { Kernels } from "../src/native/library.ts"
import { allocate, type NativeMemory } from "../src/native/memory.ts"

const ALIGN = 128 // bytes, as llm.h asks for
const PATTERN = 2 ** 16 // random numbers that are repeated: drawing all would take minutes
const SEED = 42

const pointersOf = ({ parameters }: Signature) => parameters.filter((p) => p.type === "pointer")

const alignedBytes = (parameter: Parameter, elements: number) =>
  Math.ceil((elements * BYTES[parameter.element!]) / ALIGN) * ALIGN

/** Bytes that a call's pointers need together. */
export function bytesNeeded(signature: Signature, scalars: Arguments): number {
  const elements = kernelWork(signature.name).elements(scalars)
  return pointersOf(signature).reduce((sum, p) => sum + alignedBytes(p, elements[p.name]!), 0)
}

export class Buffers {
  private readonly memory: NativeMemory
  private readonly pattern = Float32Array.from({ length: PATTERN }, Math.random)

  constructor(
    bytes: number,
    private readonly kernels: Kernels,
  ) {
    this.memory = allocate(bytes)
  }

  /** A call's arguments by name. Pointers lead to numbers in [0, 1), integers below V, and ones in f64:
   * the first step is an update. */
  prepare(signature: Signature, scalars: Arguments, absent: string[] = []): Arguments {
    const elements = kernelWork(signature.name).elements(scalars)
    const args: Arguments = { ...scalars }
    let offset = 0
    for (const parameter of pointersOf(signature)) {
      const { name } = parameter
      if (absent.includes(name)) {
        args[name] = 0
        continue
      }
      args[name] = this.memory.address + offset
      this.fill(parameter, offset, elements[name]!, scalars)
      offset += alignedBytes(parameter, elements[name]!)
    }
    return args
  }

  private fill({ name, element }: Parameter, offset: number, length: number, scalars: Arguments) {
    const isBf16 = element === "bf16"
    if (element === "u32") {
      this.kernels.call("rng_seed", this.memory.address + offset, SEED)
    } else if (element === "i32") {
      const view = this.memory.view(Int32Array, offset, length)
      const below = scalars.V ?? scalars.Vp ?? 1
      for (let i = 0; i < length; i++) view[i] = Math.floor(this.pattern[i % PATTERN]! * below)
      if (name === "positions") view.fill(scalars.maxT! - scalars.T!)
    } else if (element === "f64") {
      this.memory.view(Float64Array, offset, length).fill(1)
    } else if (element === "f32" || isBf16) {
      const view = isBf16
        ? this.memory.view(Uint16Array, offset, length)
        : this.memory.view(Float32Array, offset, length)
      const pattern = isBf16 ? this.pattern.map(roundToBf16) : this.pattern
      view.set(pattern.subarray(0, Math.min(length, PATTERN)))
      for (let done = PATTERN; done < length; done *= 2) {
        view.copyWithin(done, 0, Math.min(done, length - done))
      }
    }
  }
}
