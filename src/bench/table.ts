// Results as aligned text that is a Markdown table as well.

/** Columns whose heading ends in ":" are flush right, as in Markdown's own rule. */
export function table(headings: string[], rows: string[][]): string {
  const names = headings.map((heading) => heading.replace(/:$/, ""))
  const widths = names.map((name, i) => Math.max(3, name.length, ...rows.map((r) => r[i]!.length)))
  const isRight = headings.map((heading) => heading.endsWith(":"))
  const line = (cells: string[]) => {
    const padded = cells.map((c, i) => (isRight[i] ? c.padStart(widths[i]!) : c.padEnd(widths[i]!)))
    return `| ${padded.join(" | ")} |`
  }
  const rule = widths.map((w, i) => (isRight[i] ? `${"-".repeat(w - 1)}:` : "-".repeat(w)))
  return `${[line(names), line(rule), ...rows.map(line)].join("\n")}\n`
}

/** Three significant digits, or all of a whole number that has more. */
export function digits(value: number): string {
  if (value === 0) return "0"
  const places = Math.max(0, 2 - Math.floor(Math.log10(Math.abs(value))))
  return value.toFixed(Math.min(places, 6))
}

export const percent = (ratio: number) => `${(100 * ratio).toFixed(1)} %`
export const giga = (value: number) => digits(value / 1e9)

export function duration(ms: number): string {
  if (ms >= 1000) return `${digits(ms / 1000)} s`
  return ms >= 1 ? `${digits(ms)} ms` : `${digits(ms * 1000)} µs`
}

export function median(values: number[]): number {
  const sorted = values.toSorted((a, b) => a - b)
  const middle = Math.floor(sorted.length / 2)
  return sorted.length % 2 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2
}
