import { afterAll, describe, expect, test } from "bun:test"
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import fc from "fast-check"
import ranks from "gpt-tokenizer/bpeRanks/r50k_base"
import { Decoder, END_OF_TEXT, VOCABULARY, type Vocabulary } from "../../src/data/tokenizer.ts"
import { headerBytes } from "../../src/formats/header.ts"
import { readTokenizer, writeTokenizer } from "../../src/formats/tokenizer.ts"
import { refuses } from "./broken.ts"

const folder = mkdtempSync(join(tmpdir(), "tokenizer-"))
afterAll(() => rmSync(folder, { recursive: true }))

const header = (version: number, ...rest: number[]) => headerBytes(20240328, version, ...rest)
/** Tokens as they stand in a file. */
const body = (...tokens: Uint8Array[]) =>
  Buffer.concat(tokens.flatMap((bytes) => [Uint8Array.of(bytes.length), bytes]))

describe("GPT-2's tokenizer", async () => {
  const decoder = await Decoder.load()
  const vocabulary = Array.from({ length: VOCABULARY }, (_, token) => decoder.tokenBytes(token))

  test("written, has llm.c's layout of the second version, and is read back", () => {
    const path = join(folder, "written.bin")
    writeTokenizer(path, { tokens: vocabulary, endOfText: END_OF_TEXT })
    const layout = Buffer.concat([header(2, VOCABULARY, END_OF_TEXT), body(...vocabulary)])
    expect(readFileSync(path).equals(layout)).toBe(true)
    const { tokens, endOfText } = readTokenizer(path)
    expect(endOfText).toBe(END_OF_TEXT)
    expect(Buffer.concat(tokens).equals(Buffer.concat(vocabulary))).toBe(true)
  })

  describe("decoded through its file", () => {
    const path = join(folder, "decoder.bin")
    writeTokenizer(path, { tokens: vocabulary, endOfText: END_OF_TEXT })
    const fromFile = Decoder.of(readTokenizer(path).tokens)

    // Its ranks and not its decode, which keeps half a character for the text of the next call.
    test("has gpt-tokenizer's bytes for every token", () => {
      expect(fromFile.count).toBe(VOCABULARY)
      for (const [token, part] of [...(ranks as Vocabulary), "<|endoftext|>"].entries()) {
        const bytes = typeof part === "string" ? Buffer.from(part) : Buffer.from(Array.from(part))
        if (!bytes.equals(fromFile.tokenBytes(token))) throw new Error(`token ${token}`)
      }
    })

    // Any tokens in any order: most of their characters' bytes do not fit together.
    test("gives the same text, split anywhere, as the bytes at once", () => {
      const single = vocabulary.flatMap((bytes, token) => (bytes.length === 1 ? [token] : []))
      const token = fc.oneof(fc.constantFrom(...single), fc.nat({ max: VOCABULARY - 1 }))
      fc.assert(
        fc.property(fc.array(token, { maxLength: 12 }), (tokens) => {
          const bytes = Buffer.concat(tokens.map((id) => vocabulary[id]!))
          const text = new TextDecoder("utf-8", { ignoreBOM: true }).decode(bytes)
          for (const from of [fromFile, decoder]) {
            expect(from.decode(tokens)).toBe(text)
            const stream = from.stream()
            const pieces = tokens.map((id) => stream.push(id))
            expect(pieces.join("") + stream.end()).toBe(text)
          }
        }),
        { numRuns: 3000 },
      )
    })
  })

  test.each([
    ["first", header(1, VOCABULARY)],
    ["second", header(2, VOCABULARY, END_OF_TEXT)],
  ])("of the %s version gives every token's bytes", (_, head) => {
    const path = join(folder, "gpt2.bin")
    writeFileSync(path, Buffer.concat([head, body(...vocabulary)]))
    const { tokens, endOfText } = readTokenizer(path)
    expect(endOfText).toBe(END_OF_TEXT)
    expect(new TextDecoder().decode(tokens[END_OF_TEXT])).toBe("<|endoftext|>")
    expect(tokens).toHaveLength(VOCABULARY)
    expect(tokens.findIndex((bytes, i) => Buffer.compare(bytes, vocabulary[i]!) !== 0)).toBe(-1)
  })
})

test("a tokenizer may have tokens of 1 to 255 bytes, and any of them as its end of text", () => {
  const path = join(folder, "small.bin")
  const long = Uint8Array.from({ length: 255 }, (_, i) => i)
  const words = [Uint8Array.of(0), long, Uint8Array.of(255, 0)]
  for (const endOfText of [0, 1, 2]) {
    writeFileSync(path, Buffer.concat([header(2, 3, endOfText), body(...words)]))
    expect(readTokenizer(path)).toEqual({ tokens: words, endOfText })
    const written = join(folder, "again.bin")
    writeTokenizer(written, { tokens: words, endOfText })
    expect(readFileSync(written).equals(readFileSync(path))).toBe(true)
  }
})

test("a token of no bytes, or of 256, is not written", () => {
  for (const length of [0, 256]) {
    const tokens = [new Uint8Array(length)]
    expect(() => writeTokenizer(join(folder, "none.bin"), { tokens, endOfText: 0 })).toThrow(
      `token 0 of ${length} bytes`,
    )
  }
})

describe("a broken tokenizer file is refused in one line", () => {
  const three = body(Uint8Array.of(97), Uint8Array.of(98, 99), Uint8Array.of(100))
  const huge = 2 ** 31 - 1
  refuses(folder, readTokenizer, [
    ["it is empty", [], "0 bytes are too few for a tokenizer"],
    ["it is a model", [headerBytes(20240326, 3)], "not a tokenizer: a GPT-2 model"],
    [
      "its version is unknown",
      [header(3, 3, 2), three],
      "version 3, but only 1 (GPT-2's) and 2 (any, which names its end of text) can be read",
    ],
    ["no tokens", [header(2, 0, 0), three], "its header promises 0 tokens in 7 bytes"],
    ["a negative number of tokens", [header(2, -3, 2), three], "its header promises -3 tokens"],
    [
      "more tokens than fit",
      [header(2, 4, 2), three],
      "its header promises 4 tokens in 7 bytes, each token at least 2",
    ],
    ["more tokens than memory", [header(2, huge, 2), three], "its header promises 2,147,483,647"],
    [
      "an end of text past the last",
      [header(2, 3, 3), three],
      "its end of text, 3, is none of its",
    ],
    ["a negative end of text", [header(2, 3, -1), three], "its end of text, -1, is none of its"],
    [
      "a first version of another size",
      [header(1, 3), three],
      "3 tokens, but version 1 has GPT-2's",
    ],
    [
      "a token without bytes",
      [header(2, 3, 2), body(Uint8Array.of(97), Uint8Array.of(), Uint8Array.of(98, 99))],
      "token 1 has no bytes",
    ],
    ["it ends in a token", [header(2, 3, 2), three.subarray(0, 6)], "it ends in token 2 of 3"],
    [
      "it ends before a token",
      [header(2, 3, 2), body(Uint8Array.of(97, 98, 99), Uint8Array.of(100, 101))],
      "it ends in token 2 of 3 (copy it again)",
    ],
    [
      "it has a token too many",
      [header(2, 2, 1), three],
      "2 bytes follow its last token (it was added to: copy it again)",
    ],
  ])
})
