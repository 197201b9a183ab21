// Ctrl-C and its kin. JavaScript hears a signal only between native calls, and one of those can take
// seconds, so the second signal is left to the system, which ends the process at once.

import { ptr } from "bun:ffi"
import { constants } from "node:os"
import { setImmediate } from "node:timers/promises"
import { libc } from "./libc.ts"

const SIGNALS = ["SIGINT", "SIGTERM", "SIGHUP"] as const
/** SIGPIPE is said for a reader of the output that has gone away. */
export type StopSignal = (typeof SIGNALS)[number] | "SIGPIPE"

/** Listens, until it is disposed of, for a signal that asks the program to stop. */
export class Stop {
  private static current: Stop | undefined
  /** The first signal that was heard. */
  private signal: StopSignal | undefined
  private readonly hear = (signal: StopSignal) => {
    this.signal ??= signal
  }

  /** `outlivesOutput`: the work is worth more than what it says, and goes on when that is lost. */
  constructor(private readonly outlivesOutput = false) {
    Stop.current = this
    for (const signal of SIGNALS) {
      if (isIgnored(constants.signals[signal])) continue // as nohup has it
      process.on(signal, this.hear)
      resetAfterFirst(constants.signals[signal])
    }
  }

  /** Told by whoever writes the output that it cannot be written. True: the program knows, and ends by
   * itself when it has finished what must not be broken off, or goes on; false: nobody cares. */
  static outputLost(isPipe: boolean): boolean {
    const current = Stop.current
    if (!current?.outlivesOutput) return false
    if (isPipe) current.hear("SIGPIPE")
    return true
  }

  /** The signal that has come by now. */
  async heard(): Promise<StopSignal | undefined> {
    await setImmediate()
    return this.signal
  }

  [Symbol.dispose](): void {
    for (const signal of SIGNALS) process.off(signal, this.hear)
    Stop.current = undefined
  }
}

/** The exit code of a program that a signal has stopped, as a shell counts. */
export const exitCodeOf = (signal: StopSignal): number => 128 + constants.signals[signal]

const SIGACTION_BYTES = 152 // glibc's struct, the same on x86-64 and arm64
const FLAGS_INDEX = 136 / 4 // of its sa_flags, an int
const SA_RESETHAND = 0x80000000

const SIG_IGN = 1 // in the first word, where a handler's address would stand

function isIgnored(signal: number): boolean {
  const action = new Uint32Array(SIGACTION_BYTES / 4)
  libc().sigaction(signal, 0, ptr(action))
  return action[0] === SIG_IGN && action[1] === 0
}

/** Leaves a signal's handler in place for one signal: the next one does what the system does. */
function resetAfterFirst(signal: number): void {
  const action = new Uint32Array(SIGACTION_BYTES / 4)
  libc().sigaction(signal, 0, ptr(action))
  action[FLAGS_INDEX]! |= SA_RESETHAND
  libc().sigaction(signal, ptr(action), 0)
}
