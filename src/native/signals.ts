// Ctrl-C and its kin. JavaScript hears a signal only between native calls, and one of those can take
// seconds, so the second signal is left to the system, which ends the process at once.

import { ptr } from "bun:ffi"
import { constants } from "node:os"
import { setImmediate } from "node:timers/promises"
import { libc } from "./libc.ts"

const SIGNALS = ["SIGINT", "SIGTERM"] as const
export type StopSignal = (typeof SIGNALS)[number]

/** Listens, until it is disposed of, for a signal that asks the program to stop. */
export class Stop {
  /** The first signal that was heard. */
  private signal: StopSignal | undefined
  private readonly hear = (signal: StopSignal) => {
    this.signal ??= signal
  }

  constructor() {
    for (const signal of SIGNALS) {
      process.on(signal, this.hear)
      resetAfterFirst(constants.signals[signal])
    }
  }

  /** The signal that has come by now. */
  async heard(): Promise<StopSignal | undefined> {
    await setImmediate()
    return this.signal
  }

  [Symbol.dispose](): void {
    for (const signal of SIGNALS) process.off(signal, this.hear)
  }
}

/** The exit code of a program that a signal has stopped, as a shell counts. */
export const exitCodeOf = (signal: StopSignal): number => 128 + constants.signals[signal]

const SIGACTION_BYTES = 152 // glibc's struct, the same on x86-64 and arm64
const FLAGS_INDEX = 136 / 4 // of its sa_flags, an int
const SA_RESETHAND = 0x80000000

/** Leaves a signal's handler in place for one signal: the next one does what the system does. */
function resetAfterFirst(signal: number): void {
  const action = new Uint32Array(SIGACTION_BYTES / 4)
  libc().sigaction(signal, 0, ptr(action))
  action[FLAGS_INDEX]! |= SA_RESETHAND
  libc().sigaction(signal, ptr(action), 0)
}
