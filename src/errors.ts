/** A user's mistake: printed as one line, exit code 2. It names the flag or path, the value, the
 * rule and the way out. */
export class UserError extends Error {}

/** Marks a bug of ours, never a user's input. */
export function assert(condition: unknown, message: string): asserts condition {
  if (!condition) throw new Error(`internal error: ${message}`)
}
