// Writes checkpoints on a thread of their own, while the next steps run.

import { assert, UserError } from "../errors.ts"
import { modelBytes, modelHead } from "../formats/model.ts"
import { type RunState, sectionsOf, stateBytes, stateParts, WINDOW } from "../formats/state.ts"
import type { Config } from "../model/config.ts"
import type { TrainingProgram } from "../model/program.ts"
import { inOrder, spans, wideWeights } from "../model/weights.ts"
import type { Span } from "../native/borrow.ts"
import { usableMemory } from "../native/cpu.ts"
import { allocate, type NativeMemory, type Purpose } from "../native/memory.ts"
import type { Program } from "../program/link.ts"
import { elements, type Tensor, tensorBytes } from "../program/tensor.ts"
import { workerUrl } from "../worker.ts"
import { modelName, stateName } from "./checkpoint.ts"
import { cut, type Shared, secure, share } from "./gate.ts"
import { LOGS } from "./runfolder.ts"
import { type Job, writeCheckpoint } from "./write.ts"
import type { Answer } from "./writer-worker.ts"

export interface Keeping {
  /** How many of the newest checkpoints stay; 0: all. */
  keep: number
  /** Those of every so many steps stay as well; 0: none. */
  keepEvery: number
}

const START_MS = 30_000 // in which the thread must answer, or the system will not have it

export class CheckpointWriter {
  private worker: Worker | undefined
  /** A copy of what has not been written when the weights change; of a GPU, of everything. */
  private snapshot: NativeMemory | undefined
  private active: { shared: Shared; written: Promise<unknown> } | undefined
  /** Step of the last checkpoint that came onto the disk. */
  private newest: number | undefined

  constructor(
    private readonly program: Program,
    private readonly tensors: TrainingProgram,
    private readonly config: Config,
    private readonly B: number,
    private readonly folder: { path: string; isResumed?: boolean },
    private readonly keeping: Keeping,
  ) {
    if (program.isHost) return
    // A GPU's numbers are copied at once. Known at the start, not when the run ends.
    const bytes = stacksOf(tensors).reduce((sum, tensor) => sum + tensorBytes(tensor), 0)
    this.snapshot = allocate(bytes, copyOf(tensors, folder.isResumed))
  }

  /** Starts the thread on which `begin` writes. Before the run, as one that never answers would be waited
   * for for ever. Throws a UserError when the system gives none. */
  async start(): Promise<void> {
    this.worker = await startThread()
  }

  /** Begins to write what the run is at now; the one before must be done. Weights and moments may change
   * when `secure` has returned. The promise is kept when the checkpoint is on disk, with a warning when
   * an old one could not be deleted, and broken with a UserError when it cannot be written. */
  begin(state: RunState): Promise<string | undefined> {
    const { worker } = this
    assert(worker && !this.active, "no thread that is free to write a checkpoint")
    const job = this.job(state, this.room())
    const { promise, resolve } = Promise.withResolvers<Answer>()
    worker.onmessage = ({ data }: MessageEvent<Answer>) => resolve(data)
    worker.onerror = ({ message }) => resolve({ bug: `writing thread: ${message}` })
    worker.postMessage(job)
    const written = promise.then((answer) => {
      this.active = undefined
      const warning = check(answer)
      this.newest = state.step
      return warning
    })
    this.active = { shared: job.shared, written }
    return written
  }

  /** Writes what the run is at now, on this thread, unless it is on disk already. Returns a warning when
   * an old one could not be deleted; throws a UserError when it cannot be written. */
  write(state: RunState): string | undefined {
    assert(!this.active, "a checkpoint is still being written")
    if (this.newest === state.step) return undefined
    const warning = writeCheckpoint(this.job(state))
    this.newest = state.step
    return warning
  }

  /** Returns when weights and moments may change, although a checkpoint is being written. */
  secure(): void {
    if (this.active && this.program.isHost) secure(this.active.shared)
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

  private job(state: RunState, snapshot?: Span): Job {
    const { program, tensors, config } = this
    const { parameters, m, v, masters, precision } = tensors
    const { head, tail } = stateParts(state, masters !== undefined, this.B)
    const pieces: Span[] = []
    let copied = 0
    const copy = (tensor: Tensor): Span => {
      const room = this.snapshot!
      const span = { address: room.address + copied, bytes: tensorBytes(tensor) }
      program.copyOut(tensor, room, copied)
      copied += span.bytes
      return span
    }
    const range = (stack: typeof parameters): [number, number] => {
      const first = pieces.length
      const all = program.isHost ? spans(program, stack, config) : inOrder(stack, config).map(copy)
      pieces.push(...cut(all))
      return [first, pieces.length]
    }
    const sections = { m, v, master: masters }
    const { step } = state
    const model = [modelHead(config, precision), range(parameters)]
    const names = sectionsOf(masters !== undefined)
    const rest = [head, ...names.map((name) => range(sections[name]!)), tail]
    const files: Job["files"] = [
      { name: modelName(step), parts: model },
      { name: stateName(step), parts: rest },
    ]
    const shared = share(pieces, snapshot)
    return { folder: this.folder.path, step, files, shared, logs: LOGS, ...this.keeping }
  }

  /** Memory for a copy as large as the weights; none where the run itself takes what there is, or where
   * nothing that is written can change. */
  private room(): Span | undefined {
    if (!this.program.isHost) return undefined
    const weights = wideWeights(this.tensors) ?? this.tensors.parameters
    const bytes = spans(this.program, weights, this.config).reduce((sum, s) => sum + s.bytes, 0)
    if (this.program.plan.peak + bytes > usableMemory()) return undefined
    try {
      this.snapshot ??= allocate(bytes)
    } catch (error) {
      if (!(error instanceof UserError)) throw error
      return undefined // the update waits for the disk instead
    }
    return { address: this.snapshot.address, bytes }
  }
}

/** What a checkpoint holds. */
const stacksOf = ({ parameters, m, v, masters = {} }: TrainingProgram): Tensor[] =>
  [parameters, m, v, masters].flatMap((stack) => Object.values<Tensor>(stack))

/** What a copy of a GPU's numbers is for. Its size is the model's; a run that goes on cannot change it. */
function copyOf({ masters, slots }: TrainingProgram, isResumed = false): Purpose {
  const hasChoice = masters && !slots // products in eight bits keep them
  const lighter = hasChoice ? ["a smaller model", "--master-weights 0"] : ["a smaller model"]
  return {
    needs: "beside the GPU's, the copy that checkpoints are written from needs",
    ways: isResumed ? ["a machine that has more"] : [...lighter, "or no --out"],
  }
}

function startThread(): Promise<Worker> {
  return new Promise((resolve, reject) => {
    const worker = new Worker(workerUrl("train/writer-worker"))
    const fail = (why: string) => {
      clearTimeout(timer)
      worker.terminate()
      reject(new UserError(`cannot start the writing thread: ${why}`))
    }
    const timer = setTimeout(fail, START_MS, "the system gives none")
    worker.onerror = ({ message }) => fail(message)
    worker.onmessage = () => {
      clearTimeout(timer)
      resolve(worker)
    }
  })
}

function check(answer: Answer): string | undefined {
  if ("userError" in answer) throw new UserError(answer.userError)
  if ("bug" in answer) throw new Error(answer.bug)
  return "warning" in answer ? answer.warning : undefined
}

/** The size of a checkpoint's files, but for the order of shuffled data. */
export function checkpointBytes(
  config: Config,
  { precision, masters, slots = [] }: TrainingProgram,
): number {
  const tail = 16 * WINDOW + slots.reduce((sum, all) => sum + 8 * elements(all), 0)
  return modelBytes(config, precision) + stateBytes(config, masters !== undefined, tail)
}
