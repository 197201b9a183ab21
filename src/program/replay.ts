// Phases as graphs: what a GPU is told of as one costs the host nothing, and the GPU waits for nobody
// between its kernels.

import type { Gpu, Recorded } from "../native/gpu.ts"

export class Replays {
  private readonly graphs = new Map<string, Recorded | "queued">()

  constructor(private readonly gpu: Gpu) {}

  /** Queues what `queue` queues, which is the same at every call with this key. The first time as it is,
   * as products choose then how they compute; it is recorded at the second, and replayed from then on. */
  run(key: string, queue: () => void): void {
    let graph = this.graphs.get(key)
    if (graph === undefined) {
      queue()
      this.gpu.wait() // what has failed must not be kept as what cannot be done
      this.gpu.keepPlans()
      this.graphs.set(key, "queued")
      return
    }
    if (graph === "queued") {
      graph = this.gpu.record(queue)
      this.graphs.set(key, graph)
    }
    this.gpu.replay(graph)
  }

  free(): void {
    for (const graph of this.graphs.values()) if (graph !== "queued") this.gpu.forget(graph)
    this.graphs.clear()
  }
}
