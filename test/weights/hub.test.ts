// Models of a hub: a server on this machine that has its addresses, and its faults.

import { afterAll, beforeEach, describe, expect, test } from "bun:test"
import {
  existsSync,
  lstatSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { UserError } from "../../src/errors.ts"
import { fetchModel } from "../../src/weights/hub.ts"
import { hubName, openModel } from "../../src/weights/open.ts"
import { badServer, ranged } from "../fixtures/http.ts"
import { hubFixture, shards } from "../fixtures/hub.ts"
import { COMMIT, HubServer } from "./hub-server.ts"

const ENV = ["HF_HUB_CACHE", "HF_ENDPOINT", "HF_TOKEN", "HF_HUB_OFFLINE", "HF_HOME"]
const kept = ENV.map((name) => [name, process.env[name]] as const)
const folder = mkdtempSync(join(tmpdir(), "hub-"))
const hub = new HubServer()
afterAll(() => {
  hub.stop()
  rmSync(folder, { recursive: true })
  for (const [name, value] of kept) setEnv(name, value)
})

function setEnv(name: string, value: string | undefined): void {
  if (value === undefined) delete process.env[name]
  else process.env[name] = value
}

const NAME = "some-one/tiny.gpt2"
const NOWHERE = "http://127.0.0.1:1"
const MODEL = "model.safetensors"
let cache = ""
let count = 0
beforeEach(() => {
  hub.reset()
  hub.models[NAME] = hubFixture()
  for (const name of ENV) setEnv(name, undefined)
  cache = join(folder, `${count++}`)
  process.env.HF_HUB_CACHE = cache
  process.env.HF_ENDPOINT = hub.url
})

const repository = () => join(cache, "models--some-one--tiny.gpt2")
const blobs = () => readdirSync(join(repository(), "blobs"))
const paths = () => hub.asked.map(({ path }) => path)

async function fetched(isTTY = false): Promise<{ path: string; said: string }> {
  let said = ""
  const stderr = { isTTY, write: (text: string) => (said += text) }
  return { path: await fetchModel(NAME, stderr, 1), said }
}

/** The one line that a download is refused with. */
async function refusal(): Promise<string> {
  const error = await fetched().catch((e) => e)
  expect(error).toBeInstanceOf(UserError)
  expect(error.message).toMatch(/^[^\n]+\)$/)
  return error.message
}

describe("a model of the hub", () => {
  test("is downloaded into the cache that other programs use, once", async () => {
    const { path, said } = await fetched(true)
    expect(path).toBe(join(repository(), "snapshots", COMMIT))
    expect(readFileSync(join(repository(), "refs", "main"), "utf8")).toBe(COMMIT)
    for (const [name, content] of Object.entries(hubFixture())) {
      const link = join(path, name)
      expect(lstatSync(link).isSymbolicLink()).toBe(true)
      expect(readlinkSync(link)).toMatch(/^\.\.\/\.\.\/blobs\/([0-9a-f]{40}|[0-9a-f]{64})$/)
      expect(Buffer.compare(readFileSync(link), content)).toBe(0)
    }
    expect(blobs()).toHaveLength(2)
    expect(said).toStartWith(`\r\x1b[Kdownloading ${NAME} ${MODEL}  `)
    expect(said).toContain("of 0.0 MB")
    hub.asked.length = 0
    expect(await fetched()).toEqual({ path, said: "" })
    expect(hub.asked).toEqual([])
  })

  test("is opened by its name", async () => {
    const source = await openModel(NAME)
    expect(source.config).toEqual({ maxT: 8, V: 97, Vp: 128, L: 2, NH: 2, C: 16 })
    source.close()
  })

  test("in shards is downloaded shard by shard", async () => {
    hub.models[NAME] = shards()
    const { path } = await fetched()
    const names = Object.keys(shards()).sort()
    expect(names.filter((name) => name.endsWith(".safetensors"))).toHaveLength(2)
    expect(readdirSync(path).sort()).toEqual(names)
  })

  test("that has a new commit takes from the old one what has not changed", async () => {
    const { path } = await fetched()
    hub.newCommit()
    hub.asked.length = 0
    const { path: after } = await fetched()
    expect(after).not.toBe(path)
    expect(hub.asked).toEqual([])
    expect(blobs()).toHaveLength(2)
  })

  test("is kept where HF_HOME says", async () => {
    setEnv("HF_HUB_CACHE", undefined)
    process.env.HF_HOME = join(cache, "home")
    expect((await fetched()).path).toStartWith(join(cache, "home", "hub", "models--some-one--"))
  })

  test("is asked for with HF_TOKEN, which the server of large files is not shown", async () => {
    process.env.HF_TOKEN = "hf_secret"
    await fetched()
    const shown = Object.fromEntries(
      hub.asked.map(({ path, authorization }) => [path, authorization]),
    )
    expect(shown).toEqual({
      "config.json": "Bearer hf_secret",
      [MODEL]: "Bearer hf_secret",
      [`storage ${MODEL}`]: undefined,
    })
  })
})

describe("a download that breaks off", () => {
  test("goes on from there when it is begun again", async () => {
    hub.breakAfter = 20_000
    expect(await refusal()).toContain("(run it again: it goes on from there)")
    const [partial = ""] = blobs().filter((name) => name.endsWith(".incomplete"))
    const { size } = statSync(join(repository(), "blobs", partial))
    expect(size).toBe(20_000)
    expect(existsSync(join(repository(), "refs"))).toBe(false)
    hub.breakAfter = undefined
    const { path } = await fetched()
    expect(hub.asked.at(-1)).toMatchObject({ path: `storage ${MODEL}`, range: "bytes=20000-" })
    expect(Buffer.compare(readFileSync(join(path, MODEL)), hubFixture()[MODEL]!)).toBe(0)
    expect(blobs()).toHaveLength(2)
  })

  test("goes on from any byte, the last but one and the end too", async () => {
    const content = hubFixture()[MODEL]!
    for (const size of [1, content.length - 1, content.length, content.length + 1]) {
      rmSync(cache, { recursive: true, force: true })
      const { path } = await fetched()
      const blob = readlinkSync(join(path, MODEL)).split("/").at(-1)!
      rmSync(join(repository(), "snapshots"), { recursive: true })
      rmSync(join(repository(), "blobs", blob))
      const partial = join(repository(), "blobs", `${blob}.incomplete`)
      writeFileSync(partial, Buffer.concat([content, Buffer.alloc(9)]).subarray(0, size))
      await fetched()
      expect(Buffer.compare(readFileSync(join(path, MODEL)), content)).toBe(0)
      expect(existsSync(partial)).toBe(false)
    }
  })

  test("goes on by itself where it gets any further", async () => {
    const content = hubFixture()[MODEL]!
    using lossy = badServer((asked) => {
      const { body, ...answer } = ranged(content, asked)
      return { ...answer, body: body!.slice(0, 10_000), length: body!.length }
    })
    hub.storageUrl = lossy.url
    const { path } = await fetched()
    expect(lossy.asked.map(({ headers }) => headers.get("range"))).toEqual([
      null,
      "bytes=10000-",
      "bytes=20000-",
      "bytes=30000-",
    ])
    expect(Buffer.compare(readFileSync(join(path, MODEL)), content)).toBe(0)
  })

  test("begins anew where the server sends all of it again", async () => {
    hub.breakAfter = 20_000
    await refusal()
    hub.breakAfter = undefined
    hub.ignoresRange = true
    const { path } = await fetched()
    expect(Buffer.compare(readFileSync(join(path, MODEL)), hubFixture()[MODEL]!)).toBe(0)
  })
})

describe("what cannot be had is one line", () => {
  test("a file with another checksum, which is deleted", async () => {
    hub.isDamaged = true
    expect(await refusal()).toMatch(
      /its checksum is [0-9a-f]{64}, not [0-9a-f]{64} \(what came was deleted/,
    )
    expect(blobs()).toHaveLength(1) // config.json
    expect(readdirSync(join(repository(), "snapshots", COMMIT))).toEqual(["config.json"])
    hub.isDamaged = false
    await fetched()
    expect(hub.asked.at(-1)!.range).toBeUndefined()
  })

  test.each([
    [
      "model",
      401,
      "there is no such model, or it is private (check the name, or set HF_TOKEN to a",
    ],
    ["model", 403, "it must be asked for at "],
    ["model", 404, "there is no such model (check the name)"],
    ["model", 500, "it cannot be had now (try later)"],
    ["file", 401, "there is no such model, or it is private"],
    ["file", 403, "it must be asked for at "],
  ] as const)("for a %s the answer %i", async (of, code, message) => {
    hub.status = { of, code }
    expect(await refusal()).toStartWith(`${NAME}: ${hub.url} answers ${code}: ${message}`)
  })

  test("a server that stays busy with a file", async () => {
    hub.status = { of: "file", code: 503 }
    expect(await refusal()).toContain(
      "the server answers 503 (run it again: it goes on from there)",
    )
    expect(paths()).toEqual([])
  })

  test("a token that is none, or that does not help", async () => {
    process.env.HF_TOKEN = "secret"
    expect(await refusal()).toStartWith("HF_TOKEN: a token of the hub starts with hf_")
    process.env.HF_TOKEN = "hf_secret"
    hub.status = { of: "model", code: 401 }
    expect(await refusal()).toContain("the token in HF_TOKEN may not read it)")
  })

  test("a model that is no GPT-2, before its weights are downloaded", async () => {
    hub.models[NAME] = { ...hubFixture(), "config.json": Buffer.from('{"model_type":"llama"}') }
    expect(await refusal()).toContain('model_type is "llama", not "gpt2"')
    expect(paths()).toEqual(["config.json"])
  })

  test("a model without safetensors, or without a shard", async () => {
    const { "config.json": config } = hubFixture()
    hub.models[NAME] = { "config.json": config!, "pytorch_model.bin": new Uint8Array(9) }
    expect(await refusal()).toContain(`it has no ${MODEL} or ${MODEL}.index.json (give a GPT-2`)
    const { "model-00002-of-00002.safetensors": _, ...rest } = shards()
    hub.models[NAME] = rest
    expect(await refusal()).toContain("it has no model-00002-of-00002.safetensors (")
  })

  test.each(["../evil.safetensors", "/tmp/evil.safetensors", "a/b.safetensors", "..", "", 7])(
    "an index whose shard is %j, and nothing is written outside",
    async (name) => {
      const index = Buffer.from(JSON.stringify({ weight_map: { "wte.weight": name } }))
      hub.models[NAME] = { ...shards(), "model.safetensors.index.json": index }
      expect(await refusal()).toContain("is no plain name (")
      expect(readdirSync(cache)).toEqual(["models--some-one--tiny.gpt2"])
    },
  )

  test("an address that is none", async () => {
    process.env.HF_ENDPOINT = "mirror"
    expect(await refusal()).toBe("HF_ENDPOINT mirror is not a URL (try https://huggingface.co)")
  })

  test("a cache that cannot be written", async () => {
    writeFileSync(join(folder, "file"), "")
    process.env.HF_HUB_CACHE = join(folder, "file")
    expect(await refusal()).toContain("a part of the path is not a folder (set HF_HUB_CACHE")
  })
})

describe("without a network", () => {
  test("what is in the cache is taken, and said so", async () => {
    const { path } = await fetched()
    process.env.HF_ENDPOINT = NOWHERE
    expect(await fetched()).toEqual({
      path,
      said: `${NAME}: ${NOWHERE} cannot be reached; the copy in the cache is taken\n`,
    })
    process.env.HF_HUB_OFFLINE = "1"
    expect(await fetched()).toEqual({ path, said: "" })
  })

  test("what is not there, or not all of it, is refused", async () => {
    process.env.HF_ENDPOINT = NOWHERE
    const message = `${NAME}: no such path, nothing in ${repository()}, and ${NOWHERE} cannot be reached (`
    expect(await refusal()).toStartWith(message)
    process.env.HF_ENDPOINT = hub.url
    hub.models[NAME] = shards()
    const { path } = await fetched()
    rmSync(join(path, "model-00002-of-00002.safetensors"))
    process.env.HF_ENDPOINT = NOWHERE
    expect(await refusal()).toStartWith(message)
  })
})

test("a name is of the hub when it is none of a path's", () => {
  expect(hubName("gpt2")).toBe("openai-community/gpt2")
  expect(hubName("gpt2-xl")).toBe("openai-community/gpt2-xl")
  expect(hubName("distilgpt2")).toBe("distilbert/distilgpt2")
  expect(hubName("some-one/tiny.gpt2")).toBe("some-one/tiny.gpt2")
  for (const path of [
    "model",
    "src/first",
    "a/model.bin",
    "./a/b",
    "a/b/c",
    "../b",
    "a/..",
    "/a/b",
  ]) {
    expect(hubName(path)).toBeUndefined()
  }
})
