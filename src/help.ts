// --help, from the option table.

import type { CommandSpec, OptionSpec } from "./options.ts"

/** The help text of a command. */
export function helpText(command: CommandSpec): string {
  const { name, summary, positional, options, examples = [] } = command
  const argument = positional
    ? positional.required
      ? positional.name
      : `[${positional.name}]`
    : ""
  const lines = [`llm ${[name, argument, "[options]"].filter(Boolean).join(" ")}`, "", summary]
  if (positional) lines.push("", `  ${positional.name.padEnd(LEFT)}${positional.help}`)
  for (const group of new Set(options.map((option) => option.group))) {
    lines.push("", `${group}:`)
    for (const option of options.filter((candidate) => candidate.group === group)) {
      lines.push(...optionLines(option))
    }
  }
  if (examples.length > 0) lines.push("", "Examples:", ...examples.map((example) => `  ${example}`))
  return `${lines.join("\n")}\n`
}

const LEFT = 28 // columns of names

function optionLines(option: OptionSpec): string[] {
  const value = option.kind === "flag" ? "" : ` ${option.value}`
  const short = option.short ? `, -${option.short}` : ""
  const names = `  --${option.name}${short}${value}`
  const fallback = "default" in option ? ` (${option.default})` : ""
  const help = `${option.help}${fallback}`
  if (names.length < LEFT + 2) return [`${names.padEnd(LEFT + 2)}${help}`]
  return [names, `${" ".repeat(LEFT + 2)}${help}`]
}
