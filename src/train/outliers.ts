// Which steps are unlike the last ones: a loss or a gradient's norm far above those of the window. The
// rule is llm.c's: the newest number is part of the window that it is judged by.

import { WINDOW } from "../formats/state.ts"

export class Outliers {
  /** The last numbers, at most WINDOW, the newest last. */
  readonly window: number[]

  constructor(window: readonly number[] = []) {
    this.window = [...window]
  }

  /** Takes in a number. Returns its z-score, how many standard deviations it is above the window's mean;
   * undefined while the window is being filled. */
  push(x: number): number | undefined {
    this.window.push(x)
    if (this.window.length <= WINDOW) return undefined
    this.window.shift()
    const mean = this.window.reduce((sum, y) => sum + y, 0) / WINDOW
    const variance = this.window.reduce((sum, y) => sum + (y - mean) ** 2, 0) / WINDOW
    return variance === 0 ? 0 : (x - mean) / Math.sqrt(variance)
  }
}
