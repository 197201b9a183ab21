// The name that somebody may have meant.

const PART = 3 // edits that a candidate is away which goes on where the text ends, or the other way

/** The candidate within two edits of a text, or a third of its length, that shares a letter with
 * it, or one that is a part of it, as --grad is of --grad-clip; undefined if there is none. */
export function nearest(text: string, candidates: readonly string[]): string | undefined {
  const letters = text.replace(/^-+/, "").length
  const limit = Math.min(Math.max(2, text.length / 3), letters - 1)
  const near = candidates.flatMap((candidate) => {
    const isPart = candidate.startsWith(`${text}-`) || text.startsWith(`${candidate}-`)
    if (isPart) return [{ candidate, distance: PART }]
    // So many letters are too many or too few; a long text need not be looked at.
    if (Math.abs(text.length - candidate.length) > limit) return []
    const distance = edits(text, candidate)
    return distance <= limit ? [{ candidate, distance }] : []
  })
  return near.sort((a, b) => a.distance - b.distance)[0]?.candidate
}

/** Levenshtein's distance. */
function edits(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, j) => j)
  for (let i = 1; i <= a.length; i++) {
    const next = [i]
    for (let j = 1; j <= b.length; j++) {
      const replaced = row[j - 1]! + (a[i - 1] === b[j - 1] ? 0 : 1)
      next.push(Math.min(replaced, row[j]! + 1, next[j - 1]! + 1))
    }
    row = next
  }
  return row[b.length]!
}
