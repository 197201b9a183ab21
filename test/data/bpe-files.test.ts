import { describe, expect, test } from "bun:test"
import fc from "fast-check"
import { encode } from "gpt-tokenizer/encoding/r50k_base"
import { R50K_TOKEN_SPLIT_REGEX } from "gpt-tokenizer/encodingParams/constants"
import { BYTE_ALPHABET, loadBpeFiles } from "../../src/data/bpe-files.ts"
import { Decoder, END_OF_TEXT, VOCABULARY } from "../../src/data/tokenizer.ts"

const { tokens, merges } = await loadBpeFiles()
const ids = new Map(tokens.map((token, id) => [token, id]))
const order = new Map(merges.map((merge, i) => [merge, i]))

/** Byte-pair encoding as its paper has it: the pair that was merged first is merged everywhere, until
 * none is left that ever was. */
function encodeWithMerges(text: string): number[] {
  return [...text.matchAll(R50K_TOKEN_SPLIT_REGEX)].flatMap(([piece]) => {
    let parts = Array.from(Buffer.from(piece), (byte) => BYTE_ALPHABET[byte]!)
    while (true) {
      const pairs = parts.slice(1).map((right, i) => `${parts[i]} ${right}`)
      const ranks = pairs.map((pair) => order.get(pair) ?? Number.POSITIVE_INFINITY)
      const lowest = Math.min(...ranks)
      if (lowest === Number.POSITIVE_INFINITY) return parts.map((part) => ids.get(part)!)
      const [left, right] = merges[lowest]!.split(" ")
      const next: string[] = []
      for (let i = 0; i < parts.length; i++) {
        const isPair = parts[i] === left && parts[i + 1] === right
        next.push(isPair ? `${left}${right}` : parts[i]!)
        if (isPair) i++
      }
      parts = next
    }
  })
}

describe("the alphabet of GPT-2's bytes", () => {
  test("has 256 characters that can be seen, and a space is Ġ in it", () => {
    expect(new Set(BYTE_ALPHABET).size).toBe(256)
    expect(BYTE_ALPHABET.join("")).not.toMatch(/[\p{C}\p{Z}]/u)
    const some = [32, 10, 0, 33, 126, 127, 160, 161, 172, 173, 174, 255]
    expect(some.map((byte) => BYTE_ALPHABET[byte]).join("")).toBe("ĠĊĀ!~ġł¡¬Ń®ÿ")
  })

  test("spells the bytes of every token, and the end of text stands for itself", async () => {
    const decoder = await Decoder.load()
    const bytes = new Map(BYTE_ALPHABET.map((character, byte) => [character, byte]))
    expect(tokens).toHaveLength(VOCABULARY)
    const wrong = tokens.findIndex((token, id) => {
      const spelt = Buffer.from(Array.from(token, (character) => bytes.get(character)!))
      return Buffer.compare(spelt, decoder.tokenBytes(id)) !== 0
    })
    expect(wrong).toBe(-1)
    expect(tokens[END_OF_TEXT]).toBe("<|endoftext|>")
  })
})

describe("the merges", () => {
  test("are 50,000, all different, of tokens that there were before", () => {
    expect(order.size).toBe(50_000)
    expect(merges.slice(0, 4)).toEqual(["Ġ t", "Ġ a", "h e", "i n"])
    for (const [i, merge] of merges.entries()) {
      const [left = "", right = ""] = merge.split(" ")
      const made = 256 + i
      if (ids.get(left + right) === made && ids.get(left)! < made && ids.get(right)! < made)
        continue
      throw new Error(`merge ${i}: ${merge}`)
    }
  })

  test("give gpt-tokenizer's tokens for texts of all kinds", () => {
    // Words that are in the vocabulary, and anything, glued together: what is merged crosses them.
    const word = fc.nat({ max: VOCABULARY - 2 }).map((id) => {
      const bytes = Array.from(tokens[id]!, (character) => BYTE_ALPHABET.indexOf(character))
      return new TextDecoder().decode(Uint8Array.from(bytes))
    })
    const text = fc
      .array(fc.oneof(word, word, fc.string({ unit: "binary", maxLength: 6 })), { maxLength: 8 })
      .map((parts) => parts.join("").toWellFormed())
    fc.assert(
      fc.property(text, (s) => {
        expect(encodeWithMerges(s)).toEqual(encode(s, { disallowedSpecial: new Set<string>() }))
      }),
      { numRuns: 4000 },
    )
  }, 60_000)
})
