// Where a text ends: at the first of some strings, which may lie across tokens. What could be the
// beginning of one is held back until it is known.

export class StopStrings {
  /** Whether one of them has come. */
  isFound = false
  private held = ""

  constructor(private readonly stops: readonly string[]) {}

  /** The text that can be shown now: up to and without a stop string. */
  push(text: string): string {
    if (this.isFound) return ""
    const all = this.held + text
    const at = this.find(all)
    this.isFound = at !== undefined
    const shown = all.slice(0, at ?? all.length - this.beginning(all))
    this.held = this.isFound ? "" : all.slice(shown.length)
    return shown
  }

  /** What was held back, when no more comes. */
  end(): string {
    const rest = this.held
    this.held = ""
    return rest
  }

  /** Where the string begins that is complete first; of those that end together, the longest one. */
  private find(text: string): number | undefined {
    let first: { at: number; end: number } | undefined
    for (const stop of this.stops) {
      const at = text.indexOf(stop)
      if (at < 0) continue
      const end = at + stop.length
      if (!first || end < first.end || (end === first.end && at < first.at)) first = { at, end }
    }
    return first?.at
  }

  /** The length of the longest end of the text that a stop string begins with. */
  private beginning(text: string): number {
    const longest = Math.max(0, ...this.stops.map((stop) => stop.length - 1))
    let length = Math.min(longest, text.length)
    while (length > 0 && !this.stops.some((stop) => stop.startsWith(text.slice(-length)))) length--
    return length
  }
}
