import { afterAll, describe, expect, test } from "bun:test"
import { mkdirSync, mkdtempSync, rmSync, truncateSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { UserError } from "../../src/errors.ts"
import { choicesFile } from "../../src/formats/choices.ts"
import { doneText, fileSum } from "../../src/formats/done.ts"
import { countParameters, writeModel } from "../../src/formats/model.ts"
import { stateParts } from "../../src/formats/state.ts"
import { writeTokenizer } from "../../src/formats/tokenizer.ts"
import { writeTokens } from "../../src/formats/tokens.ts"
import { describeFile } from "../../src/info/file.ts"
import type { Config } from "../../src/model/config.ts"
import { writeGguf } from "../../src/weights/gguf-write.ts"
import { openWeights } from "../../src/weights/open.ts"

const folder = mkdtempSync(join(tmpdir(), "info-"))
afterAll(() => rmSync(folder, { recursive: true }))
const at = (name: string) => join(folder, name)

const CONFIG: Config = { maxT: 8, V: 97, Vp: 128, L: 2, NH: 2, C: 32 }
const numbers = Float32Array.from({ length: countParameters(CONFIG) }, (_, i) => Math.sin(i))
numbers.fill(0, CONFIG.V * CONFIG.C, CONFIG.Vp * CONFIG.C) // padding rows

function model(name: string, data = numbers): string {
  writeModel(at(name), CONFIG, [{ name: "all", data }])
  return at(name)
}

describe("a model", () => {
  test("is told with its shape, every tensor, and that its numbers are finite", async () => {
    const text = await describeFile(model("model.bin"))
    expect(text).toContain(`file        ${at("model.bin")}\n`)
    expect(text).toContain(
      "model       GPT-2, 0.0 M parameters: L 2, NH 2, C 32, V 97 (padded 128)",
    )
    expect(text).toContain("matrices    f32, 32 bits a number\n")
    expect(text).toContain("sound       yes: every number is finite\n")
    expect(text).toContain("| fcw      | 2 × 128 × 32 |   8,192 |\n")
    expect(text.match(/^\| /gm)).toHaveLength(2 + 16)
  })

  test("in GGUF has its own bits a number", async () => {
    const source = await openWeights(model("from.bin"))
    await writeGguf(at("q8.gguf"), source, "q8_0")
    source.close()
    expect(await describeFile(at("q8.gguf"))).toContain("matrices    q8_0, 8.5 bits a number\n")
  })

  test("with a number that is none is not sound", async () => {
    const path = model("nan.bin", numbers.with(5000, Number.NaN))
    expect(describeFile(path)).rejects.toThrow(/nan.bin: \w+: number \d+ is NaN/)
  })
})

test("a run folder lists its checkpoints, and says which are damaged", async () => {
  const run = at("run")
  mkdirSync(run)
  for (const step of ["00000010", "00000020"]) {
    const names = [`model_${step}.bin`, `state_${step}_00000.bin`]
    for (const name of names) writeFileSync(join(run, name), name)
    const sums = names.map((name) => ({ name, sha256: fileSum(join(run, name)) }))
    writeFileSync(join(run, `DONE_${step}`), doneText(sums))
  }
  truncateSync(join(run, "model_00000020.bin"), 3)
  const text = await describeFile(run)
  expect(text).toMatch(/^\| +10 \| model_00000010.bin \| state_00000010_00000.bin \| yes +\|$/m)
  expect(text).toMatch(/^\| +20 \| .*model_00000020.bin: it is damaged/m)
})

describe("other files", () => {
  test("tokens have a number and a largest", async () => {
    writeTokens(at("tokens.bin"), Uint16Array.of(3, 50256, 7))
    const text = await describeFile(at("tokens.bin"))
    expect(text).toContain("tokens      3, GPT-2's format\nlargest     50,256\n")
  })

  test("a tokenizer, a multiple choice and a state say what they are", async () => {
    const tokens = ["a", "bc"].map((text) => new TextEncoder().encode(text))
    writeTokenizer(at("tokenizer.bin"), { tokens, endOfText: 1 })
    expect(await describeFile(at("tokenizer.bin"))).toContain("2 tokens, end of text 1\n")

    const few = Uint16Array.of(1, 2)
    const example = { context: few, completions: [few, few, few, few], label: 2 }
    writeFileSync(at("choices.bin"), choicesFile([example]))
    expect(await describeFile(at("choices.bin"))).toContain("choices     1 questions of 4\n")

    const position = { epoch: 3, shard: 1, sequence: 9 }
    const run = { step: 77, seed: 5, position, dataTokens: 1000, dataSum: 1n, T: 8 }
    const { head, tail } = stateParts({ ...run, losses: [], norms: [] }, false, 2)
    writeFileSync(at("state.bin"), Buffer.concat([head, tail]))
    const text = await describeFile(at("state.bin"))
    expect(text).toContain("state       after step 77, seed 5\n")
    expect(text).toContain("data        epoch 3, shard 1, sequence 9 of 1000 tokens\n")
  })

  test("what nobody knows is refused in one line", async () => {
    writeFileSync(at("notes.txt"), "some notes")
    for (const path of [at("notes.txt"), at("nothing")]) {
      expect(describeFile(path)).rejects.toBeInstanceOf(UserError)
    }
  })
})
