import { describe, expect, test } from "bun:test"
import fc from "fast-check"
import { encode as libraryEncode } from "gpt-tokenizer/encoding/r50k_base"
import { Decoder, END_OF_TEXT, loadEncoder, VOCABULARY } from "../../src/data/tokenizer.ts"

const encode = await loadEncoder()
const decoder = await Decoder.load()

// Characters of one to four bytes, breaks of all kinds, and pieces that GPT-2 treats on their own.
const text = fc
  .array(
    fc.oneof(
      fc.string({ unit: "binary" }),
      fc.constantFrom(" ", "  ", "\n", "\n\n", "\t", "\u00a0", "'s", "é", "日本", "😀", "\ufeff"),
    ),
    { maxLength: 12 },
  )
  .map((parts) => parts.join("").toWellFormed())

describe("the tokenizer", () => {
  test("gives GPT-2's tokens", () => {
    expect(encode("Hello world")).toEqual([15496, 995])
    expect(encode("First Citizen:\nBefore we proceed any further, hear me speak.")).toEqual([
      5962, 22307, 25, 198, 8421, 356, 5120, 597, 2252, 11, 3285, 502, 2740, 13,
    ])
    expect(encode("")).toEqual([])
  })

  test("takes the written end-of-text mark for ordinary text", () => {
    const tokens = encode("one <|endoftext|> two")
    expect(tokens).not.toContain(END_OF_TEXT)
    expect(decoder.decode(tokens)).toBe("one <|endoftext|> two")
    expect(decoder.decode([END_OF_TEXT])).toBe("<|endoftext|>")
  })

  test("decodes what it encoded", () => {
    fc.assert(fc.property(text, (s) => expect(decoder.decode(encode(s))).toBe(s)))
  })

  test("encodes half a surrogate pair as the replacement character", () => {
    expect(decoder.decode(encode("a\ud800b"))).toBe("a\ufffdb")
  })

  test("knows the bytes of every token, all of them different", () => {
    const all = new Set<string>()
    for (let token = 0; token < VOCABULARY; token++) {
      expect(decoder.tokenBytes(token).length).toBeGreaterThan(0)
      all.add(Buffer.from(decoder.tokenBytes(token)).toString("latin1"))
    }
    expect(all.size).toBe(VOCABULARY)
    expect(() => decoder.tokenBytes(VOCABULARY)).toThrow()
  })
})

describe("the streaming decoder", () => {
  test("gives whole characters at every step, and all of them in the end", () => {
    fc.assert(
      fc.property(text, (s) => {
        const stream = decoder.stream()
        const bytes: number[] = []
        let shown = ""
        for (const token of encode(s)) {
          bytes.push(...decoder.tokenBytes(token))
          shown += stream.push(token)
          expect(s.startsWith(shown)).toBe(true)
          // Nothing is held back but the start of one character.
          expect(bytes.length - Buffer.byteLength(shown)).toBeLessThan(4)
        }
        expect(shown + stream.end()).toBe(s)
      }),
    )
  })

  test("gives the same text as decoding at once, split anywhere", () => {
    const tokens = encode("naïve 日本語 😀 — ça va? \ufeffend")
    for (let split = 0; split <= tokens.length; split++) {
      const stream = decoder.stream()
      let shown = ""
      for (const token of tokens.slice(0, split)) shown += stream.push(token)
      for (const token of tokens.slice(split)) shown += stream.push(token)
      expect(shown + stream.end()).toBe(decoder.decode(tokens))
    }
  })

  test("turns bytes that are no text into replacement characters", () => {
    const [first] = encode("日") // a token with the first bytes of the character only
    const stream = decoder.stream()
    expect(decoder.tokenBytes(first!).length).toBeLessThan(3)
    expect(stream.push(first!)).toBe("")
    expect(stream.push(encode("a")[0]!)).toBe("\ufffda")
    stream.push(first!)
    expect(stream.end()).toBe("\ufffd")
  })

  test("does not mix up two streams", () => {
    const [a, b] = [decoder.stream(), decoder.stream()]
    const tokens = encode("日")
    const seen = tokens.map((token) => [a.push(token), b.push(token)])
    expect(seen.at(-1)).toEqual(["日", "日"])
  })
})

describe("long unbroken runs", () => {
  test("give the library's tokens", () => {
    const unit = fc.constantFrom("a", "b", "é", "日", "=", "-~", " ", "\n", "1", "😀", "the", "ing")
    fc.assert(
      fc.property(fc.array(unit, { minLength: 1, maxLength: 4 }), fc.nat(), (units, salt) => {
        let run = ""
        for (let i = salt; run.length < 1500; i = (i * 31 + 7) % 1009)
          run += units[i % units.length]
        const long = `Say: ${run} it's.\n`
        expect(encode(long)).toEqual(libraryEncode(long))
      }),
      { numRuns: 40 },
    )
  })

  // Searching all pairs for each merge would take minutes.
  test("of a million letters take seconds", () => {
    expect(encode("a".repeat(1_000_000)).length).toBe(250_000)
  }, 30_000)
})
