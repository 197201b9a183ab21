// Writes checkpoints on a thread of their own, while the next steps run.

import { assert, UserError } from "../errors.ts"
import { modelHead } from "../formats/model.ts"
import { type RunState, sectionsOf, stateParts } from "../formats/state.ts"
import type { Config } from "../model/config.ts"
import type { TrainingProgram } from "../model/program.ts"
import { spans, wideWeights } from "../model/weights.ts"
import type { Span } from "../native/borrow.ts"
import { usableMemory } from "../native/cpu.ts"
import { allocate, type NativeMemory } from "../native/memory.ts"
import type { Program } from "../program/link.ts"
import { workerUrl } from "../worker.ts"
import { modelName, stateName } from "./checkpoint.ts"
import { cut, type Shared, secure, share } from "./gate.ts"
import { LOGS } from "./runfolder.ts"
import type { Answer, Job } from "./writer-worker.ts"

export interface Keeping {
  /** How many of the newest checkpoints stay; 0: all. */
  keep: number
  /** Those of every so many steps stay as well; 0: none. */
  keepEvery: number
}

export class CheckpointWriter {
  private worker: Worker | undefined
  private snapshot: NativeMemory | undefined
  private active: { shared: Shared; written: Promise<void> } | undefined

  constructor(
    private readonly program: Program,
    private readonly tensors: TrainingProgram,
    private readonly config: Config,
    private readonly B: number,
    private readonly folder: { path: string },
    private readonly keeping: Keeping,
  ) {}

  /** Begins to write what the run is at now; the one before must be done. Weights and moments may change
   * when `secure` has returned. The promise is kept when the checkpoint is on disk, and broken with a
   * UserError when it cannot be written. */
  begin(state: RunState): Promise<void> {
    assert(!this.active, "a checkpoint is still being written")
    const { program, tensors, config } = this
    const { parameters, m, v, masters, precision } = tensors
    const { head, tail } = stateParts(state, masters !== undefined, this.B)
    const pieces: Span[] = []
    const range = (stack: typeof parameters): [number, number] => {
      const first = pieces.length
      pieces.push(...cut(spans(program, stack, config)))
      return [first, pieces.length]
    }
    const sections = { m, v, master: masters }
    const files: Job["files"] = [
      { name: modelName(state.step), parts: [modelHead(config, precision), range(parameters)] },
      {
        name: stateName(state.step),
        parts: [
          head,
          ...sectionsOf(masters !== undefined).map((name) => range(sections[name]!)),
          tail,
        ],
      },
    ]
    const shared = share(pieces, this.room())
    const { step } = state
    const job: Job = { folder: this.folder.path, step, files, shared, logs: LOGS, ...this.keeping }
    const answer = new Promise<Answer>((resolve) => {
      this.worker ??= new Worker(workerUrl("train/writer-worker"))
      this.worker.onmessage = ({ data }: MessageEvent<Answer>) => resolve(data)
      this.worker.onerror = ({ message }) => resolve({ bug: `writing thread: ${message}` })
      this.worker.postMessage(job)
    })
    const written = answer.then(check).finally(() => {
      this.active = undefined
    })
    this.active = { shared, written }
    return written
  }

  /** Returns when weights and moments may change, although a checkpoint is being written. */
  secure(): void {
    if (this.active) secure(this.active.shared)
  }

  /** Waits for the checkpoint that is being written, if there is one, whatever comes of it. */
  async idle(): Promise<void> {
    await this.active?.written.catch(() => {})
  }

  close(): void {
    assert(!this.active, "a checkpoint is still being written")
    this.worker?.terminate()
    this.snapshot?.free()
  }

  /** Memory for a copy as large as the weights; none where the run itself takes what there is. */
  private room(): Span | undefined {
    const weights = wideWeights(this.tensors) ?? this.tensors.parameters
    const bytes = spans(this.program, weights, this.config).reduce((sum, s) => sum + s.bytes, 0)
    if (this.program.plan.peak + bytes > usableMemory()) return undefined
    this.snapshot ??= allocate(bytes)
    return { address: this.snapshot.address, bytes }
  }
}

function check(answer: Answer): void {
  if ("userError" in answer) throw new UserError(answer.userError)
  if ("bug" in answer) throw new Error(answer.bug)
}
