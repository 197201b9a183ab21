import { afterAll, describe, expect, test } from "bun:test"
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs"
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

const textOf = async (path: string) => (await describeFile(path)).text

const CONFIG: Config = { maxT: 8, V: 97, Vp: 128, L: 2, NH: 2, C: 32 }
const numbers = Float32Array.from({ length: countParameters(CONFIG) }, (_, i) => Math.sin(i))
numbers.fill(0, CONFIG.V * CONFIG.C, CONFIG.Vp * CONFIG.C) // padding rows

function model(name: string, data = numbers): string {
  writeModel(at(name), CONFIG, [{ name: "all", data }])
  return at(name)
}

/** A run's state, without moments. */
function state(): Uint8Array {
  const position = { epoch: 3, shard: 1, sequence: 9 }
  const run = { step: 77, seed: 5, position, dataTokens: 1000, dataSum: 1n, T: 8 }
  const { head, tail } = stateParts({ ...run, losses: [], norms: [], slots: [] }, false, 2)
  return Buffer.concat([head, tail])
}

describe("a model", () => {
  test("is told with its shape, every tensor, and that its numbers are finite", async () => {
    const text = await textOf(model("model.bin"))
    expect(text).toContain(`file        ${at("model.bin")}\n`)
    expect(text).toContain(
      "model       GPT-2, 0.0 M parameters: L 2, NH 2, C 32, V 97 (padded 128)",
    )
    expect(text).toContain("matrices    fp32, 32 bits a number\n")
    expect(text).toContain("sound       yes: every number is finite\n")
    expect(text).toContain("| fcw      | 2 × 128 × 32 | fp32 |   8,192 |\n")
    expect(text.match(/^\| /gm)).toHaveLength(2 + 16)
  })

  test("in GGUF has its own bits a number", async () => {
    const source = await openWeights(model("from.bin"))
    await writeGguf(at("q8.gguf"), source, "q8_0")
    source.close()
    const text = await textOf(at("q8.gguf"))
    expect(text).toContain("matrices    q8_0, 8.5 bits a number\n")
    expect(text).toContain("| fcw      | 2 × 128 × 32 | q8_0 |   8,192 |\n")
    expect(text).toContain("| fcb      | 2 × 128      | fp32 |     256 |\n")
  })

  test("with a number that is none is not sound", async () => {
    const path = model("nan.bin", numbers.with(5000, Number.NaN))
    await expect(textOf(path)).rejects.toThrow(/nan.bin: \w+: number \d+ is NaN/)
  })
})

describe("a run folder", () => {
  const run = at("run")
  mkdirSync(run)
  for (const step of ["00000010", "00000020"]) {
    const names = [`model_${step}.bin`, `state_${step}_00000.bin`]
    model(join("run", names[0]!))
    writeFileSync(join(run, names[1]!), state())
    const sums = names.map((name) => ({ name, sha256: fileSum(join(run, name)) }))
    writeFileSync(join(run, `DONE_${step}`), doneText(sums))
  }

  test("lists its checkpoints, and of a file compares the checksum", async () => {
    const { text, damage } = await describeFile(run)
    expect(text).toMatch(/^\| +10 \| model_00000010.bin \| state_00000010_00000.bin \| yes +\|$/m)
    expect(damage).toBeUndefined()
    expect(await textOf(join(run, "model_00000010.bin"))).toContain(
      "sound       yes: its checksum is right, every number is finite\n",
    )
    expect(await textOf(join(run, "state_00000010_00000.bin"))).toContain(
      "sound       yes: its checksum is right\n",
    )
  })

  test("says which checkpoint is damaged, of the file alone too", async () => {
    const changed = model("run/model_00000020.bin", numbers.with(5000, 1.25))
    const { text, damage } = await describeFile(run)
    expect(text).toMatch(/^\| +10 .* yes +\|\n\| +20 .* no +\|$/m)
    const message = `${changed}: it is damaged: its checksum is not DONE_00000020's`
    expect(damage?.message).toBe(message)
    await expect(describeFile(changed)).rejects.toThrow(message)
  })
})

describe("other files", () => {
  test("tokens have a number and a largest", async () => {
    writeTokens(at("tokens.bin"), Uint16Array.of(3, 50256, 7))
    const text = await textOf(at("tokens.bin"))
    expect(text).toContain("tokens      3, GPT-2's format\nlargest     50,256\n")
    writeTokens(at("more.bin"), Uint16Array.of(3, 65535, 7))
    expect(await textOf(at("more.bin"))).toContain("65,535, which GPT-2's vocabulary lacks\n")
  })

  test("a tokenizer, a multiple choice and a state say what they are", async () => {
    const tokens = ["a", "bc"].map((text) => new TextEncoder().encode(text))
    writeTokenizer(at("tokenizer.bin"), { tokens, endOfText: 1 })
    expect(await textOf(at("tokenizer.bin"))).toContain("2 tokens, end of text 1\n")

    const few = Uint16Array.of(1, 2)
    const example = { context: few, completions: [few, few, few, few], label: 2 }
    writeFileSync(at("choices.bin"), choicesFile([example]))
    expect(await textOf(at("choices.bin"))).toContain("choices     1 questions of 4\n")

    writeFileSync(at("state.bin"), state())
    const text = await textOf(at("state.bin"))
    expect(text).toContain("state       after step 77, seed 5\n")
    expect(text).toContain("data        epoch 3, shard 1, sequence 9 of 1000 tokens\n")
    expect(text).toContain("sound       no DONE beside it tells\n")
  })

  test("a text is called one, and what nobody knows is refused in one line", async () => {
    for (const text of ["a note", `${"x".repeat(511)}\u00e9`, '{"model_type":"gpt2"}']) {
      writeFileSync(at("note"), text)
      const bytes = Buffer.byteLength(text)
      expect(await textOf(at("note"))).toBe(`text        ${bytes} bytes: no model, no tokens\n`)
    }
    writeFileSync(at("picture.png"), Uint8Array.of(0x89, 0x50, 0x4e, 0x47, 13, 10, 26, 10, 0, 0))
    for (const path of [at("picture.png"), at("nothing")]) {
      await expect(describeFile(path)).rejects.toBeInstanceOf(UserError)
    }
  })
})
