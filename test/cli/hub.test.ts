// A model of the hub, from its download by name to a folder for transformers, with the executable.

import { afterAll, beforeAll, describe, expect, test } from "bun:test"
import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { gguf } from "@huggingface/gguf"
import { hubFixture } from "../fixtures/hub.ts"
import { HubServer } from "../weights/hub-server.ts"
import { buildExecutable, LLM, run, writeSmallTokens } from "./executable.ts"
import { record } from "./runs.ts"

const TIMEOUT_MS = 300_000
const NAME = "some-one/tiny.gpt2"
const dir = mkdtempSync(join(tmpdir(), "llm-hub-"))
const hub = new HubServer()
afterAll(() => {
  hub.stop()
  rmSync(dir, { recursive: true })
})
beforeAll(async () => {
  await buildExecutable()
  writeSmallTokens(dir)
  hub.models[NAME] = hubFixture()
}, TIMEOUT_MS)

/** What a command that must work prints: to stdout, and in a pipe to stderr. */
async function llm(args: string, endpoint = "http://127.0.0.1:1") {
  const env = { ...process.env, HF_ENDPOINT: endpoint, HF_HUB_CACHE: join(dir, "cache") }
  const { code, stdout, stderr } = await run([LLM, ...args.split(" ")], { cwd: dir, env })
  expect([args, code, code === 0 ? "" : stderr]).toEqual([args, 0, ""])
  return { stdout, stderr }
}

const TRAIN = "train small_train.bin --context 8 --batch 2 --val-every 2 --sample-every 0"

describe("a model of the hub", () => {
  test(
    "is fine-tuned as its copy in llm.c's format is, resumed, converted, and read by another program",
    async () => {
      const first = await llm(`${TRAIN} --steps 3 --init ${NAME} --out hub`, hub.url)
      expect(first.stderr).toContain(`downloading ${NAME} model.safetensors`)
      const offline = await llm(`convert ${NAME} copy.bin`)
      expect(offline.stderr).toContain("cannot be reached; the copy in the cache is taken")
      await llm(`${TRAIN} --steps 3 --init copy.bin --out copy`)
      expect(record(join(dir, "hub"))).toEqual(record(join(dir, "copy")))

      await llm("train --resume --out hub --steps 5")
      await llm("convert hub tuned/")
      await llm("convert tuned tuned.bin")
      const ours = readFileSync(join(dir, "hub", "model_00000005.bin"))
      expect(Buffer.compare(readFileSync(join(dir, "tuned.bin")), ours)).toBe(0)

      await llm("convert hub tuned.gguf")
      const path = join(dir, "tuned.gguf")
      const { metadata, tensorInfos } = await gguf(path, { allowLocalFile: true })
      expect(metadata["general.architecture"]).toBe("gpt2")
      expect(tensorInfos).toHaveLength(4 + 12 * 2) // embeddings and the last norm, and two blocks
      await llm("convert tuned.gguf again.bin")
      expect(Buffer.compare(readFileSync(join(dir, "again.bin")), ours)).toBe(0)
      expect((await llm("info tuned.gguf")).stdout).toContain("sound       yes")

      const { stdout } = await llm("eval tuned --val small_val.bin --context 8")
      expect(stdout).toMatch(/^validation loss \d\.\d{4} /)
      expect((await llm("eval hub --val small_val.bin --context 8")).stdout).toContain(stdout)
      const samples = ["sample tuned --tokens 9", "sample hub --tokens 9"]
      const texts = await Promise.all(samples.map(async (args) => (await llm(args)).stdout))
      expect(texts[0]).toBe(texts[1]!)
    },
    TIMEOUT_MS,
  )

  test(
    "is not asked for where a path has its name",
    async () => {
      hub.asked.length = 0
      await llm(`convert ${NAME} some-one/`)
      expect(existsSync(join(dir, "some-one", "config.json"))).toBe(true)
      const env = { ...process.env, HF_ENDPOINT: hub.url, HF_HUB_CACHE: join(dir, "none") }
      const { code, stderr } = await run([LLM, "sample", NAME], { cwd: dir, env })
      expect([code, stderr.split(" (")[0]]).toEqual([
        2,
        `llm: ${NAME}: cannot read: no such file or folder`,
      ])
      expect(hub.asked).toEqual([])
    },
    TIMEOUT_MS,
  )
})
