/** A user's mistake: printed as one line, exit code 2. It names the flag or path, the value, the
 * rule and the way out. */
export class UserError extends Error {
  constructor(message: string) {
    super(oneLine(message))
  }
}

/** Control characters, which a path or a value may hold, spelled out: they would break the line or the
 * terminal. */
export function oneLine(text: string): string {
  return text.replace(/\p{Cc}/gu, (c) => `\\u${c.charCodeAt(0).toString(16).padStart(4, "0")}`)
}

/** Marks a bug of ours, never a user's input. */
export function assert(condition: unknown, message: string): asserts condition {
  if (!condition) throw new Error(`internal error: ${message}`)
}
