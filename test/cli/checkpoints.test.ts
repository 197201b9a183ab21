// Checkpoints: when they come, what is in them, and which a run does not go on from.

import { beforeAll, describe, expect, test } from "bun:test"
import {
  cpSync,
  existsSync,
  readFileSync,
  renameSync,
  rmSync,
  truncateSync,
  writeFileSync,
} from "node:fs"
import { join } from "node:path"
import { readState } from "../../src/formats/state.ts"
import { writeTokens } from "../../src/formats/tokens.ts"
import { LLM, TRAIN } from "./executable.ts"
import { metricsOf, remains, untimed, verifyAll } from "./runs.ts"
import { shardedFolder, TIMEOUT_MS } from "./shards.ts"

const { dir, path, llm, train } = shardedFolder("checkpoints")

describe("a checkpoint of another run is refused", () => {
  beforeAll(async () => {
    await train("--steps 20 --checkpoint-every 10 --shuffle --out refuse")
    rmSync(join(path("refuse"), "DONE_00000020"))
    // As many tokens, in another order.
    writeTokens(
      path("other_train.bin"),
      Uint16Array.from({ length: 1700 }, (_, i) => i % 97),
    )
  }, TIMEOUT_MS)

  test.each([
    ["--layers 3", "--layers 3: refuse/model_00000010.bin has 2 (leave it out)"],
    ["--context 4 --context-max 8", "--context 4: refuse was trained with --context 8"],
    ["--context 4", "but the options describe GPT-2, "],
    ["--precision bf16 --device reference", "refuse/model_00000010.bin was trained in fp32"],
    ["other_train.bin", "the run was trained on other tokens than"],
    ["--seed 7", "its order of the data is another (resume with the same --shuffle and --seed)"],
    ["small_val.bin", "the run was trained on 1700 tokens, but small_val.bin has 400"],
    ["--init nothing.bin", "refuse/run.toml: "],
  ])(
    "%s",
    async (args, message) => {
      if (args.startsWith("--init")) writeFileSync(join(path("refuse"), "run.toml"), "lyers = 3\n")
      const before = readFileSync(join(path("refuse"), "main.log"), "utf8")
      const { code, stderr, stdout } = await llm(`train --resume --out refuse ${args}`)
      expect(stderr).toMatch(/^llm: [^\n]+\n$/)
      expect(stderr).toContain(message)
      expect({ code, stdout }).toEqual({ code: 2, stdout: "" })
      expect(readFileSync(join(path("refuse"), "main.log"), "utf8")).toBe(before)
    },
    TIMEOUT_MS,
  )
})

describe("checkpoints", () => {
  test(
    "come every so many steps and at the end; the newest stay, and those of every so many",
    async () => {
      await train("--steps 47 --checkpoint-every 5 --keep 2 --keep-every 15 --out keep")
      expect(verifyAll(path("keep"))).toEqual([15, 30, 45, 47])
      expect(remains(path("keep"))).toEqual([])
      const sums = Bun.spawnSync(["sha256sum", "-c", "DONE_00000045"], { cwd: path("keep") })
      expect(sums.stdout.toString()).toBe("model_00000045.bin: OK\nstate_00000045_00000.bin: OK\n")
    },
    TIMEOUT_MS,
  )

  test(
    "are a place to fine-tune and to sample from, newest first",
    async () => {
      const { stdout } = await llm("train small_train.bin --init keep/model_00000045.bin --steps 1")
      expect(stdout).toContain(", from keep/model_00000045.bin")
      expect((await llm("train small_train.bin --init keep --steps 1")).stdout).toContain(
        ", from keep/model_00000047.bin",
      )
    },
    TIMEOUT_MS,
  )

  test(
    "are not written by two at once",
    async () => {
      const args = [LLM, ...TRAIN, ..."--steps 1000000 --out shared".split(" ")]
      const first = Bun.spawn(args, { cwd: dir, stdout: "ignore" })
      while (!existsSync(path("shared/main.log"))) await Bun.sleep(5)
      await Bun.sleep(200)
      const { code, stderr } = await llm("train --resume --out shared")
      first.kill("SIGKILL")
      await first.exited
      expect(stderr).toContain(
        "llm: --out shared: another llm is at work there (wait for it, stop it, or choose another folder)\n",
      )
      expect(code).toBe(2)
    },
    TIMEOUT_MS,
  )

  test(
    "are not needed when a token file is replaced by its like",
    async () => {
      cpSync(path("small_train.bin"), path("copied_train.bin"))
      const small = TRAIN.slice(0, -4)
      const args = small.map((arg) => (arg === "small_train.bin" ? "copied_train.bin" : arg))
      const more = "--steps 3000 --val-every 0 --sample-every 0 --out copied".split(" ")
      const child = Bun.spawn([LLM, ...args, ...more], { cwd: dir, stdout: "ignore" })
      const log = join(path("copied"), "main.log")
      while (!existsSync(log) || !readFileSync(log, "utf8").includes("s:5 trl")) {
        expect(child.exitCode).toBeNull()
        await Bun.sleep(5)
      }
      cpSync(path("small_train.bin"), path("copy.bin"))
      renameSync(path("copy.bin"), path("copied_train.bin"))
      expect(await child.exited).toBe(0)
    },
    TIMEOUT_MS,
  )

  test(
    "come before the end of a run whose token file changes",
    async () => {
      for (const [name, change] of [
        ["vanishes", () => rmSync(path("own_train.bin"))],
        ["changes", () => truncateSync(path("own_train.bin"), 1500)],
      ] as const) {
        cpSync(path("small_train.bin"), path("own_train.bin"))
        const args = TRAIN.map((arg) => (arg === "small_train.bin" ? "own_train.bin" : arg))
        const more = `--steps 1000000 --val small_val.bin --out ${name}`.split(" ")
        const child = Bun.spawn([LLM, ...args, ...more], {
          cwd: dir,
          stdout: "ignore",
          stderr: "pipe",
        })
        const log = join(path(name), "main.log")
        while (!existsSync(log) || !readFileSync(log, "utf8").includes("s:5 trl")) {
          await Bun.sleep(10)
        }
        change()
        expect(await child.exited).toBe(2)
        expect(await new Response(child.stderr).text()).toMatch(
          /^llm: own_train.bin: (the file has changed|cannot read any more)[^\n]*\n$/,
        )
        const [step] = verifyAll(path(name))
        const lines = untimed(metricsOf(path(name))).filter((line) => "trainLoss" in line)
        expect(lines).toHaveLength(step!)
      }
    },
    TIMEOUT_MS,
  )
})

test("what is in a state file is what it says", async () => {
  const said = "--steps 3 --shuffle --total-batch 32 --out said"
  await llm(`${TRAIN.slice(0, -4).join(" ")} ${said}`)
  const config = { L: 2, NH: 2, C: 16, V: 97, Vp: 128, maxT: 8 }
  const count = (128 + 8 + 2) * 16 + 2 * (12 * 16 * 16 + 13 * 16)
  const [m, v] = [new Float32Array(count), new Float32Array(count)]
  const state = readState(join(path("said"), "state_00000003_00000.bin"), config, {
    m: [m],
    v: [v],
  })
  expect(state).toMatchObject({ step: 3, seed: 42, dataTokens: 4000, T: 8 })
  expect(state.position).toEqual({ epoch: 0, shard: 0, sequence: 12 })
  expect(state.orders!.sequences).toHaveLength(499)
  const losses = metricsOf(path("said")).flatMap(({ trainLoss }) => trainLoss ?? [])
  expect(state.losses).toEqual(losses)
  expect(state.norms).toHaveLength(3)
  expect(m.some((x) => x !== 0)).toBe(true)
  expect(v.every((x) => x >= 0)).toBe(true)
})
