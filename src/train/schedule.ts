// Learning rate of a step, by llm.c's four schedules.

export const SCHEDULES = ["cosine", "linear", "constant", "wsd"] as const
export type ScheduleName = (typeof SCHEDULES)[number]

export interface Schedule {
  name: ScheduleName
  /** Highest rate. */
  lr: number
  /** Steps of linear warm-up. */
  warmup: number
  /** All steps. */
  steps: number
  /** Rate at the end, as a fraction of lr. */
  finalFraction: number
}

const WSD_DECAY = 0.2 // last part of the steps in which warm-up-stable-decay decays

/** The rate of step s, counted from 0. */
export function learningRate({ name, lr, warmup, steps, finalFraction }: Schedule, s: number) {
  if (name === "constant") return lr
  if (s < warmup) return (lr * (s + 1)) / warmup
  const final = lr * finalFraction
  if (name === "wsd") {
    const start = Math.floor(steps * (1 - WSD_DECAY))
    if (s < start) return lr
    // 1 − √d, from lr to final (Hägele et al. 2024).
    return final + (1 - Math.sqrt((s - start) / (steps - start))) * (lr - final)
  }
  const d = steps > warmup ? Math.min(1, (s - warmup) / (steps - warmup)) : 1
  if (name === "linear") return lr - d * (lr - final)
  return final + 0.5 * (1 + Math.cos(Math.PI * d)) * (lr - final)
}
