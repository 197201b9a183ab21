// What a reader sees of tokens.

import { describe, expect, test } from "bun:test"
import { END_OF_TEXT, loadEncoder } from "../../src/data/tokenizer.ts"
import { SampleText } from "../../src/sample/text.ts"

const encode = await loadEncoder()

async function shown(...documents: number[][]): Promise<string> {
  const text = await SampleText.open()
  const tokens = documents.flatMap((tokens, i) => (i === 0 ? tokens : [END_OF_TEXT, ...tokens]))
  return tokens.map((token) => text.push(token)).join("") + text.end()
}

describe("documents are set apart by one blank line", () => {
  test.each([
    ["where there is none", "One.", "One.\n\nTwo."],
    ["where there is half of it", "One.\n", "One.\n\nTwo."],
    ["where there is one", "One.\n\n", "One.\n\nTwo."],
    ["where there are more", "One.\n\n\n", "One.\n\n\nTwo."],
    ["not at the start", "", "Two."],
  ])("%s", async (_, first, expected) => {
    expect(await shown(encode(first), encode("Two."))).toBe(expected)
  })

  test("an empty document adds no second one", async () => {
    expect(await shown(encode("One."), [], encode("Two."))).toBe("One.\n\nTwo.")
  })
})

test("a character that the end of its document cuts comes before the next one", async () => {
  const half = encode("日").slice(0, 1)
  expect(await shown([...encode("a"), ...half], encode("b"))).toBe("a\ufffd\n\nb")
  expect(await shown([...encode("a"), ...half])).toBe("a\ufffd")
})
