// --help, from the option table.

import { type CommandSpec, type OptionSpec, positionals } from "./options.ts"

const WIDTH = 100 // columns of a line
const GAP = 2 // columns between a name and what it means

/** The help text of a command. */
export function helpText(command: CommandSpec): string {
  const { name, summary, options, examples = [] } = command
  const taken = positionals(command)
  const shown = taken.map(({ name, required, many }) => {
    const text = many ? `${name}...` : name
    return required ? text : `[${text}]`
  })
  const lines = [`llm ${[name, ...shown, "[options]"].join(" ")}`, "", summary]
  // llm.c's short forms stand before the long names, which begin in one column.
  const shorts = Math.max(0, ...options.map(({ short }) => (short ? short.length + 3 : 0)))
  const names = new Map(options.map((option) => [option, nameOf(option, shorts)]))
  const all = [...taken.map(({ name }) => name), ...names.values()]
  const left = 2 + Math.max(...all.map(({ length }) => length)) + GAP
  if (taken.length > 0) {
    lines.push("", ...taken.flatMap(({ name, help }) => row(name, help, left)))
  }
  for (const group of new Set(options.map((option) => option.group))) {
    lines.push("", `${group}:`)
    for (const option of options.filter((candidate) => candidate.group === group)) {
      const fallback = "default" in option ? ` (${option.default})` : ""
      lines.push(...row(names.get(option)!, `${option.help}${fallback}`, left))
    }
  }
  if (examples.length > 0) lines.push("", "Examples:", ...examples.map((example) => `  ${example}`))
  return `${lines.join("\n")}\n`
}

function nameOf(option: OptionSpec, shorts: number): string {
  const short = option.short ? `-${option.short}, ` : ""
  const value = option.kind === "flag" ? "" : ` ${option.value}`
  return `${short.padStart(shorts)}--${option.name}${value}`
}

/** A name and what it means, which goes on under itself where a line ends. */
function row(name: string, help: string, left: number): string[] {
  const parts = help.match(new RegExp(`\\S.{0,${WIDTH - left - 1}}(?= |$)`, "g")) ?? []
  return parts.map((part, i) => `  ${i === 0 ? name : ""}`.padEnd(left) + part)
}
