// The option table: one row gives an option's parsing, default, range, help text, its place in the
// config file and in run.toml.

import { readFileSync } from "node:fs"
import { reason } from "./data/files.ts"
import { UserError } from "./errors.ts"
import { nearest } from "./nearest.ts"

export type Value = string | number | boolean | string[]

interface Base {
  /** Long name, without dashes. */
  name: string
  /** llm.c's short form, without its dash. */
  short?: string
  /** What other programs call it; suggested from, not understood. */
  also?: readonly string[]
  /** Its heading in the help. */
  group: string
  help: string
}
export type OptionSpec = Base &
  (
    | { kind: "flag" }
    | {
        kind: "text"
        default?: string
        value: string
        choices?: readonly string[]
        /** Other commands' choices, with what to do about them here. */
        elsewhere?: Readonly<Record<string, string>>
        /** May be given several times. */
        many?: boolean
      }
    | {
        kind: "int" | "float"
        default?: number
        value: string
        min: number
        max?: number
        /** The bounds themselves are not allowed. */
        open?: "min" | "max"
      }
  )

interface Positional {
  name: string
  short?: string
  help: string
  required: boolean
  /** Several may be given; of the last one only. */
  many?: boolean
}

export interface CommandSpec {
  name: string
  summary: string
  /** The positional argument, and the one that may follow it. */
  positional?: Positional
  second?: Positional
  options: readonly OptionSpec[]
  examples?: readonly string[]
}

/** What the user said, by long name; a positional argument by its name in lower case. Options that
 * were not given have their default, or are absent when they have none. */
export class Options {
  constructor(
    private readonly command: CommandSpec,
    private readonly given: Map<string, Value>,
    private readonly more: readonly string[] = [],
  ) {}

  /** Every positional argument. */
  positionals(): string[] {
    const { positional } = this.command
    const first = positional && this.text(positional.name.toLowerCase())
    return first === undefined ? [] : [first, ...this.more]
  }

  /** Whether the command line or the config file said so. */
  isGiven(name: string): boolean {
    this.spec(name)
    return this.given.has(name)
  }

  /** Every option that has a value, given or by default. */
  resolved(): Record<string, Value> {
    const names = this.command.options.map((option) => option.name)
    const all = [...positionals(this.command).map(keyOf), ...names].filter(
      (name) => name !== "config",
    )
    return Object.fromEntries(
      all.flatMap((name) => {
        const value = this.value(name)
        return value === undefined ? [] : [[name, value]]
      }),
    )
  }

  flag(name: string): boolean {
    return this.value(name) === true
  }

  text(name: string): string | undefined {
    return this.value(name) as string | undefined
  }

  /** The texts of an option that may be given several times. */
  texts(name: string): string[] {
    return (this.value(name) as string[] | undefined) ?? []
  }

  number(name: string): number {
    return this.value(name) as number
  }

  optionalNumber(name: string): number | undefined {
    return this.value(name) as number | undefined
  }

  /** Names of what the command line or the config file said. */
  get names(): string[] {
    return [...this.given.keys()]
  }

  /** Of the same command, with nothing said. */
  none(): Options {
    return new Options(this.command, new Map())
  }

  /** The same, with a file's values where neither the command line nor --config says anything, but for
   * the options named in `except`. */
  over(path: string, except: readonly string[]): Options {
    const beneath = new Map<string, Value>()
    readConfig(this.command, "", path, beneath)
    for (const name of except) beneath.delete(name)
    return new Options(this.command, new Map([...beneath, ...this.given]), this.more)
  }

  private value(name: string): Value | undefined {
    const spec = this.spec(name)
    return this.given.get(name) ?? (spec && "default" in spec ? spec.default : undefined)
  }

  private spec(name: string): OptionSpec | undefined {
    const spec = this.command.options.find((option) => option.name === name)
    if (!spec && !positionals(this.command).some((each) => keyOf(each) === name)) {
      throw new Error(`internal error: llm ${this.command.name} has no option ${name}`)
    }
    return spec
  }
}

/** The positional arguments in their order. */
export function positionals({ positional, second }: CommandSpec): Positional[] {
  return [positional, second].flatMap((each) => each ?? [])
}

/** The name under which a positional argument is kept. */
const keyOf = ({ name }: Positional) => name.toLowerCase()

/** Reads a command line. With --config FILE, the file's values stand where the command line says
 * nothing. */
export function parseOptions(command: CommandSpec, args: string[]): Options {
  const given = new Map<string, Value>()
  const expected = positionals(command)
  const more: string[] = []
  for (let i = 0; i < args.length; i++) {
    let arg = args[i]!
    // llm.c names its token files by an option.
    const short = command.positional?.short && `-${command.positional.short}`
    const isNamed = short !== undefined && (arg === short || arg.startsWith(`${short}=`))
    if (isNamed) {
      const inline = arg === short ? undefined : arg.slice(short.length + 1)
      arg = takeValue(short, command.positional!.name, inline, args[inline === undefined ? ++i : i])
    }
    if (isNamed || !arg.startsWith("-")) {
      const free = expected.find((each) => !given.has(keyOf(each)))
      if (!free && !expected.at(-1)?.many) throw tooMany(command, given, arg)
      if (arg === "")
        throw new UserError(`${(free ?? expected[0])!.name} is empty (${SEE(command)})`)
      if (free) given.set(keyOf(free), arg)
      else more.push(arg)
      continue
    }
    if (arg === "-" || arg === "--") {
      throw new UserError(`${arg} alone means nothing to llm ${command.name} (${SEE(command)})`)
    }
    const { spec, inline } = findOption(command, arg)
    const label = arg.split("=", 1)[0]!
    const isMany = spec.kind === "text" && spec.many
    if (given.has(spec.name) && !isMany) throw new UserError(`${label} is given twice`)
    if (spec.kind === "flag") {
      if (inline !== undefined) throw new UserError(`${label} takes no value, but got ${inline}`)
      // llm.c's short flags are followed by 0 or 1.
      const hasValue = !label.startsWith("--") && /^[01]$/.test(args[i + 1] ?? "")
      given.set(spec.name, !hasValue || args[++i] === "1")
      continue
    }
    const next = inline === undefined ? args[++i] : undefined
    const value = parseValue(spec, label, takeValue(label, spec.value, inline, next))
    const before = (given.get(spec.name) as string[] | undefined) ?? []
    given.set(spec.name, isMany ? [...before, value as string] : value)
  }
  const config = given.get("config")
  if (typeof config === "string") readConfig(command, "--config ", config, given)
  const missing = expected.find((each) => each.required && !given.has(keyOf(each)))
  if (!missing) return new Options(command, given, more)
  const { name, help } = missing
  throw new UserError(`llm ${command.name} needs ${name}: ${help} (${SEE(command)})`)
}

function tooMany(command: CommandSpec, given: Map<string, Value>, arg: string): UserError {
  const [first, second] = positionals(command)
  const { name } = command
  if (!first) return new UserError(`llm ${name} takes no argument, but got ${arg}`)
  if (second) {
    const both = `${first.name} and ${second.name}`
    return new UserError(`llm ${name} takes ${both}, but then got ${arg} (${SEE(command)})`)
  }
  const got = `${given.get(keyOf(first))} and ${arg}`
  const hint = first.name === "TOKENS" ? "quote a glob" : SEE(command)
  return new UserError(`llm ${name} takes one ${first.name}, but got ${got} (${hint})`)
}

const SEE = (command: CommandSpec) => `see llm ${command.name} --help`

// A negative number is a value, not an option.
const isOptionLike = (text: string) => /^-[a-zA-Z-]/.test(text)

/** An option's value: what stands behind its =, or else the next argument. */
function takeValue(label: string, what: string, inline?: string, next?: string): string {
  if (inline !== undefined) return inline
  if (next === undefined) throw new UserError(`${label} needs a value: ${label} ${what}`)
  if (!isOptionLike(next)) return next
  throw new UserError(
    `${label} needs a value, but got the option ${next} (a value that starts so: ${label}=${next})`,
  )
}

function findOption(command: CommandSpec, arg: string): { spec: OptionSpec; inline?: string } {
  const [, dashes, name, inline] = /^(--?)([^=]*)(?:=(.*))?$/s.exec(arg)!
  const spec = command.options.find((option) =>
    dashes === "--" ? option.name === name : option.short === name,
  )
  if (spec) return { spec, inline }
  const hint = suggestion(command, name!, dashes!)
  throw new UserError(`llm ${command.name} has no option ${dashes}${name} (${hint})`)
}

/** What may be meant by a name that is none: on the command line with dashes, in a config file
 * without. */
function suggestion(command: CommandSpec, name: string, dashes: string): string {
  const long = dashes === "" ? "" : "--"
  const meant = new Map<string, string>() // what one may write → what to suggest
  for (const { name, short, also = [] } of command.options) {
    if (long === "" && name === "config") continue
    for (const text of [name, ...also]) meant.set(`${long}${text}`, `${long}${name}`)
    if (long !== "" && short) meant.set(`-${short}`, `-${short}`)
  }
  const { name: positional } = command.positional ?? {}
  if (positional) {
    const key = positional.toLowerCase()
    meant.set(`${long}${key}`, long === "" ? key : positional)
  }
  const near = nearest(`${dashes}${name}`, [...meant.keys()])
  return near === undefined ? SEE(command) : `did you mean ${meant.get(near)}?`
}

function parseValue(
  spec: OptionSpec & { kind: Exclude<OptionSpec["kind"], "flag"> },
  label: string,
  text: string,
): Value {
  if (spec.kind === "text") {
    if (text === "") throw new UserError(`${label} is empty: it takes ${spec.value}`)
    if (spec.choices && !spec.choices.includes(text)) {
      const near = nearest(text, spec.choices)
      const meant = near && `did you mean ${near}?`
      const hint = spec.elsewhere?.[text] ?? meant
      const known = spec.choices.join(", ")
      throw new UserError(`${label} ${text} is not one of ${known}${hint ? ` (${hint})` : ""}`)
    }
    return text
  }
  const isNumber = /^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i.test(text)
  const value = Number(text)
  const what = spec.kind === "int" ? "a whole number" : "a number"
  if (
    !isNumber ||
    !Number.isFinite(value) ||
    (spec.kind === "int" && !Number.isSafeInteger(value))
  ) {
    throw new UserError(`${label} ${text} is not ${what}${rangeText(spec)}`)
  }
  const { min, max = Number.POSITIVE_INFINITY, open } = spec
  const isLow = open === "min" ? value <= min : value < min
  const isHigh = open === "max" ? value >= max : value > max
  if (isLow || isHigh) throw new UserError(`${label} ${text} is not ${what}${rangeText(spec)}`)
  return value
}

function rangeText({
  min,
  max,
  open,
}: {
  min: number
  max?: number
  open?: "min" | "max"
}): string {
  const low = open === "min" ? `above ${min}` : `from ${min}`
  if (max === undefined || max === Number.POSITIVE_INFINITY)
    return ` ${low}${open === "min" ? "" : " up"}`
  return ` ${low} ${open === "max" ? "to below" : "to"} ${max}`
}

function readConfig(
  command: CommandSpec,
  option: string,
  path: string,
  given: Map<string, Value>,
): void {
  let bytes: Uint8Array
  try {
    bytes = readFileSync(path)
  } catch (error) {
    throw new UserError(`${option}${path}: cannot read: ${reason(error)} (give a TOML file)`)
  }
  let table: Record<string, unknown>
  try {
    const text = new TextDecoder("utf-8", { fatal: true }).decode(bytes)
    table = Bun.TOML.parse(text) as Record<string, unknown>
  } catch (error) {
    const what = (error as Error).message.replace(/^TOML Parse error: /, "")
    throw new UserError(`${option}${path}: not TOML: ${what} (write name = value, a line each)`)
  }
  const positional = command.positional?.name.toLowerCase()
  for (const [key, value] of Object.entries(table)) {
    const label = `${path}: ${key}`
    if (key === "version" || key === "command") continue // run.toml says who wrote it
    const spec = command.options.find(({ name }) => name === key && name !== "config")
    // Of a run's options plan and emit take what is theirs.
    if (!spec && table.command === "train" && command.name !== "train") continue
    if (!spec && key !== positional) {
      const hint = suggestion(command, key, "")
      throw new UserError(`${label} is no option of llm ${command.name} (${hint})`)
    }
    const read = configValue(spec, label, value)
    if (!given.has(key)) given.set(key, read)
  }
}

function configValue(spec: OptionSpec | undefined, label: string, value: unknown): Value {
  const wanted = { flag: "boolean", text: "string", int: "number", float: "number" } as const
  const type = wanted[spec?.kind ?? "text"]
  // A choice such as 1 may stand as a number.
  const isChoice = spec?.kind === "text" && spec.choices && typeof value === "number"
  if (typeof value !== type && !isChoice) {
    const what = { boolean: "true or false", string: 'a "text"', number: "a number" }[type]
    throw new UserError(`${label} must be ${what}, but is ${JSON.stringify(value)}`)
  }
  if (spec?.kind === "flag") return value as boolean
  if (spec) return parseValue(spec, label, String(value))
  if (value === "") throw new UserError(`${label} is empty (leave it out)`)
  return value as string
}
