// The option table: how a command line and a config file become options.

import { afterAll, describe, expect, test } from "bun:test"
import { mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import fc from "fast-check"
import { command as data } from "../src/commands/data.ts"
import { command as plan } from "../src/commands/plan.ts"
import { command as sample } from "../src/commands/sample.ts"
import { command as train } from "../src/commands/train.ts"
import { UserError } from "../src/errors.ts"
import { helpText } from "../src/help.ts"
import { nearest } from "../src/nearest.ts"
import { type OptionSpec, parseOptions } from "../src/options.ts"
import { RunFolder } from "../src/train/runfolder.ts"

const folder = mkdtempSync(join(tmpdir(), "options-"))
afterAll(() => rmSync(folder, { recursive: true }))

const parse = (...args: string[]) => parseOptions(train.spec, args)

function config(text: string): string {
  const path = join(folder, "run.toml")
  writeFileSync(path, text)
  return path
}

function refusal(...args: string[]): string {
  try {
    parse(...args)
  } catch (error) {
    expect(error).toBeInstanceOf(UserError)
    return (error as UserError).message
  }
  throw new Error("not refused")
}

describe("a command line", () => {
  test("long forms, short forms and = say the same", () => {
    const long = parse("toks.bin", "--batch", "8", "--lr", "1e-3", "--schedule", "wsd", "--shuffle")
    const inline = parse("--batch=8", "toks.bin", "--lr=1e-3", "--shuffle", "--schedule=wsd")
    const short = parse("-b", "8", "-l", "1e-3", "-k", "wsd", "--shuffle", "-i", "toks.bin")
    const mixed = parse("-b=8", "-l=1e-3", "-k=wsd", "--shuffle", "-i=toks.bin")
    expect(long.number("batch")).toBe(8)
    expect(long.number("lr")).toBe(1e-3)
    expect(long.text("schedule")).toBe("wsd")
    expect(long.flag("shuffle")).toBe(true)
    for (const other of [inline, short, mixed]) expect(other.resolved()).toEqual(long.resolved())
  })

  test("what is not said has its default, or is absent", () => {
    const options = parse()
    expect(options.number("batch")).toBe(4)
    expect(options.isGiven("batch")).toBe(false)
    expect(options.text("tokens")).toBeUndefined()
    expect(options.optionalNumber("context")).toBeUndefined()
    expect(options.flag("shuffle")).toBe(false)
    expect(options.resolved()).not.toHaveProperty("steps")
    expect(parse("--batch", "4").isGiven("batch")).toBe(true)
  })

  test("a short flag may be followed by 0 or 1, a long one not", () => {
    expect(parse("-a").flag("overfit-batch")).toBe(true)
    expect(parse("-a", "1").flag("overfit-batch")).toBe(true)
    expect(parse("-a", "0").flag("overfit-batch")).toBe(false)
    expect(parse("-a", "0").text("tokens")).toBeUndefined()
    expect(parse("-a", "10").text("tokens")).toBe("10")
    expect(parse("--overfit-batch", "0").text("tokens")).toBe("0")
    expect(parse("--overfit-batch", "0").flag("overfit-batch")).toBe(true)
  })

  test.each([
    ["1e-3", 1e-3],
    ["+.5", 0.5],
    ["2.", 2],
    ["1E2", 100],
    ["0", 0],
  ])("%s is a number", (text, value) => {
    expect(parse("--lr", text).number("lr")).toBe(value)
  })

  test("a number with a minus is a value, and refused by its range", () => {
    expect(refusal("--lr", "-1")).toBe("--lr -1 is not a number from 0 up")
    expect(refusal("--lr", "-.5")).toBe("--lr -.5 is not a number from 0 up")
    expect(refusal("--steps", "-3")).toBe("--steps -3 is not a whole number from 1 to 2147483647")
    expect(refusal("-u=-1")).toBe("-u -1 is not a whole number from 0 to 2147483647")
  })

  test("an option is not taken for a value, but = takes anything", () => {
    expect(refusal("--out", "--steps", "3")).toBe(
      "--out needs a value, but got the option --steps (a value that starts so: --out=--steps)",
    )
    expect(refusal("-i", "--steps", "3")).toStartWith(
      "-i needs a value, but got the option --steps",
    )
    expect(refusal("-i")).toBe("-i needs a value: -i TOKENS")
    expect(parse("--out=--steps").text("out")).toBe("--steps")
    expect(parse("--out=a=b").text("out")).toBe("a=b")
    expect(parse("-i=-x").text("tokens")).toBe("-x")
  })

  test("the same thing said twice is refused, in any form", () => {
    expect(refusal("--batch", "1", "-b", "2")).toBe("-b is given twice")
    expect(refusal("-a", "--overfit-batch")).toBe("--overfit-batch is given twice")
    expect(refusal("a.bin", "-i", "b.bin")).toContain("takes one TOKENS, but got a.bin and b.bin")
  })
})

describe("a command of several arguments", () => {
  test("takes them in their order, wherever the options stand", () => {
    const options = parseOptions(data.spec, ["a.txt", "--field", "x", "b", "--name=n", "c.json"])
    expect(options.positionals()).toEqual(["a.txt", "b", "c.json"])
    expect(options.text("field")).toBe("x")
    expect(helpText(data.spec)).toStartWith("llm data SOURCE... [options]\n")
  })

  test("needs one, and takes no empty one", () => {
    expect(() => parseOptions(data.spec, [])).toThrow("llm data needs SOURCE: ")
    expect(() => parseOptions(data.spec, ["a.txt", ""])).toThrow("SOURCE is empty")
  })

  test("is no other: their arguments are none or one", () => {
    expect(parse().positionals()).toEqual([])
    expect(parse("-i", "a.bin").positionals()).toEqual(["a.bin"])
  })
})

describe("an option that may be given several times", () => {
  const stops = (...args: string[]) => parseOptions(sample.spec, ["x", ...args]).texts("stop")

  test("has its texts in their order, or none", () => {
    expect(stops("--stop", "a,b", "--stop=--c")).toEqual(["a,b", "--c"])
    expect(stops("--stop", "a")).toEqual(["a"])
    expect(stops()).toEqual([])
  })

  test("is checked each time", () => {
    expect(() => stops("--stop", "a", "--stop=")).toThrow("--stop is empty: it takes TEXT")
  })
})

describe("a config file", () => {
  const file = () =>
    config('tokens = "toks.bin"\nbatch = 16\nlr = 0.01\nshuffle = true\nschedule = "linear"\n')

  test("stands where the command line says nothing, wherever it is named", () => {
    for (const args of [
      ["--batch", "2", "--config", file()],
      ["--config", file(), "--batch", "2"],
    ]) {
      const options = parse(...args)
      expect(options.number("batch")).toBe(2)
      expect(options.number("lr")).toBe(0.01)
      expect(options.flag("shuffle")).toBe(true)
      expect(options.text("schedule")).toBe("linear")
      expect(options.text("tokens")).toBe("toks.bin")
      expect(options.isGiven("lr")).toBe(true)
      expect(options.number("val-every")).toBe(20)
    }
    expect(parse("other.bin", "--config", file()).text("tokens")).toBe("other.bin")
  })

  test("a short flag's 0 wins over the file's true", () => {
    const path = config("overfit-batch = true\n")
    expect(parse("--config", path).flag("overfit-batch")).toBe(true)
    expect(parse("--config", path, "-a", "0").flag("overfit-batch")).toBe(false)
  })

  test("its values are held to the same rules, even those that the command line replaces", () => {
    const path = config("batch = 0\n")
    const message = `${path}: batch 0 is not a whole number from 1 to 1048576`
    expect(refusal("--config", path)).toBe(message)
    expect(refusal("--config", path, "--batch", "1")).toBe(message)
  })

  const odd = fc.constantFrom('"', "\\", "#", "\n", "\x7f", "\x9f", "\u2028", "é")
  const character = fc.oneof(odd, fc.string({ unit: "binary", minLength: 1, maxLength: 1 }))
  const text = fc.string({ unit: character, minLength: 1 })

  // Any value that a row of the table allows, as it would be typed.
  const typed = (option: OptionSpec): fc.Arbitrary<string> => {
    if (option.kind === "flag") return fc.constantFrom("0", "1")
    if (option.kind === "text") return option.choices ? fc.constantFrom(...option.choices) : text
    const { min, max = Number.MAX_VALUE } = option
    const numbers =
      option.kind === "int"
        ? fc.integer({ min, max })
        : fc.double({
            min,
            max,
            minExcluded: option.open === "min",
            maxExcluded: option.open === "max",
            noNaN: true,
          })
    return numbers.map(String)
  }

  test("that a run wrote with every option given means the same run", () => {
    const { positional, options } = train.spec
    const names = [positional!.name.toLowerCase()]
    const values: fc.Arbitrary<string>[] = [text]
    for (const option of options) {
      if (option.name === "config") continue
      names.push(option.name)
      values.push(typed(option))
    }
    fc.assert(
      fc.property(fc.tuple(...values), (all) => {
        const args = all.flatMap((value, i) => {
          if (i === 0) return [`-i=${value}`]
          const option = options.find(({ name }) => name === names[i])!
          if (option.kind !== "flag") return [`--${option.name}=${value}`]
          // Only the short form of a flag can say no.
          if (value === "1") return [`--${option.name}`]
          return option.short ? [`-${option.short}`, "0"] : []
        })
        const given = parse(...args)
        const path = join(folder, "run")
        rmSync(path, { recursive: true, force: true })
        RunFolder.create(path, given.resolved(), 0, () => {})
        const again = parse("--config", join(path, "run.toml"))
        expect(again.resolved()).toEqual(given.resolved())
        for (const name of Object.keys(given.resolved())) {
          expect([name, again.isGiven(name)]).toEqual([name, true])
        }
      }),
      { numRuns: 100 },
    )
  })

  test("of a run's run.toml another command takes what is its own", () => {
    const path = config('command = "train"\nsteps = 3\nbatch = 7\n')
    const options = parseOptions(plan.spec, ["--config", path])
    expect(options.number("batch")).toBe(7)
    const own = config("steps = 3\n")
    expect(() => parseOptions(plan.spec, ["--config", own])).toThrow(
      "steps is no option of llm plan",
    )
  })

  test("of another command's choice it is said what stands for it", () => {
    const give = (precision: string) => () => parseOptions(sample.spec, ["--precision", precision])
    expect(give("fp8")).toThrow(
      "--precision fp8 is not one of fp32, bf16 (eight bits are for training: try bf16",
    )
    expect(give("bf61")).toThrow("--precision bf61 is not one of fp32, bf16 (did you mean bf16?)")
  })

  test("a choice that is a number may stand as one", () => {
    const path = config('recompute = 1\ngelu-fusion = "2"\n')
    expect(parse("--config", path).resolved()).toMatchObject({ recompute: "1", "gelu-fusion": "2" })
    const message = `${config("recompute = 3\n")}: recompute 3 is not one of 0, 1, 2, block`
    expect(refusal("--config", path)).toStartWith(message)
  })

  test.each([
    ["batch = [1]", "batch must be a number, but is [1]"],
    ['batch = "4"', 'batch must be a number, but is "4"'],
    ["shuffle = 1", "shuffle must be true or false, but is 1"],
    ["out = 5", 'out must be a "text", but is 5'],
    ["tokens = true", 'tokens must be a "text", but is true'],
    ["lr = nan", "lr NaN is not a number"],
    ["lr = inf", "lr Infinity is not a number"],
    ["lr = -1", "lr -1 is not a number from 0 up"],
    ['schedule = "cosin"', "schedule cosin is not one of"],
    ['out = ""', "out is empty"],
    ['tokens = ""', "tokens is empty"],
    ["[shape]\nlayers = 3", "shape is no option of llm train (see llm train --help)"],
    ["stepz = 3", "stepz is no option of llm train (did you mean steps?)"],
    ["learning_rate = 3", "learning_rate is no option of llm train (did you mean lr?)"],
    ["token = 3", "token is no option of llm train (did you mean tokens?)"],
    ['config = "x"', "config is no option of llm train"],
  ])("%j is refused", (text, message) => {
    const path = config(text)
    expect(refusal("--config", path)).toStartWith(`${path}: ${message}`)
  })

  test("what is not UTF-8 is refused, not read as another path", () => {
    const path = config("")
    writeFileSync(path, Buffer.from('out = "runs/\xe9"\n', "latin1"))
    expect(refusal("--config", path)).toMatch(/run\.toml: not TOML: [^\n]*utf-8[^\n]*\)$/)
  })

  test("a name that would break the line is spelled out", () => {
    expect(refusal("--config", config('"a\\nb" = 1'))).toContain("run.toml: a\\u000ab is no option")
  })

  test("what is not TOML is refused in one line", () => {
    expect(refusal("--config", config("steps = = 3\n"))).toMatch(/run\.toml: not TOML: [^\n]+\)$/)
  })
})

describe("suggestions", () => {
  test.each([
    ["--step", "did you mean --steps?"],
    ["--stpes", "did you mean --steps?"],
    ["--weight_decay", "did you mean --weight-decay?"],
    ["--final-lr-fraction", "did you mean --final-lr-frac?"],
    ["--learning-rate", "did you mean --lr?"],
    ["--lerning-rate", "did you mean --lr?"],
    ["--leraning-rate", "did you mean --lr?"],
    ["--learning_rate", "did you mean --lr?"],
    ["--lr-scheduler", "did you mean --schedule?"],
    ["--batchsize", "did you mean --batch?"],
    ["--batch-size", "did you mean --batch?"],
    ["--ctx", "did you mean --context?"],
    ["--block_size", "did you mean --context?"],
    ["--seq-len", "did you mean --context?"],
    ["--n-layers", "did you mean --layers?"],
    ["--n_layer", "did you mean --layers?"],
    ["--n_embd", "did you mean --channels?"],
    ["--max-steps", "did you mean --steps?"],
    ["--max_iters", "did you mean --steps?"],
    ["--warmup-steps", "did you mean --warmup?"],
    ["--vocab-size", "did you mean --vocab?"],
    ["--grad", "did you mean --grad-clip?"],
    ["--max-grad-norm", "did you mean --grad-clip?"],
    ["--eval-interval", "did you mean --val-every?"],
    ["--val-batch", "did you mean --val-batches?"],
    ["--tokens", "did you mean TOKENS?"],
    ["--zzz", "see llm train --help"],
    ["-Z", "see llm train --help"],
  ])("%s: %s", (flag, hint) => {
    expect(refusal(flag, "1")).toBe(`llm train has no option ${flag} (${hint})`)
  })

  test("the nearest wins, and what is too far away is not guessed", () => {
    expect(nearest("sampel", ["train", "sample"])).toBe("sample")
    expect(nearest("x", ["train", "sample"])).toBeUndefined()
    expect(nearest("--checkpoint", ["--out", "--checkpoint-every"])).toBe("--checkpoint-every")
    expect(nearest("--warmup-steps", ["--steps", "--warmup"])).toBe("--warmup")
    expect(nearest("--val-batch", ["--val", "--val-batches"])).toBe("--val-batches")
    expect(nearest("cosin", ["linear", "cosine", "constant"])).toBe("cosine")
  })
})
