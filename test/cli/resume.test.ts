// A run that goes on from a checkpoint is the run that was never stopped: the same metrics, log,
// weights, moments and windows, to the bit.

import { beforeAll, describe, expect, test } from "bun:test"
import {
  appendFileSync,
  cpSync,
  existsSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
  truncateSync,
  writeFileSync,
  writeSync,
} from "node:fs"
import { join } from "node:path"
import { completeSteps, doneName } from "../../src/train/checkpoint.ts"
import { LLM, run, SHAPE } from "./executable.ts"
import { metricsOf, record, remains, verifyAll } from "./runs.ts"
import { shardedFolder, TIMEOUT_MS } from "./shards.ts"

const { dir, path, llm, train } = shardedFolder("resume")

/** A copy of a run folder as it was when the checkpoint of a step was the newest. */
function backTo(step: number, from: string, to: string): void {
  cpSync(path(from), path(to), { recursive: true })
  for (const later of completeSteps(path(to)).filter((other) => other > step)) {
    rmSync(join(path(to), doneName(later)))
  }
}

const BF16 = "--device reference --precision bf16"
const DATA: [string, string][] = [
  ["data in sequence", ""],
  ["shuffled data", " --shuffle"],
  ["accumulation", " --total-batch 64"],
  ["shuffled data and accumulation", " --shuffle --total-batch 64"],
]
const NUMBERS: [string, string][] = [
  ["fp32", ""],
  ["bf16 with masters", ` ${BF16}`],
  ["bf16 with masters and stochastic rounding", ` ${BF16} --stochastic-rounding`],
  ["products in eight bits", " --device reference --precision fp8"],
  ["bf16 alone", ` ${BF16} --master-weights 0`],
]
const MATRIX = DATA.flatMap(([data, dataArgs]) =>
  NUMBERS.map(([numbers, args]) => [`${data}, ${numbers}`, dataArgs + args] as const),
)
// More than an epoch: 400 tokens are 49 sequences, 2 or 8 of them a step.
const SHORT = ["train", "small_val.bin", "--val", "small_val.bin", ...SHAPE].join(" ")
const steps = (args: string) => (args.includes("total-batch") ? 12 : 45)

describe("a resumed run is the undisturbed one", () => {
  test.each(MATRIX.map((row, i) => [...row, i] as const))(
    "with %s",
    async (_, args, i) => {
      const N = steps(args)
      const name = `matrix-${i}`
      const more = `--steps ${N} --checkpoint-every ${N - 5} --val-every 4 --sample-every 0`
      expect((await llm(`${SHORT} ${more}${args} --out ${name}`)).stderr).toBe("")
      backTo(N - 5, name, `${name}-again`)
      const { code, stderr } = await llm(`train --resume --out ${name}-again`)
      expect({ code, stderr }).toEqual({ code: 0, stderr: "" })
      expect(record(path(`${name}-again`))).toEqual(record(path(name)))
      // A line for each step, and one for each validation.
      expect(metricsOf(path(name))).toHaveLength(N + Math.ceil(N / 4) + 1)
    },
    TIMEOUT_MS,
  )

  test(
    "with the windows by which outliers are judged",
    async () => {
      const more = "--steps 170 --checkpoint-every 140 --skip-loss-z 1 --lr 1e-5 --val-every 0"
      await llm(`${SHORT} ${more} --sample-every 0 --out outliers`)
      backTo(140, "outliers", "outliers-again")
      expect((await llm("train --resume --out outliers-again")).code).toBe(0)
      expect(record(path("outliers-again"))).toEqual(record(path("outliers")))
      const skipped = metricsOf(path("outliers")).filter((line) => "skipped" in line)
      expect(skipped.some(({ step }) => step! >= 140)).toBe(true)
    },
    TIMEOUT_MS,
  )

  // A schedule that moves, three shards, and what is rewritten in a step's calls.
  const BASE =
    "--steps 30 --checkpoint-every 10 --total-batch 64 --shuffle --warmup 5 --final-lr-frac 0.1 --weight-decay 0.1 --recompute block"
  let base: ReturnType<typeof record>
  beforeAll(async () => {
    await train(`${BASE} --out base --threads 2`)
    base = record(path("base"))
  }, TIMEOUT_MS)

  test(
    "on another number of threads",
    async () => {
      backTo(10, "base", "threads")
      expect((await llm("train --resume --out threads --threads 1")).code).toBe(0)
      expect(record(path("threads"))).toEqual(base)
    },
    TIMEOUT_MS,
  )

  test(
    "from any checkpoint, with the whole command said again",
    async () => {
      for (const step of [20, 10]) {
        backTo(step, "base", `again-${step}`)
        const { code } = await train(`${BASE} --out again-${step} -y 1`)
        expect(code).toBe(0)
        expect(record(path(`again-${step}`))).toEqual(base)
        expect(remains(path(`again-${step}`))).toEqual([])
      }
    },
    TIMEOUT_MS,
  )

  test(
    "stopped by Ctrl-C, twice",
    async () => {
      const args = "--steps 1000 --val-every 100 --sample-every 0 --checkpoint-every 300"
      await llm(`${SHORT} ${args} --out whole`)
      for (const rest of [`${SHORT} ${args} --out stopped`, "train --resume --out stopped"]) {
        const child = Bun.spawn([LLM, ...rest.split(" ")], { cwd: dir, stdout: "pipe" })
        let isKilled = false
        for await (const chunk of child.stdout) {
          // Once: a second one would end it within the step.
          if (isKilled || !/^step +\d+\//m.test(new TextDecoder().decode(chunk))) continue
          child.kill("SIGINT")
          isKilled = true
        }
        expect(await child.exited).toBe(130)
        expect(verifyAll(path("stopped")).length).toBeGreaterThan(0)
      }
      expect((await llm("train --resume --out stopped")).code).toBe(0)
      const [got, expected] = [record(path("stopped")), record(path("whole"))]
      expect(got).toEqual(expected)
    },
    TIMEOUT_MS,
  )

  test(
    "with another --batch: the same data, and sums in another order",
    async () => {
      backTo(10, "base", "batch")
      expect((await llm("train --resume --out batch --batch 4")).code).toBe(0)
      const [got, expected] = ["batch", "base"].map((name) => metricsOf(path(name)))
      expect(got!.map(({ step }) => step)).toEqual(expected!.map(({ step }) => step))
      for (const [i, { trainLoss }] of expected!.entries()) {
        if (trainLoss === undefined) continue
        // Other data would make another loss in its second digit.
        expect(Math.abs(got![i]!.trainLoss! / trainLoss - 1)).toBeLessThan(1e-5)
      }
    },
    TIMEOUT_MS,
  )

  test(
    "that was killed before its first step, and has left its options",
    async () => {
      mkdirSync(path("options"))
      cpSync(path("base/run.toml"), path("options/run.toml"))
      expect((await llm("train --resume --out options")).stderr).toBe(
        "warning: options has no checkpoint: the run begins anew\n",
      )
      expect(record(path("options"))).toEqual(base)
    },
    TIMEOUT_MS,
  )

  test(
    "in a folder without a checkpoint: it begins",
    async () => {
      expect((await train(`${BASE} --out new --resume`)).stderr).toBe(
        "warning: new holds no run to go on with: a new one begins\n",
      )
      expect(record(path("new"))).toEqual(base)
      expect((await llm("train --resume --out nowhere --threads 1")).stderr).toMatch(
        /^llm: --out nowhere holds no run to go on with/,
      )
      expect(existsSync(path("nowhere"))).toBe(false)
    },
    TIMEOUT_MS,
  )

  test(
    "whose DONE files are gone, from the newest files that are all there",
    async () => {
      backTo(20, "base", "undone")
      rmSync(join(path("undone"), "DONE_00000010"))
      rmSync(join(path("undone"), "DONE_00000020"))
      rmSync(join(path("undone"), "state_00000030_00000.bin"))
      const { code, stderr } = await llm("train --resume --out undone")
      expect(stderr).toBe("warning: undone/DONE_00000020 is gone: its checkpoint is not verified\n")
      expect(code).toBe(0)
      expect(record(path("undone"))).toEqual(base)
    },
    TIMEOUT_MS,
  )

  test(
    "from another folder, and with other options, which it names",
    async () => {
      backTo(20, "base", "moved")
      const { stdout, code } = await run(
        [LLM, ..."train --resume --out moved --lr 0.01 --val-every 2".split(" ")],
        { cwd: dir },
      )
      expect(code).toBe(0)
      expect(stdout).toContain("changed     --lr 0.0003 → 0.01\n")
      expect(stdout.match(/^changed/gm)).toHaveLength(1)
      backTo(20, "base", "elsewhere")
      const again = await run([LLM, ..."train --resume --out elsewhere".split(" ")], { cwd: dir })
      expect(again.code).toBe(0)
      const inside = join(dir, "inside")
      mkdirSync(inside)
      backTo(20, "base", "inside/run")
      expect((await run([LLM, "train", "--resume", "--out", "run"], { cwd: inside })).code).toBe(0)
      expect(record(join(inside, "run"))).toEqual(base)
    },
    TIMEOUT_MS,
  )

  test(
    "that has come to its end says so and leaves it as it is",
    async () => {
      const all = () =>
        readdirSync(path("base")).map((name) => [
          name,
          readFileSync(join(path("base"), name), "hex"),
        ])
      const before = all()
      const { code, stdout } = await llm("train --resume --out base --threads 2 --lr 0.5")
      expect(code).toBe(0)
      expect(stdout).toContain("complete: go on with a higher --steps\n")
      // The last validation is made again: it may have been broken off. No step was made with that rate.
      expect(all()).toEqual(before)
      const { stderr } = await llm("train --resume --out base --steps 20")
      expect(stderr).toContain("--steps 20: base has made 30 steps already")
    },
    TIMEOUT_MS,
  )

  test(
    "past a checkpoint of llm.c, whose DONE is empty, and which stays",
    async () => {
      backTo(20, "base", "foreign")
      const names = ["DONE_00000025", "model_00000025.bin", "state_00000025_00000.bin"]
      for (const name of names) writeFileSync(join(path("foreign"), name), "")
      const { code, stderr } = await llm("train --resume --out foreign --keep 1")
      expect(stderr).toBe(
        "warning: foreign/DONE_00000025 has no checksums, as another program wrote it: passed over\n",
      )
      expect(code).toBe(0)
      expect(record(path("foreign"))).toEqual(base)
      for (const name of names) expect(existsSync(join(path("foreign"), name))).toBe(true)
    },
    TIMEOUT_MS,
  )

  test(
    "without its run.toml: a warning, and the command line alone",
    async () => {
      backTo(20, "base", "bare")
      rmSync(join(path("bare"), "run.toml"))
      const { code, stderr } = await train(`${BASE} --out bare --resume`)
      expect(stderr).toMatch(/^warning: bare\/run.toml is gone: [^\n]*\n$/)
      expect(code).toBe(0)
      expect(record(path("bare"))).toEqual(base)
    },
    TIMEOUT_MS,
  )

  test(
    "and goes on with more steps",
    async () => {
      // A constant learning rate: the steps do not depend on their number.
      const constant = BASE.replace(/ --warmup.*/, "")
      await train(`${constant} --out more`)
      expect((await llm("train --resume --out more --steps 40")).code).toBe(0)
      await train(`${constant.replace("--steps 30", "--steps 40")} --out forty`)
      const forty = record(path("forty"))
      expect(record(path("more"))).toEqual(forty)
    },
    TIMEOUT_MS,
  )

  test(
    "in a folder whose logs were torn by a fall of the machine",
    async () => {
      backTo(20, "base", "torn")
      const log = join(path("torn"), "metrics.jsonl")
      appendFileSync(log, `{"step":31,"trainLo`)
      appendFileSync(join(path("torn"), "main.log"), "\0\0\0\n\0\0")
      expect((await llm("train --resume --out torn")).code).toBe(0)
      expect(record(path("torn"))).toEqual(base)
    },
    TIMEOUT_MS,
  )

  const DAMAGE: [string, (folder: string) => void, RegExp][] = [
    [
      "a flipped bit in the model",
      (folder) => flip(join(folder, "model_00000020.bin"), 2000),
      /model_00000020.bin: it is damaged: its checksum is not DONE_00000020's/,
    ],
    [
      "a flipped bit in the state",
      (folder) => flip(join(folder, "state_00000020_00000.bin"), 2000),
      /state_00000020_00000.bin: it is damaged/,
    ],
    [
      "a state that was cut short",
      (folder) => truncateSync(join(folder, "state_00000020_00000.bin"), 5000),
      /state_00000020_00000.bin: it is damaged/,
    ],
    [
      "a model that is gone",
      (folder) => rmSync(join(folder, "model_00000020.bin")),
      /model_00000020.bin: it is gone/,
    ],
    [
      "a DONE that names files elsewhere",
      (folder) => {
        const done = join(folder, "DONE_00000020")
        writeFileSync(done, readFileSync(done, "utf8").replace(/ {2}model/, "  ../base/model"))
      },
      /DONE_00000020: it does not list model_00000020.bin and state_00000020_00000.bin/,
    ],
  ]
  test.each(DAMAGE)(
    "from the checkpoint before, after %s",
    async (title, damage, message) => {
      const name = `damaged-${title.replaceAll(" ", "-")}`
      backTo(20, "base", name)
      damage(path(name))
      const { code, stderr } = await llm(`train --resume --out ${name} --keep 1`)
      expect(stderr).toMatch(message)
      expect(stderr).toMatch(/^warning: [^\n]*; it is given up, and an older checkpoint taken\n$/)
      expect(code).toBe(0)
      expect(record(path(name))).toEqual(base)
      expect(verifyAll(path(name))).toEqual([30])
    },
    TIMEOUT_MS,
  )

  test(
    "but not when every checkpoint is damaged",
    async () => {
      backTo(20, "base", "lost")
      for (const step of ["10", "20"]) flip(join(path("lost"), `model_000000${step}.bin`), 2000)
      const log = readFileSync(join(path("lost"), "main.log"), "utf8")
      const { code, stderr } = await llm("train --resume --out lost")
      expect(stderr).toMatch(
        /^llm: lost\/model_00000020.bin: it is damaged[^\n]*, and so is every other checkpoint there[^\n]*\n$/,
      )
      expect(code).toBe(2)
      expect(readFileSync(join(path("lost"), "main.log"), "utf8")).toBe(log)
    },
    TIMEOUT_MS,
  )
})

function flip(file: string, at: number): void {
  const bytes = readFileSync(file)
  bytes[at]! ^= 1
  writeSync(openSync(file, "r+"), bytes, at, 1, at)
}
