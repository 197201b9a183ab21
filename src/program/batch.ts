// The next batch of a program: arrays to be filled, which are the program's own where its memory is this
// process's, and are copied to a GPU's while that may still work on the batch before.

import type { Program } from "./link.ts"
import { elements, type Tensor } from "./tensor.ts"

type Ids = Tensor & { dtype: "i32" }

export class Batch {
  readonly tokens: Int32Array
  readonly targets: Int32Array

  constructor(
    private readonly program: Program,
    private readonly tensors: { tokens: Ids; targets: Ids },
  ) {
    const { tokens, targets } = tensors
    const array = (ids: Ids) => (program.isHost ? program.view(ids) : new Int32Array(elements(ids)))
    this.tokens = array(tokens)
    this.targets = array(targets)
  }

  /** Makes what the arrays hold the batch of what runs next. */
  load(): void {
    if (this.program.isHost) return
    this.program.write(this.tensors.tokens, this.tokens)
    this.program.write(this.tensors.targets, this.targets)
  }
}
