import { afterAll, describe, expect, test } from "bun:test"
import { existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { type DataOptions, data } from "../../src/commands/data.ts"
import { builtinCorpus } from "../../src/data/corpus.ts"
import { download } from "../../src/data/download.ts"
import { duration, Progress } from "../../src/data/progress.ts"
import { Decoder, VOCABULARY } from "../../src/data/tokenizer.ts"
import { UserError } from "../../src/errors.ts"
import { readTokenizer } from "../../src/formats/tokenizer.ts"
import { readTokens } from "../../src/formats/tokens.ts"

const folder = mkdtempSync(join(tmpdir(), "data-"))
const text = "Some text that is not by Shakespeare.\n".repeat(5000)

const server = Bun.serve({
  port: 0,
  hostname: "127.0.0.1",
  fetch(request) {
    const { pathname } = new URL(request.url)
    if (pathname === "/text") return new Response(text)
    if (pathname === "/stalls") {
      return new Response(new ReadableStream({ start: (c) => c.enqueue(new Uint8Array(1000)) }))
    }
    return new Response("gone", { status: 404 })
  },
})
// Promises more than it sends, which Bun.serve would not do.
const breaksOff = Bun.listen({
  port: 0,
  hostname: "127.0.0.1",
  socket: {
    data(socket) {
      socket.write("HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n")
      socket.write("x".repeat(1234))
      setTimeout(() => socket.end(), 20)
    },
  },
})
const at = (path: string) => `http://127.0.0.1:${server.port}${path}`
const brokenUrl = `http://127.0.0.1:${breaksOff.port}/`

afterAll(() => {
  server.stop(true)
  breaksOff.stop(true)
  rmSync(folder, { recursive: true })
})

class Memory {
  text = ""
  constructor(readonly isTTY = false) {}
  write(text: string): void {
    this.text += text
  }
}

async function run(options: DataOptions, url?: string, isTTY = false) {
  const stdout = new Memory()
  const stderr = new Memory(isTTY)
  await data({ outDir: join(folder, "out"), ...options }, { url, stdout, stderr })
  return { stdout: stdout.text, stderr: stderr.text }
}

describe("download", () => {
  test("gives the whole body and counts its bytes", async () => {
    const seen: [number, number | undefined][] = []
    const bytes = await download(at("/text"), {
      wayOut: "hint",
      onBytes: (done, total) => seen.push([done, total]),
    })
    expect(new TextDecoder().decode(bytes)).toBe(text)
    expect(seen.at(-1)).toEqual([text.length, text.length])
  })

  test.each([
    ["a missing file", at("/nothing"), "the server answers 404"],
    ["a body that breaks off", brokenUrl, "broke off"],
    ["no server", "http://127.0.0.1:1/x", "cannot be reached"],
    ["a server that falls silent", at("/stalls"), "nothing came for 0.2 seconds"],
  ])("%s is a UserError with the way out", async (_, url, message) => {
    const error = await download(url, { wayOut: "the way out", idleMs: 200, pauseMs: 1 }).catch(
      (e) => e,
    )
    expect(error).toBeInstanceOf(UserError)
    expect(error.message).toStartWith(`${url}: ${message}`)
    expect(error.message).toEndWith("(the way out)")
    expect(error.message).not.toContain("\n")
  })
})

describe("llm data tinyshakespeare", () => {
  test.each([
    ["another text", at("/text"), "this is not Tiny Shakespeare: its SHA-256 is"],
    ["a missing file", at("/nothing"), "the server answers 404"],
    ["a body that breaks off", brokenUrl, "broke off"],
    ["no network", "http://127.0.0.1:1/x", "cannot be reached"],
  ])("%s is refused, with --from and plays offered", async (_, url, message) => {
    const error = await run({ sources: ["tinyshakespeare"] }, url).catch((e) => e)
    expect(error).toBeInstanceOf(UserError)
    expect(error.message).toContain(message)
    expect(error.message).toContain("--from FILE")
    expect(error.message).toContain("llm data plays")
    expect(error.message).not.toContain("\n")
    expect(existsSync(join(folder, "out"))).toBe(false)
  })

  test("another text given by --from is refused, with llm data PATH.txt offered", async () => {
    const from = join(folder, "mine.txt")
    writeFileSync(from, text)
    const error = await run({ sources: ["tinyshakespeare"], from }).catch((e) => e)
    expect(error).toBeInstanceOf(UserError)
    expect(error.message).toStartWith(`--from ${from}: this is not Tiny Shakespeare`)
    expect(error.message).toEndWith("(for other texts use llm data PATH.txt)")
  })

  const real = process.env.LLM_TINYSHAKESPEARE
  const why = real ? "" : " (skipped: LLM_TINYSHAKESPEARE names no copy of it)"
  test.skipIf(!real)(`the real text is downloaded, cut and written${why}`, async () => {
    using source = Bun.serve({ port: 0, fetch: () => new Response(Bun.file(real!)) })
    const outDir = join(folder, "shakespeare")
    const options = { sources: ["tinyshakespeare"], outDir }
    const { stdout, stderr } = await run(options, `http://127.0.0.1:${source.port}/input.txt`, true)
    expect(stdout).toBe(
      `${outDir}/tiny_shakespeare_train.bin  305,260 tokens\n` +
        `${outDir}/tiny_shakespeare_val.bin  32,768 tokens\n` +
        `next: llm train ${outDir}/tiny_shakespeare_train.bin\n`,
    )
    expect(stderr).toContain("of 1.1 MB")
    const fromFile = await run({ ...options, from: real! })
    const older = ", in place of an older file"
    expect(fromFile).toEqual({
      stdout: stdout.replaceAll(" tokens", ` tokens${older}`),
      stderr: "",
    })
    expect(readTokens(join(outDir, "tiny_shakespeare_train.bin"), VOCABULARY).length).toBe(305_260)
  })
})

describe("llm data plays", () => {
  test("writes the built-in corpus and tells its entropy", async () => {
    const outDir = join(folder, "plays")
    const { stdout, stderr } = await run({ sources: ["plays"], outDir })
    const { train, val, trainNatsPerToken, valNatsPerToken } = await builtinCorpus()
    expect([...readTokens(join(outDir, "plays_train.bin"), VOCABULARY)]).toEqual([...train])
    expect([...readTokens(join(outDir, "plays_val.bin"), VOCABULARY)]).toEqual([...val])
    expect(stdout).toContain(`plays_train.bin  ${train.length.toLocaleString("en-US")} tokens`)
    expect(stdout).toContain(
      `train ${trainNatsPerToken.toFixed(4)}, val ${valNatsPerToken.toFixed(4)} nats a token`,
    )
    expect(stderr).toBe("")
  })

  test("another seed gives another corpus", async () => {
    const outDir = join(folder, "plays-2")
    await run({ sources: ["plays"], outDir, seed: 2 })
    const tokens = readTokens(join(outDir, "plays_val.bin"), VOCABULARY)
    expect([...tokens]).not.toEqual([...(await builtinCorpus()).val])
  })
})

test("llm data tokenizer writes GPT-2's, as llm.c reads it", async () => {
  const outDir = join(folder, "tokenizer")
  const path = join(outDir, "gpt2_tokenizer.bin")
  const { stdout } = await run({ sources: ["tokenizer"], outDir })
  expect(stdout).toStartWith(`${path}  50,257 tokens, `)
  const { tokens, endOfText } = readTokenizer(path)
  expect(Decoder.of(tokens).decode([15496, 995, endOfText])).toBe("Hello world<|endoftext|>")
})

describe("llm data PATH", () => {
  const path = join(folder, "story.txt")
  writeFileSync(path, "Once upon a time there was a token. ".repeat(100))

  test("writes a training and a validation file", async () => {
    const outDir = join(folder, "story", "deep")
    const { stdout, stderr } = await run({ sources: [path], outDir, valFraction: 0.2 })
    expect(readdirSync(outDir).sort()).toEqual(["story_train.bin", "story_val.bin"])
    const [train, val] = ["story_train.bin", "story_val.bin"].map(
      (name) => readTokens(join(outDir, name), VOCABULARY).length,
    )
    expect(val! / (train! + val!)).toBeCloseTo(0.2, 2)
    expect(stdout).toEndWith(`next: llm train ${outDir}/story_train.bin\n`)
    expect(stderr).toStartWith(`tokenizing ${path}\n`)
  })

  test("takes several files, and calls the token files as --name says", async () => {
    const outDir = join(folder, "several")
    const other = join(folder, "other.txt")
    writeFileSync(other, "Another text. ".repeat(9))
    const { stdout, stderr } = await run({ sources: [path, other], outDir, name: "both" })
    expect(readdirSync(outDir).sort()).toEqual(["both_train.bin", "both_val.bin"])
    expect(stdout).toEndWith(`next: llm train ${outDir}/both_train.bin\n`)
    expect(stderr).toStartWith(`tokenizing ${path}, ${other}\n`)
  })

  test("says what it replaced, what it left out, and quotes what a shell would split", async () => {
    const texts = join(folder, "it's mine")
    mkdirSync(texts)
    writeFileSync(join(texts, "a.txt"), "Words and words. ".repeat(20))
    writeFileSync(join(texts, "b.pdf"), "")
    writeFileSync(join(texts, "c"), "")
    const outDir = join(texts, "out")
    const { stdout } = await run({ sources: [texts], outDir })
    expect(stdout).toMatch(/it's mine_train\.bin {2}\d+ tokens\n/)
    expect(stdout).toContain(`left out, by their names: ${texts}/b.pdf and 1 more\n`)
    expect(stdout).toEndWith(
      `next: llm train '${outDir.replace("'", "'\\''")}/it'\\''s mine_train.bin'\n`,
    )
    const again = await run({ sources: [texts], outDir })
    expect(again.stdout).toMatch(/it's mine_train\.bin {2}\d+ tokens, in place of an older file\n/)
    expect(again.stdout).toContain("/b.pdf and 3 more\n")
  })

  test("a terminal sees the speed and the time that is left", () => {
    const line = new Memory(true)
    const progress = new Progress("tokenizing", line)
    progress.update(1e6, 4e6)
    expect(line.text).toMatch(/█+░+ {2}1\.0 MB of 4\.0 MB {2}\d+\.\d MB\/s {2}1 s left$/)
    expect([0.2, 59, 61, 3599, 3601, 90_000].map(duration)).toEqual([
      "1 s",
      "59 s",
      "1 min",
      "1 h 0 min",
      "1 h 0 min",
      "25 h 0 min",
    ])
  })

  test("--val-fraction 0 writes no validation file and says so", async () => {
    const outDir = join(folder, "all")
    const { stdout } = await run({ sources: [path], outDir, valFraction: 0 })
    expect(readdirSync(outDir)).toEqual(["story_train.bin"])
    expect(stdout).toContain("no validation file, as --val-fraction is 0")
  })

  test("--val-fraction 0 does not leave an old validation file beside the new tokens", async () => {
    const outDir = join(folder, "old")
    await run({ sources: [path], outDir })
    const error = await run({ sources: [path], outDir, valFraction: 0 }).catch((e) => e)
    expect(error).toBeInstanceOf(UserError)
    expect(error.message).toContain("story_val.bin: it is from an earlier run")
  })
})

describe("a wrong option is refused in one line", () => {
  const own = join(folder, "own.txt")
  writeFileSync(own, "words and ".repeat(50))
  const cases: [string, DataOptions, string][] = [
    [
      "an unknown source",
      { sources: ["tinyshakespear"] },
      "llm data tinyshakespear: no such source (did you mean tinyshakespeare?)",
    ],
    ["a file of another kind", { sources: ["a.pdf"] }, "llm data a.pdf: no such source"],
    ["a text given twice", { sources: [own, own] }, "own.txt: it is given twice (leave one out)"],
    ["a text that its folder has", { sources: [own, folder] }, "own.txt: it is given twice"],
    ["a missing text", { sources: [join(folder, "no.txt")] }, "no.txt: cannot read: no such file"],
    ["--from with a folder", { sources: [folder], from: "x" }, "--from x goes with tiny"],
    [
      "a missing copy",
      { sources: ["tinyshakespeare"], from: join(folder, "no") },
      "no such file or folder",
    ],
    ["an empty copy's name", { sources: ["tinyshakespeare"], from: "" }, "no such file or folder"],
    [
      "--from with plays",
      { sources: ["plays"], from: own },
      "goes with tinyshakespeare, tinystories, fineweb, fineweb-edu or hellaswag, not with plays",
    ],
    ["--from with a path", { sources: [own], from: own }, "goes with tinyshakespeare, tinystories"],
    ["--seed with a path", { sources: [own], seed: 3 }, "--seed 3 goes with plays"],
    ["--seed -1", { sources: ["plays"], seed: -1 }, "--seed -1 is not a whole number from 0"],
    ["--seed 1.5", { sources: ["plays"], seed: 1.5 }, "--seed 1.5 is not a whole number from 0"],
    [
      "--val-fraction with plays",
      { sources: ["plays"], valFraction: 0.1 },
      "goes with your own text",
    ],
    ["--val-fraction 1", { sources: [own], valFraction: 1 }, "--val-fraction 1 is not in [0, 1)"],
    ["--val-fraction -0.1", { sources: [own], valFraction: -0.1 }, "is not in [0, 1)"],
    ["--val-fraction NaN", { sources: [own], valFraction: Number.NaN }, "is not in [0, 1)"],
    ["--out-dir on a file", { sources: [own], outDir: own }, "--out-dir"],
    ["--out-dir below a file", { sources: [own], outDir: join(own, "x") }, "--out-dir"],
  ]
  test.each(cases)("%s", async (_, options, message) => {
    const error = await run(options).catch((e) => e)
    expect(error).toBeInstanceOf(UserError)
    expect(error.message).toContain(message)
    expect(error.message).not.toContain("\n")
    expect(existsSync(join(folder, "out"))).toBe(false)
  })
})
