import { afterAll, describe, expect, test } from "bun:test"
import { chmodSync, mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import fc from "fast-check"
import { UserError } from "../../src/errors.ts"
import { readTokens, writeTokens } from "../../src/formats/tokens.ts"

const folder = mkdtempSync(join(tmpdir(), "tokens-"))
afterAll(() => rmSync(folder, { recursive: true }))

const VOCABULARY = 50257
const at = (name: string) => join(folder, name)

function file(name: string, bytes: Uint8Array): string {
  writeFileSync(at(name), bytes)
  return at(name)
}

function withHeader(magic: number, version: number, count: number, body: Uint8Array): Uint8Array {
  const bytes = new Uint8Array(1024 + body.length)
  bytes.set(new Uint8Array(Int32Array.of(magic, version, count).buffer))
  bytes.set(body, 1024)
  return bytes
}

const bytesOf = (array: Uint16Array | Uint32Array | Int32Array) =>
  new Uint8Array(array.buffer, array.byteOffset, array.byteLength)

describe("token files", () => {
  test("GPT-2's format is read as it was written", () => {
    const tokens = Uint16Array.of(50256, 0, 17, 50255)
    writeTokens(at("written.bin"), tokens)
    expect([...readTokens(at("written.bin"), VOCABULARY)]).toEqual([...tokens])
    expect(readdirSync(folder).filter((name) => name.endsWith(".tmp"))).toEqual([])
  })

  test("a written file has llm.c's header", async () => {
    writeTokens(at("header.bin"), Uint16Array.of(7, 8, 9))
    const bytes = new Uint8Array(await Bun.file(at("header.bin")).arrayBuffer())
    const expected = withHeader(20240520, 1, 3, bytesOf(Uint16Array.of(7, 8, 9)))
    expect(Buffer.compare(bytes, expected)).toBe(0)
  })

  test("Llama 3's format is read", () => {
    const tokens = Uint32Array.of(128000, 5, 70000)
    const path = file("llama.bin", withHeader(20240801, 7, 3, bytesOf(tokens)))
    expect([...readTokens(path, 128256)]).toEqual([...tokens])
  })

  test("the headerless int32 format is read", () => {
    const tokens = Int32Array.of(50256, 5, 6)
    expect([...readTokens(file("headerless.bin", bytesOf(tokens)), VOCABULARY)]).toEqual([
      ...tokens,
    ])
  })

  test("a file that may only be read is enough", () => {
    writeTokens(at("readonly.bin"), Uint16Array.of(1, 2, 3))
    chmodSync(at("readonly.bin"), 0o444)
    chmodSync(folder, 0o755)
    const script = `
      const { readTokens } = await import(${JSON.stringify(join(import.meta.dir, "../../src/formats/tokens.ts"))})
      console.log([...readTokens(${JSON.stringify(at("readonly.bin"))}, 10)].join())`
    // Root may write anything, so another user has to try.
    const other = process.getuid?.() === 0 ? ["setpriv", "--reuid=65534", "--clear-groups"] : []
    const { stdout, stderr } = Bun.spawnSync([...other, process.execPath, "-e", script])
    expect(`${stdout}${stderr}`.trim()).toBe("1,2,3")
  })
})

describe("a broken token file is refused in one line", () => {
  mkdirSync(at("folder"))
  const good = bytesOf(Uint16Array.of(1, 2, 3, 4))
  const cases: [name: string, path: string, message: string][] = [
    ["missing", at("missing.bin"), "cannot read: no such file or folder"],
    ["a folder", at("folder"), "it is a folder"],
    ["a device", "/dev/null", "not a regular file"],
    [
      "a path through a file",
      join(file("plain", good), "x.bin"),
      "a part of the path is not a folder",
    ],
    ["empty", file("empty.bin", new Uint8Array()), "the file is empty"],
    ["three bytes", file("three.bin", new Uint8Array(3)), "3 bytes are too few"],
    [
      "a magic and no more",
      file("magic.bin", bytesOf(Int32Array.of(20240520))),
      "4 bytes, but its header alone takes 1,024",
    ],
    [
      "truncated",
      file("short.bin", withHeader(20240520, 1, 500, good)),
      "1,032 bytes, but its header promises 500 tokens (2,024 bytes)",
    ],
    [
      "too long",
      file("long.bin", withHeader(20240520, 1, 3, good)),
      "1,032 bytes, but its header promises 3 tokens (1,030 bytes)",
    ],
    [
      "an odd size",
      file("odd.bin", withHeader(20240520, 1, 3, good.subarray(0, 7))),
      "1,031 bytes, but its header promises 3 tokens (1,030 bytes)",
    ],
    [
      "a negative count",
      file("negative.bin", withHeader(20240520, 1, -4, good)),
      "promises -4 tokens",
    ],
    [
      "no tokens",
      file("none.bin", withHeader(20240520, 1, 0, new Uint8Array())),
      "it holds no tokens",
    ],
    [
      "another version",
      file("version.bin", withHeader(20240520, 2, 4, good)),
      "version 2 of magic 20240520, but only version 1 is known",
    ],
    [
      "a model",
      file("model.bin", withHeader(20240326, 3, 4, good)),
      "not a token file: a GPT-2 model",
    ],
    [
      "text",
      file("text.bin", new TextEncoder().encode("First Citizen:\n")),
      "not a token file: a text (make",
    ],
    [
      "headerless with an odd size",
      file("headerless-odd.bin", bytesOf(Int32Array.of(1, 2)).subarray(0, 7)),
      "7 bytes without a header are not a whole number of int32 tokens",
    ],
    [
      "a token out of the vocabulary",
      file(
        "vocabulary.bin",
        withHeader(20240520, 1, 4, bytesOf(Uint16Array.of(1, 2, 50257, 50300))),
      ),
      "token 2 is 50,257, but the vocabulary has 50,257",
    ],
    [
      "a negative token",
      file("minus.bin", bytesOf(Int32Array.of(1, -2))),
      "token 1 is -2, but the vocabulary has 50,257",
    ],
  ]
  test.each(cases)("%s", (_, path, message) => {
    const read = () => readTokens(path, VOCABULARY)
    expect(read).toThrow(UserError)
    expect(read).toThrow(message)
    expect(read).toThrow(path)
    expect(read).not.toThrow(/\n/)
  })

  test("whatever bytes are changed, a read gives tokens of the vocabulary or a UserError", () => {
    const tokens = Uint16Array.from({ length: 60 }, (_, i) => i * 800)
    const whole = withHeader(20240520, 1, tokens.length, bytesOf(tokens))
    const change = fc.record({
      place: fc.oneof(fc.nat(15), fc.nat(whole.length - 1)),
      byte: fc.nat(255),
    })
    fc.assert(
      fc.property(
        fc.array(change, { maxLength: 4 }),
        fc.oneof(fc.constant(whole.length), fc.nat(whole.length + 8)),
        (changes, length) => {
          const bytes = new Uint8Array(length)
          bytes.set(whole.subarray(0, length))
          for (const { place, byte } of changes) if (place < length) bytes[place] = byte
          const path = file("changed.bin", bytes)
          try {
            const read = readTokens(path, VOCABULARY)
            expect(read.length).toBeGreaterThan(0)
            expect(read.every((token) => token >= 0 && token < VOCABULARY)).toBe(true)
          } catch (error) {
            if (!(error instanceof UserError)) throw error
          }
        },
      ),
      { numRuns: 300 },
    )
  })
})

describe("a file that cannot be written leaves nothing behind", () => {
  const module = join(import.meta.dir, "../../src/formats/tokens.ts")
  const script = (path: string) => `
    const { writeTokens } = await import(${JSON.stringify(module)})
    const { readdirSync } = await import("node:fs")
    const { dirname } = await import("node:path")
    try { writeTokens(${JSON.stringify(path)}, new Uint16Array(1_000_000)) }
    catch (error) { console.log(error.constructor.name, error.message) }
    console.log(readdirSync(dirname(${JSON.stringify(path)})).join())`

  test.each([
    ["no such folder", join(folder, "nowhere", "x.bin"), "no such file or folder"],
    ["a file in place of the folder", join(folder, "plain", "x.bin"), "not a folder"],
    ["a folder in place of the file", join(folder, "folder"), "it is a folder"],
  ])("%s", (_, path, message) => {
    const write = () => writeTokens(path, Uint16Array.of(1, 2))
    expect(write).toThrow(UserError)
    expect(write).toThrow(message)
    expect(readdirSync(folder).filter((name) => name.includes(".tmp"))).toEqual([])
  })

  test("a limit on the file's size", () => {
    mkdirSync(at("limited"))
    const { stdout } = Bun.spawnSync([
      "bash",
      "-c",
      `trap '' XFSZ; ulimit -f 100; exec "$0" -e "$1"`,
      process.execPath,
      script(at("limited/x.bin")),
    ])
    expect(stdout.toString()).toBe(
      `UserError ${at("limited/x.bin")}: cannot write: the file would pass the size limit (free some space or choose another folder)\n\n`,
    )
  })

  const mount = ["unshare", "-rm", "sh", "-c"]
  const disk = at("disk")
  mkdirSync(disk)
  const small = `mount -t tmpfs -o size=1m tmpfs ${disk}`
  const mayMount = Bun.spawnSync([...mount, small]).exitCode === 0
  test.skipIf(!mayMount)(
    `a full disk${mayMount ? "" : " (skipped: a file system may not be mounted here)"}`,
    () => {
      const { stdout } = Bun.spawnSync([
        ...mount,
        `${small} && exec "$0" -e "$1"`,
        process.execPath,
        script(join(disk, "x.bin")),
      ])
      expect(stdout.toString()).toBe(
        `UserError ${join(disk, "x.bin")}: cannot write: the disk is full (free some space or choose another folder)\n\n`,
      )
    },
  )
})
