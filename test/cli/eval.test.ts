// ./llm eval, and the HellaSwag of ./llm train, as a person runs them.

import { afterAll, beforeAll, describe, expect, test } from "bun:test"
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { dirname, join } from "node:path"
import { choicesFile } from "../../src/formats/choices.ts"
import { countParameters, writeModel } from "../../src/formats/model.ts"
import { writeTokens } from "../../src/formats/tokens.ts"
import { randomExample } from "../fixtures/choices.ts"
import { Random } from "../ops/random.ts"
import { buildExecutable, LLM, run, SHAPE, TRAIN, writeSmallTokens } from "./executable.ts"
import { metricsOf } from "./runs.ts"

const TIMEOUT_MS = 120_000
const dir = mkdtempSync(join(tmpdir(), "llm-eval-"))
const path = (name: string) => join(dir, name)
const read = (name: string) => readFileSync(path(name), "utf8")
const llm = (...args: string[]) => run([LLM, ...args], { cwd: dir })
const random = new Random("questions of the executable")
// Below 8 tokens together, and so not cut; and some that are.
const QUESTIONS = Array.from({ length: 40 }, () => randomExample(random, 97, 4))
const FITTING = choicesFile(QUESTIONS)
const LONG = choicesFile(Array.from({ length: 40 }, () => randomExample(random, 97, 8)))
const BF16 = ["--precision", "bf16", "--device", "reference"]
const HELLASWAG = ["--hellaswag", "--hellaswag-file", "choices.bin"]
const MODEL = "a/model_00000003.bin"

beforeAll(async () => {
  await buildExecutable()
  const tokens = writeSmallTokens(dir)
  writeTokens(path("alone.bin"), tokens)
  writeFileSync(path("choices.bin"), FITTING)
  writeFileSync(path("long.bin"), LONG)
  const runs = [
    [...TRAIN, "--steps", "3", "--out", "a", ...HELLASWAG],
    [...TRAIN, "--steps", "3", "--out", "plain"],
    [...TRAIN, "--steps", "2", "--out", "half", ...BF16, ...HELLASWAG],
  ]
  for (const args of runs) {
    const { code, stderr } = await llm(...args)
    expect({ code, stderr }).toEqual({ code: 0, stderr: "" })
  }
}, TIMEOUT_MS)

afterAll(() => rmSync(dir, { recursive: true }))

const metrics = (folder: string) => metricsOf(path(folder))
const last = (folder: string, key: string) => metrics(folder).findLast((line) => key in line)![key]!

/** What eval says of a loss over this many tokens. */
const lossLine = (loss: number, tokens: string) =>
  `validation loss ${loss.toFixed(4)}  perplexity ${Math.exp(loss).toFixed(2)}  over ${tokens} tokens\n`
const scoreLine = (accuracy: number) =>
  `HellaSwag ${accuracy.toFixed(4)} (${Math.round(accuracy * 40)} of 40)\n`

/** A model of the tests' shape all of whose weights are the same. */
function writeConstant(name: string, weight: number): void {
  const config = { maxT: 8, V: 97, Vp: 128, L: 2, NH: 2, C: 16 }
  const data = new Float32Array(countParameters(config)).fill(weight)
  writeModel(path(name), config, [{ name: "all", data }])
}

describe("llm eval", () => {
  const VAL = ["--val", "small_val.bin", "--batch", "2"]

  test("measures the loss that training measured, in a file", async () => {
    const { code, stdout, stderr } = await llm("eval", MODEL, ...VAL, "--val-batches", "20")
    expect(stdout).toBe(lossLine(last("a", "valLoss"), "320"))
    expect({ code, stderr }).toEqual({ code: 0, stderr: "" })
  })

  test("takes the newest model of a run folder and says which", async () => {
    const model = readFileSync(path(MODEL))
    writeFileSync(path("a/model_00000002.bin"), model.subarray(0, 100))
    const { stdout } = await llm("eval", "a", ...VAL, "-m", "20", "-t", "8")
    rmSync(path("a/model_00000002.bin"))
    expect(stdout).toBe(`${MODEL}\n${lossLine(last("a", "valLoss"), "320")}`)
  })

  test("by default reads all batches, of the model's longest context", async () => {
    const { stdout } = await llm("eval", MODEL, ...VAL)
    expect(stdout).toEndWith("  over 384 tokens\n") // 24 batches of 2×8, and a rest
    const { stdout: glob } = await llm("eval", MODEL, "-j", "small_{val,train}.bin", "-b", "3")
    expect(glob).toEndWith("  over 4,368 tokens\n") // 16 and 166 batches of 3×8
  })

  test("answers HellaSwag as training did, on one thread and on two", async () => {
    for (const threads of ["1", "2"]) {
      const { code, stdout, stderr } = await llm(
        ...["eval", MODEL, "--hellaswag", "choices.bin", "--threads", threads],
      )
      expect(stdout).toBe(scoreLine(last("a", "hellaswag")))
      expect({ code, stderr }).toEqual({ code: 0, stderr: "" })
    }
  })

  test("measures both, and says how many contexts were cut", async () => {
    const { stdout } = await llm("eval", MODEL, ...VAL, "--hellaswag", "long.bin")
    expect(stdout).toMatch(
      /^validation loss .*\nHellaSwag 0\.\d{4} \(\d+ of 40, the start of [1-9]\d* contexts cut off\)\n$/,
    )
  })

  test("the classifier in chunks measures the same", async () => {
    const args = ["eval", MODEL, "--val", "small_train.bin", "--batch", "100"]
    const chunked = await llm(...args, "--classifier-rows", "384")
    expect(chunked).toEqual(await llm(...args))
    expect(chunked.stdout).toEndWith("  over 3,200 tokens\n")
  })

  test("in bf16 it measures what training in bf16 did; in fp32 nearly the same", async () => {
    const args = ["eval", "half", ...VAL, "-m", "20", "--hellaswag", "choices.bin"]
    const { stdout } = await llm(...args, ...BF16)
    const loss = last("half", "valLoss")
    expect(stdout).toBe(
      `half/model_00000002.bin\n${lossLine(loss, "320")}${scoreLine(last("half", "hellaswag"))}`,
    )
    // Of the file's weights, which bf16 holds exactly; a logit is off by 2⁻⁹ of itself.
    const wide = Number(/loss ([\d.]+)/.exec((await llm(...args)).stdout)![1])
    expect(Math.abs(wide / loss - 1)).toBeLessThan(2 ** -9)
    // And of a file in fp32, rounded.
    const rounded = await llm("eval", MODEL, ...VAL, "-m", "20", ...BF16)
    const narrow = Number(/loss ([\d.]+)/.exec(rounded.stdout)![1])
    expect(Math.abs(narrow / last("a", "valLoss") - 1)).toBeLessThan(2 ** -8)
  })

  test(
    "without --val reads the built-in corpus's validation part, and knows its entropy",
    async () => {
      const shape = "--layers 1 --heads 1 --channels 8 --batch 1 --context 8 --steps 1".split(" ")
      const trained = await llm("train", ...shape, "--out", "plays", "--sample-every", "0")
      const { stdout } = await llm("eval", "plays", "--batch", "1", "--val-batches", "20")
      const [model, loss, entropy] = stdout.trimEnd().split("\n")
      expect(model).toBe("plays/model_00000001.bin")
      expect(`${loss}\n`).toBe(lossLine(last("plays", "valLoss"), "160"))
      const nats = /^the source's entropy is (\d\.\d{4}) nats a token$/.exec(entropy!)![1]!
      expect(trained.stdout).toContain(`the source's entropy is ${Number(nats).toFixed(2)}\n`)
    },
    TIMEOUT_MS,
  )

  test("of a model that knows nothing, the loss is a die's and the first answer is taken", async () => {
    writeConstant("zero.bin", 0)
    const { stdout } = await llm("eval", "zero.bin", ...VAL, "--hellaswag", "choices.bin")
    const firsts = QUESTIONS.filter(({ label }) => label === 0).length
    expect(stdout).toBe(lossLine(Math.log(97), "384") + scoreLine(firsts / 40))
  })

  test("a loss that is no number ends it with exit code 3", async () => {
    writeConstant("large.bin", 3e38) // whose sums pass f32's range
    for (const [args, message] of [
      [VAL, "the validation loss is NaN"],
      [["--hellaswag", "choices.bin"], "a loss in HellaSwag is no number"],
    ] as [string[], string][]) {
      const { code, stdout, stderr } = await llm("eval", "large.bin", ...args)
      expect(stderr).toBe(`llm: large.bin: ${message} (try an earlier model)\n`)
      expect({ code, stdout }).toEqual({ code: 3, stdout: "" })
    }
  })

  test("that gets SIGINT stops with exit code 130 and no result", async () => {
    // More than a minute is enough for.
    writeTokens(path("large.bin"), new Uint16Array(20_000_000))
    const child = Bun.spawn([LLM, "eval", MODEL, "--val", "large.bin", "--batch", "1"], {
      cwd: dir,
      stdout: "pipe",
      stderr: "pipe",
    })
    await Bun.sleep(3000)
    child.kill("SIGINT")
    expect(await child.exited).toBe(130)
    expect(await new Response(child.stdout).text()).toBe("")
    expect(await new Response(child.stderr).text()).toBe("")
  })

  const noTerminal = Bun.which("script") ? "" : " (skipped: there is no script command)"
  test.skipIf(noTerminal !== "")(`on a terminal shows how far it is${noTerminal}`, async () => {
    const command = `${LLM} eval ${MODEL} ${VAL.join(" ")} --hellaswag choices.bin`
    const { code, stdout } = await run(["script", "-qec", command, "/dev/null"], { cwd: dir })
    expect(code).toBe(0)
    const shown = stdout.split("\r\x1b[K")
    expect(shown).toContain("validation: batch 1 of 24")
    expect(
      shown.filter((line) => /^validation: batch 2 of 24 {2}0:0\d left$/.test(line)),
    ).toHaveLength(1)
    expect(shown.filter((line) => /^validation loss .*\r\n$/.test(line))).toHaveLength(1)
    expect(shown).toContain("HellaSwag: example 1 of 40")
    expect(shown.at(-1)).toMatch(/^HellaSwag 0\..*\r\n$/)
  })
})

describe("llm train --hellaswag", () => {
  test("logs the accuracy at every validation, in llm.c's format", () => {
    const lines = read("a/main.log").trim().split("\n")
    const kinds = lines.map((line) => line.replace(/ lr.*/, "").replace(/\d\.\d{4}$/, "4"))
    expect(kinds).toEqual([
      "s:0 tel:4",
      "s:0 eval:4",
      "s:0 trl:4",
      "s:1 trl:4",
      "s:2 tel:4",
      "s:2 eval:4",
      "s:2 trl:4",
      "s:3 tel:4",
      "s:3 eval:4",
    ])
    const scores = metrics("a").filter((line) => "hellaswag" in line)
    expect(scores.map(({ step }) => step)).toEqual([0, 2, 3])
    for (const { step, hellaswag, ...rest } of scores) {
      expect(rest).toEqual({})
      expect(lines).toContain(`s:${step} eval:${hellaswag!.toFixed(4)}`)
      expect(Number.isInteger(hellaswag! * 40)).toBe(true)
    }
  })

  test("does not change the training by a bit", () => {
    const losses = (folder: string) =>
      metrics(folder).flatMap(({ trainLoss, valLoss }) => trainLoss ?? valLoss ?? [])
    expect(losses("a")).toEqual(losses("plain"))
    expect(readFileSync(path(MODEL))).toEqual(readFileSync(path("plain/model_00000003.bin")))
  })

  test("-h 1 finds llm.c's file, or the one of data/ before it; -h 0 needs none", async () => {
    const TRAIN_ONE = ["train", "../alone.bin", ...SHAPE, "--steps", "1", "--sample-every", "0"]
    mkdirSync(path("places"))
    const inPlaces = (...args: string[]) =>
      run([LLM, ...TRAIN_ONE, ...args], { cwd: path("places") })
    expect((await inPlaces("-h", "0")).code).toBe(0)

    for (const [file, bytes, cut] of [
      ["dev/data/hellaswag/hellaswag_val.bin", LONG, true],
      ["data/hellaswag_val.bin", FITTING, false],
    ] as const) {
      mkdirSync(dirname(path(`places/${file}`)), { recursive: true })
      writeFileSync(path(`places/${file}`), bytes)
      const { code, stdout, stderr } = await inPlaces("-h", "1")
      expect({ code, stderr }).toEqual({ code: 0, stderr: "" })
      // There are no validation tokens here.
      const said = stdout.match(/^step \d {2}HellaSwag 0\.\d{4} \(\d+ of 40.*\)$/gm)!
      expect(said).toHaveLength(2)
      for (const line of said) expect(line.includes("contexts cut off")).toBe(cut)
    }
    expect(readdirSync(path("places")).sort()).toEqual(["data", "dev"])
  })

  test("a loss that is no number ends the run with exit code 3 and names the step", async () => {
    const { code, stderr } = await llm(
      ...["train", "alone.bin", ...SHAPE, ...HELLASWAG, "--val-every", "1", "--lr", "1e30"],
    )
    expect(stderr).toMatch(/^llm: step 1: a loss of HellaSwag is no number \(try a lower --lr/)
    expect(code).toBe(3)
  })
})
