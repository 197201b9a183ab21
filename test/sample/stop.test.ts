// Stop strings: the same text is shown however it comes in pieces.

import { describe, expect, test } from "bun:test"
import fc from "fast-check"
import { loadEncoder } from "../../src/data/tokenizer.ts"
import { StopStrings } from "../../src/sample/stop.ts"
import { SampleText } from "../../src/sample/text.ts"

/** What is shown of pieces, one by one. */
function shown(stops: string[], pieces: string[]): string[] {
  const strings = new StopStrings(stops)
  return [...pieces.map((piece) => strings.push(piece)), strings.end()]
}

/** The text before the stop string that is complete first, found letter by letter. */
function expected(stops: string[], text: string): string {
  for (let end = 0; end <= text.length; end++) {
    const found = stops.filter((stop) => text.slice(0, end).endsWith(stop))
    const longest = Math.max(...found.map(({ length }) => length))
    if (found.length > 0) return text.slice(0, end - longest)
  }
  return text
}

describe("what is shown", () => {
  test.each<[string, string[], string[], string[]]>([
    ["all where no string stops it", [], ["a", "b"], ["a", "b", ""]],
    ["nothing of a string in one piece", ["\n\n"], ["a\n\nb", "c"], ["a", "", ""]],
    ["nothing of a string in two pieces", ["\n\n"], ["a\n", "\nb"], ["a", "", ""]],
    ["what was held back for nothing", ["\n\n"], ["a\n", "b"], ["a", "\nb", ""]],
    ["what was held back to the end", ["\n\n"], ["a\n"], ["a", "\n"]],
    ["a beginning within a beginning", ["aab"], ["a", "a", "a", "b"], ["", "", "a", "", ""]],
    ["the string that ends first", ["abcd", "c"], ["ab", "cd"], ["", "ab", ""]],
    ["the longer one of two that end together", ["bc", "c"], ["abc"], ["a", ""]],
  ])("%s", (_, stops, pieces, pushes) => {
    expect(shown(stops, pieces)).toEqual(pushes)
  })

  test("is the same for any pieces, and never more than can be known", () => {
    const letters = fc.string({ unit: fc.constantFrom("a", "b", "c"), maxLength: 12 })
    const stop = fc.string({ unit: fc.constantFrom("a", "b", "c"), minLength: 1, maxLength: 4 })
    fc.assert(
      fc.property(fc.array(stop, { maxLength: 3 }), fc.array(letters), (stops, pieces) => {
        const pushes = shown(stops, pieces)
        expect(pushes.join("")).toBe(expected(stops, pieces.join("")))
        let read = ""
        let known = ""
        for (const [i, piece] of pieces.entries()) {
          read += piece
          known += pushes[i]!
          expect(expected(stops, read).startsWith(known)).toBe(true)
        }
      }),
    )
  })
})

test("a stop string that lies across tokens ends the text", async () => {
  const encode = await loadEncoder()
  const tokens = encode("To be, or not to be, that is the question:")
  const text = await SampleText.open(["t to b"])
  const pieces = tokens.map((token) => text.push(token))
  expect(pieces.join("") + text.end()).toBe("To be, or no")
  expect(text.isStopped).toBe(true)
  const whole = await SampleText.open(["t to w"])
  expect(tokens.map((token) => whole.push(token)).join("") + whole.end()).toEndWith("question:")
  expect(whole.isStopped).toBe(false)
})
