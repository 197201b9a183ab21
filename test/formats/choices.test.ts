import { afterAll, describe, expect, test } from "bun:test"
import { mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { UserError } from "../../src/errors.ts"
import {
  choicesFile,
  choicesHeader,
  type Example,
  exampleWords,
  readChoices,
} from "../../src/formats/choices.ts"
import { bytesOf, headerBytes } from "../../src/formats/header.ts"
import { randomExample } from "../fixtures/choices.ts"
import { Random } from "../ops/random.ts"
import { refuses } from "./broken.ts"

const folder = mkdtempSync(join(tmpdir(), "choices-"))
afterAll(() => rmSync(folder, { recursive: true }))

const V = 50257
const words = (...all: number[]) => bytesOf(Uint16Array.from(all))

function read(bytes: Uint8Array): Example[] {
  const path = join(folder, "choices.bin")
  writeFileSync(path, bytes)
  return readChoices(path, V)
}

describe("a multiple-choice file", () => {
  test("is read in the order of llm.c's layout", () => {
    const body = words(
      ...[65535, 40, 0, 2, 4, 3, 11, 12, 13, 1, 21, 2, 31, 32, 1, 41, 3, 51, 52, 50256],
      ...[65535, 30, 1, 0, 4, 1, 14, 1, 22, 1, 33, 1, 42, 1, 53],
    )
    expect(read(Buffer.concat([choicesHeader(2, 40), body]))).toEqual([
      {
        context: Uint16Array.of(11, 12, 13),
        completions: [[21], [31, 32], [41], [51, 52, 50256]].map((list) => Uint16Array.from(list)),
        label: 2,
      },
      {
        context: Uint16Array.of(14),
        completions: [[22], [33], [42], [53]].map((list) => Uint16Array.from(list)),
        label: 0,
      },
    ])
  })

  test("of 300 random examples, of 2 to 8 completions, holds what was written", () => {
    const random = new Random("choices")
    const examples = Array.from({ length: 300 }, (_, i) => {
      return randomExample(random, V, 1 + (i % 40), 2 + (i % 7))
    })
    expect(read(choicesFile(examples))).toEqual(examples)
  })
})

test("any changed byte is read or refused in one line, and nothing worse", () => {
  const random = new Random("changed bytes")
  const whole = choicesFile(Array.from({ length: 5 }, () => randomExample(random, V, 9)))
  let refused = 0
  for (let i = 0; i < 3000; i++) {
    const changed = Buffer.from(whole)
    // Of the header only the words that say something.
    const at = random.integer(whole.length - 1024 + 16)
    changed[at < 16 ? at : at + 1008] = random.integer(256)
    try {
      read(changed)
    } catch (error) {
      expect(error).toBeInstanceOf(UserError)
      refused++
    }
  }
  expect(refused).toBeGreaterThan(500) // most changes are of tokens, which may be any
})

describe("a broken multiple-choice file is refused in one line", () => {
  const example: Example = {
    context: Uint16Array.of(1, 2),
    completions: [[3], [4, 5], [6], [7]].map((list) => Uint16Array.from(list)),
    label: 3,
  }
  const good = exampleWords(example, 0) // 17 words
  const bytes = 2 * good.length
  const head = choicesHeader(1, bytes)
  const [BYTES, INDEX, LABEL, COUNT, CONTEXT] = [1, 2, 3, 4, 5]
  const changed = (...changes: [at: number, value: number][]) => {
    const copy = [...good]
    for (const [at, value] of changes) copy[at] = value
    return [head, words(...copy)]
  }
  const without = { ...example, completions: example.completions.with(1, new Uint16Array()) }
  const nine = exampleWords({ ...example, completions: Array(9).fill(Uint16Array.of(3)) }, 0)

  refuses(folder, (path) => readChoices(path, 100), [
    ["it is empty", [], "0 bytes are too few for a multiple-choice evaluation"],
    [
      "it is a token file",
      [headerBytes(20240520, 1)],
      "not a multiple-choice evaluation: a GPT-2 token file",
    ],
    [
      "it is of another version",
      [headerBytes(20240522, 2, 1, bytes), words(...good)],
      "version 2, but only 1 (uint16) can be read",
    ],
    ["it has no examples", [choicesHeader(0, 0)], "its header says 0 examples, not 1 to 65,535"],
    ["it has fewer than none", [choicesHeader(-1, 8)], "its header says -1 examples"],
    ["it has too many", [choicesHeader(65536, 8)], "its header says 65,536 examples"],
    [
      "it ends in half a word",
      [head, words(...good), Uint8Array.of(0)],
      "its 35 bytes of examples",
    ],
    [
      "its header's longest example is too short for it",
      [choicesHeader(1, bytes - 2), words(...good)],
      "its header promises 1 × 22 to 32 bytes of examples, but they take 34",
    ],
    [
      "its header's longest example is longer than all",
      [choicesHeader(1, bytes + 2), words(...good)],
      "its header says 36 bytes for the longest example, which has 34",
    ],
    [
      "its header's longest example is negative",
      [choicesHeader(1, -2), words(...good)],
      "its header promises 1 × 22 to -2 bytes of examples",
    ],
    [
      "it ends after the header",
      [head],
      "its header promises 1 × 22 to 34 bytes of examples, but they take 0",
    ],
    [
      "it ends within an example's head",
      [head, words(...good.slice(0, 4))],
      "its header promises 1 × 22 to 34 bytes of examples, but they take 8",
    ],
    [
      "it ends within an example",
      [head, words(...good.slice(0, -1))],
      "example 0: it has 34 bytes, but the file ends after 32",
    ],
    [
      "it lacks its second example",
      [choicesHeader(2, bytes), words(...good)],
      "its header promises 2 × 22 to 34 bytes of examples, but they take 34",
    ],
    [
      "an example starts with another word",
      changed([0, 7]),
      "example 0: it starts with 7, not 65535",
    ],
    [
      "an example's bytes are too many",
      changed([BYTES, bytes + 2]),
      "example 0: it has 36 bytes, but the file ends after 34",
    ],
    [
      "an example's bytes end within its last completion",
      changed([BYTES, bytes - 2]),
      "example 0: its 32 bytes end within its completion 3",
    ],
    [
      "an example's bytes are odd",
      changed([BYTES, bytes - 1]),
      "example 0: its 33 bytes end within",
    ],
    [
      "an example's bytes are 0",
      changed([BYTES, 0]),
      "example 0: its 0 bytes end within its context",
    ],
    [
      "an example's bytes go on behind its last completion",
      [choicesHeader(1, bytes + 4), words(...good.with(BYTES, bytes + 4), 1, 8)],
      "example 0: it has 38 bytes, but its tokens end after 34",
    ],
    ["an example has another's index", changed([INDEX, 1]), "example 0: its index is 1"],
    [
      "a label is no completion",
      changed([LABEL, 4]),
      "example 0: its right completion is 4 of 0 to 3",
    ],
    [
      "there are no completions",
      changed([COUNT, 0]),
      "example 0: its number of completions is 0, not 2 to 8",
    ],
    [
      "there is one completion",
      changed([COUNT, 1]),
      "example 0: its number of completions is 1, not 2 to 8",
    ],
    [
      "there are nine completions",
      [choicesHeader(1, 2 * nine.length), words(...nine)],
      "example 0: its number of completions is 9, not 2 to 8",
    ],
    ["a context is empty", changed([CONTEXT, 0]), "example 0: its context has no tokens"],
    [
      "a context is longer than its example",
      changed([CONTEXT, 65535]),
      "example 0: its 34 bytes end within its context",
    ],
    [
      "a completion is empty",
      [choicesHeader(1, bytes - 4), words(...exampleWords(without, 0))],
      "example 0: its completion 1 has no tokens",
    ],
    [
      "a token is outside the vocabulary",
      changed([good.length - 1, 100]),
      "example 0: token 100 in its completion 3, but the vocabulary has 100",
    ],
    [
      "a context's token is outside the vocabulary",
      changed([CONTEXT + 1, 50256]),
      "example 0: token 50,256 in its context",
    ],
    [
      "the second example is wrong",
      [choicesHeader(2, bytes), words(...good, ...good)],
      "example 1: its index is 0",
    ],
    [
      "bytes follow the last example",
      [choicesHeader(2, 40), words(...good, ...exampleWords(example, 1), 0, 0, 0)],
      "6 bytes follow its 2 examples",
    ],
  ])
})
