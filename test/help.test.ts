// The option table as help shows it, and the names in it.

import { describe, expect, test } from "bun:test"
import { command as data } from "../src/commands/data.ts"
import { command as emit } from "../src/commands/emit.ts"
import { command as evaluate } from "../src/commands/eval.ts"
import { command as info } from "../src/commands/info.ts"
import { command as plan } from "../src/commands/plan.ts"
import { command as sample } from "../src/commands/sample.ts"
import { command as train } from "../src/commands/train.ts"
import { helpText } from "../src/help.ts"
import { parseOptions } from "../src/options.ts"

const COMMANDS = [data, emit, evaluate, info, plan, sample, train].map(({ spec }) => spec)

describe("help", () => {
  /** The rows of a help text: an option's name as it stands there, and all that is said of it. */
  function rows(text: string) {
    const found: { group: string; name: string; help: string; column: number }[] = []
    let group = ""
    for (const line of text.split("\n")) {
      if (line.startsWith("Examples:")) break
      const heading = /^(\w[\w ]*):$/.exec(line)
      const row = /^ {2}((?: *-[a-z]+, | *)--\S+(?: \S+)?) {2,}(\S.*)$/.exec(line)
      const more = /^( {10,})(\S.*)$/.exec(line)
      if (heading) group = heading[1]!
      else if (row) {
        found.push({ group, name: row[1]!, help: row[2]!, column: line.length - row[2]!.length })
      } else if (more && found.length > 0) {
        expect(more[1]).toHaveLength(found[0]!.column) // it goes on under itself
        found.at(-1)!.help += ` ${more[2]}`
      }
    }
    return found
  }

  test.each(COMMANDS.map((spec) => [spec.name, spec] as const))(
    "of %s lists every option once under its heading, with short form, value and default",
    (_, spec) => {
      const text = helpText(spec)
      const found = rows(text)
      const groups = [...new Set(spec.options.map(({ group }) => group))]
      const sorted = groups.flatMap((group) => spec.options.filter((o) => o.group === group))
      expect(found.map(({ group, name, help }) => ({ group, name: name.trim(), help }))).toEqual(
        sorted.map((option) => ({
          group: option.group,
          name: `${option.short ? `-${option.short}, ` : ""}--${option.name}${option.kind === "flag" ? "" : ` ${option.value}`}`,
          help: `${option.help}${"default" in option ? ` (${option.default})` : ""}`,
        })),
      )
      // Long names begin in one column, and so does what they mean.
      expect(new Set(found.map(({ name }) => name.indexOf("--"))).size).toBe(1)
      expect(new Set(found.map(({ column }) => column)).size).toBe(1)
      for (const line of text.split("\n")) {
        expect(line.length).toBeLessThanOrEqual(100)
        expect(line).toBe(line.trimEnd())
      }
      expect(text).toStartWith(`llm ${spec.name}`)
      if (spec.positional) expect(text.split("\n")[0]).toContain(spec.positional.name)
    },
  )

  test("of train has its headings in the order in which a run is planned", () => {
    const headings = [...helpText(train.spec).matchAll(/^(\w.*):$/gm)].map(([, heading]) => heading)
    const order = ["Data", "Model", "Batch", "Optimizer", "Validation and samples", "Run"]
    expect(headings.filter((heading) => order.includes(heading!))).toEqual(order)
    expect(headings.slice(-3)).toEqual(["Precision and memory", "Machine", "Examples"])
  })

  test.each(COMMANDS.map((spec) => [spec.name, spec] as const))(
    "the examples of %s are understood",
    (_, spec) => {
      for (const example of spec.examples ?? []) {
        // As a shell would cut it, up to a redirection.
        const words = [...example.replace(/ >.*/, "").matchAll(/'([^']*)'|"([^"]*)"|(\S+)/g)]
        const [llm, name, ...args] = words.map(
          ([, single, double, bare]) => single ?? double ?? bare!,
        )
        expect([llm, name]).toEqual(["llm", spec.name])
        expect(() => parseOptions(spec, args)).not.toThrow()
      }
    },
  )
})

describe("names and short forms", () => {
  test.each(COMMANDS.map((spec) => [spec.name, spec] as const))("of %s are unique", (_, spec) => {
    const names = spec.options.map(({ name }) => name)
    const shorts = [...spec.options, ...(spec.positional ? [spec.positional] : [])].flatMap(
      ({ short }) => short ?? [],
    )
    expect(new Set(names).size).toBe(names.length)
    expect(new Set(shorts).size).toBe(shorts.length)
    // What others call an option is not another option, and not another's name too.
    const known = [...names, ...spec.options.flatMap(({ also = [] }) => also)]
    expect(new Set(known).size).toBe(known.length)
    for (const name of known) expect(name).toMatch(/^[a-z][a-z0-9]*(-[a-z0-9]+)*$/)
    for (const option of spec.options) {
      if (option.kind === "flag" || option.kind === "text" || option.default === undefined) continue
      // The default keeps to the option's own rules.
      expect(() =>
        parseOptions(
          spec,
          ["x", `--${option.name}=${option.default}`].slice(spec.positional ? 0 : 1),
        ),
      ).not.toThrow()
    }
  })
})
