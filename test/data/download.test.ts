import { afterAll, describe, expect, test } from "bun:test"
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { download, sha256 } from "../../src/data/download.ts"
import { fetchFile } from "../../src/data/fetch-file.ts"
import { hubFiles } from "../../src/data/hub.ts"
import { UserError } from "../../src/errors.ts"
import { type Answer, type Asked, badServer, hub, ranged } from "../fixtures/http.ts"

const folder = mkdtempSync(join(tmpdir(), "download-"))
afterAll(() => rmSync(folder, { recursive: true }))

const body = Uint8Array.from({ length: 100_000 }, (_, i) => (i * i) >> 3)
const fetching = { wayOut: "the way out", idleMs: 300, pauseMs: 1 }
const broken = (first: number, last: number): Answer => ({
  body: body.subarray(first, last),
  length: body.length - first,
})

/** A failing answer, and then what the server does when it is well. */
const thenWell =
  (...failures: Answer[]) =>
  (asked: Asked, index: number): Answer =>
    failures[index] ?? ranged(body, asked)

describe("a body is whole at last", () => {
  const cases: [string, (asked: Asked, index: number) => Answer, ranges: (string | null)[]][] = [
    ["when nothing fails", thenWell(), [null]],
    ["after it broke off, from there on", thenWell(broken(0, 40_000)), [null, "bytes=40000-"]],
    [
      "after it broke off again and again",
      (asked, i) => {
        const start = i * 10_000
        const range = `bytes ${start}-${body.length - 1}/${body.length}`
        if (i === 9) return ranged(body, asked)
        const part = broken(start, start + 10_000)
        return i === 0 ? part : { ...part, status: 206, headers: { "content-range": range } }
      },
      [null, ...Array.from({ length: 9 }, (_, i) => `bytes=${i + 1}0000-`)],
    ],
    [
      "after it broke off at a server that knows no ranges",
      (_, i) => (i === 0 ? broken(0, 40_000) : { body }),
      [null, "bytes=40000-"],
    ],
    [
      "after the server fell silent",
      thenWell({ ...broken(0, 500), stalls: true }),
      [null, "bytes=500-"],
    ],
    ["when the server was busy", thenWell({ status: 503 }, { status: 502 }), [null, null, null]],
    [
      "when Retry-After was 0",
      thenWell({ status: 429, headers: { "retry-after": "0" } }),
      [null, null],
    ],
    [
      "behind redirects",
      ({ path }) =>
        path === "/far"
          ? { body }
          : { status: 302, headers: { location: path === "/x" ? "/y" : "/far" } },
      [null, null, null],
    ],
  ]
  test.each(cases)("%s", async (_, answer, ranges) => {
    using server = badServer(answer)
    const seen: number[] = []
    const onBytes = (done: number) => seen.push(done)
    const got = await download(`${server.url}/x`, { ...fetching, onBytes })
    expect(Buffer.compare(got, body)).toBe(0)
    expect(server.asked.map(({ headers }) => headers.get("range"))).toEqual(ranges)
    expect(seen.at(-1)).toBe(body.length)
    expect(seen).toEqual(seen.toSorted((a, b) => a - b))
  })

  test.each([
    ["in seconds", () => "1", 1000],
    // HTTP's dates have whole seconds.
    ["as a date", () => new Date(Date.now() + 2000).toUTCString(), 900],
  ])("not before what Retry-After says %s", async (_, value, leastMs) => {
    using server = badServer(thenWell({ status: 429, headers: { "retry-after": value() } }))
    const start = performance.now()
    expect((await download(server.url, fetching)).length).toBe(body.length)
    expect(performance.now() - start).toBeGreaterThanOrEqual(leastMs)
  })
})

describe("a failure is one line with the address and the way out", () => {
  const far = { "retry-after": "7200" }
  const tag = (etag: string) => ({ headers: { etag } })
  const cases: [string, (asked: Asked, index: number) => Answer, string, requests: number][] = [
    ["a missing file", () => ({ status: 404 }), "the server answers 404", 1],
    ["a forbidden one", () => ({ status: 403 }), "the server answers 403", 1],
    ["a server that stays busy", () => ({ status: 503 }), "the server answers 503", 5],
    [
      "a server that wants hours",
      () => ({ status: 429, headers: far }),
      "the server answers 429: not before 120 minutes",
      1,
    ],
    [
      "a body that always breaks off at one place",
      (_, i) => (i === 0 ? broken(0, 40_000) : { ...broken(0, 30_000) }),
      "broke off after 40,000 of 100,000 bytes",
      5,
    ],
    [
      "a server that says nothing",
      () => ({ stalls: true, length: 9 }),
      "nothing came for 0.3 seconds",
      5,
    ],
    [
      "a file that changes meanwhile",
      (_, i) => ({ ...broken(0, 40_000), ...tag(i === 0 ? '"a"' : '"b"') }),
      "it changed on the server while it was downloaded",
      2,
    ],
    [
      "another part than was asked for",
      (_, i) =>
        i === 0
          ? broken(0, 40_000)
          : { status: 206, body: "x", headers: { "content-range": "bytes 7-99999/100000" } },
      "the server sends bytes from 7 on, not from 40000",
      2,
    ],
  ]
  test.each(cases)("%s", async (_, answer, message, requests) => {
    using server = badServer(answer)
    const url = `${server.url}/x`
    const error = await download(url, fetching).catch((e) => e)
    expect(error).toBeInstanceOf(UserError)
    expect(error.message).toStartWith(`${url}: ${message}`)
    expect(error.message).toEndWith("(the way out)")
    expect(error.message).not.toContain("\n")
    expect(server.asked.length).toBe(requests)
  })

  test("who no longer wants it does not wait for a busy server", async () => {
    using server = badServer(() => ({ status: 429, headers: { "retry-after": "500" } }))
    const abort = new AbortController()
    const got = download(server.url, { ...fetching, signal: abort.signal }).catch((e) => e)
    setTimeout(() => abort.abort(), 100)
    expect((await got).name).toBe("AbortError")
  })

  test("redirects in a circle, and no server at all", async () => {
    using server = badServer(() => ({ status: 302, headers: { location: "/" } }))
    for (const url of [server.url, "http://127.0.0.1:1/x", "http://no.such.host.invalid/x"]) {
      const error = await download(url, fetching).catch((e) => e)
      expect(error).toBeInstanceOf(UserError)
      expect(error.message).toStartWith(`${url}: cannot be reached: `)
      expect(error.message).not.toContain("\n")
    }
  })
})

describe("a file of the hub", () => {
  const path = join(folder, "file.bin")
  const partial = `${path}.incomplete`
  const whole = (url: string) => ({ url, bytes: body.length, checksum: sha256(body) })

  test("goes on with what an earlier run left", async () => {
    using server = badServer((asked) => ranged(body, asked))
    writeFileSync(partial, body.subarray(0, 70_000))
    await fetchFile(whole(server.url), path, fetching)
    expect(server.asked.map(({ headers }) => headers.get("range"))).toEqual(["bytes=70000-"])
    expect(Buffer.compare(readFileSync(path), body)).toBe(0)
    expect(existsSync(partial)).toBe(false)
  })

  test("that is there is not downloaded again", async () => {
    await fetchFile(whole("http://127.0.0.1:1"), path, fetching)
    rmSync(path)
  })

  test("that was whole but for its name needs no byte more", async () => {
    writeFileSync(partial, body)
    await fetchFile(whole("http://127.0.0.1:1"), path, fetching)
    expect(Buffer.compare(readFileSync(path), body)).toBe(0)
    rmSync(path)
  })

  test("without a known checksum starts anew", async () => {
    using server = badServer((asked) => ranged(body, asked))
    writeFileSync(partial, "something else")
    await fetchFile({ ...whole(server.url), checksum: undefined }, path, fetching)
    expect(server.asked.map(({ headers }) => headers.get("range"))).toEqual([null])
    expect(Buffer.compare(readFileSync(path), body)).toBe(0)
    rmSync(path)
  })

  test.each([
    ["another content", {}, body.with(7, 1), "its checksum is "],
    ["another length", {}, body.subarray(1), "99,999 bytes, but 100,000 were promised"],
    ["the rest of another file", { there: "x".repeat(99) }, body, "its checksum is "],
  ])(
    "with %s is refused and taken away",
    async (_, { there }: { there?: string }, sent, message) => {
      using server = badServer((asked) => ranged(sent, asked))
      if (there) writeFileSync(partial, there)
      const error = await fetchFile(whole(server.url), path, fetching).catch((e) => e)
      expect(error).toBeInstanceOf(UserError)
      expect(error.message).toStartWith(`${server.url}: ${message}`)
      expect(readdirSync(folder)).toEqual([])
    },
  )

  test("whose folder is gone is a UserError", async () => {
    using server = badServer(() => ({ body }))
    const gone = join(folder, "gone", "x")
    const error = await fetchFile(whole(server.url), gone, fetching).catch((e) => e)
    expect(error.message).toStartWith(`${gone}.incomplete: cannot write: no such file or folder`)
  })
})

describe("a list of the hub", () => {
  const list = async (content: unknown) => {
    const text = typeof content === "string" ? content : JSON.stringify(content)
    using server = badServer(() => ({ body: text }))
    process.env.HF_ENDPOINT = `${server.url}/`
    try {
      return await hubFiles("a/b", "in", fetching).catch((e) => e)
    } finally {
      delete process.env.HF_ENDPOINT
    }
  }

  test("gives files with their addresses, sizes and hashes", async () => {
    using server = hub("a/b", {
      "in/x.parquet": body,
      "in/.gitattributes": body,
      "y.parquet": body,
    })
    process.env.HF_ENDPOINT = server.url
    const files = await hubFiles("a/b", "in", fetching)
    const root = await hubFiles("a/b", "", fetching)
    delete process.env.HF_ENDPOINT
    const url = `${server.url}/datasets/a/b/resolve/main/in/x.parquet`
    expect(files).toEqual([{ name: "x.parquet", url, bytes: body.length, checksum: sha256(body) }])
    expect(root.map(({ name }) => name)).toEqual(["y.parquet"])
  })

  test.each([
    "in/../x",
    "../x",
    "/etc/passwd",
    "in/a/b",
    "in/..",
    "in/a\\b",
    "other/x",
    "in/",
    7,
    null,
  ])("must not lead out of the folder: %p", async (path) => {
    const error = await list([{ type: "file", path, size: 1 }])
    expect(error).toBeInstanceOf(UserError)
    expect(error.message).toContain(`it lists ${JSON.stringify(path)}, which is no name of a file`)
  })

  test.each([
    ["no JSON", "<html>", "not a list of files"],
    ["an error", { error: "gated" }, "not a list of files"],
    ["no size", [{ type: "file", path: "in/x" }], "it lists in/x without its size"],
  ])("that is %s is refused", async (_, content, message) => {
    const error = await list(content)
    expect(error).toBeInstanceOf(UserError)
    expect(error.message).toContain(message)
  })

  test("is not asked for at an address that is none", async () => {
    process.env.HF_ENDPOINT = "mirror"
    const error = await hubFiles("a/b", "", fetching).catch((e) => e)
    delete process.env.HF_ENDPOINT
    expect(error.message).toBe("HF_ENDPOINT mirror is not a URL (try https://huggingface.co)")
  })
})
