// llm convert: what is written can be read again, bit for bit, by us and by transformers.

import { afterAll, describe, expect, test } from "bun:test"
import {
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { BYTE_ALPHABET } from "../../src/data/bpe-files.ts"
import { loadEncoder } from "../../src/data/tokenizer.ts"
import { bytesOf } from "../../src/formats/header.ts"
import { countParameters, writeModel } from "../../src/formats/model.ts"
import { HUB_FOLDER, hubFixture, hubLogits, hubTokens, parts, whole } from "../fixtures/hub.ts"

const ROOT = join(import.meta.dir, "..", "..")
const PYTHON = process.env.LLM_PYTHON ?? "python3"
const hasTransformers =
  Bun.spawnSync([
    PYTHON,
    "-c",
    "import sys; from importlib.util import find_spec as f; sys.exit(not (f('torch') and f('transformers')))",
  ]).exitCode === 0

const folder = mkdtempSync(join(tmpdir(), "convert-"))
afterAll(() => rmSync(folder, { recursive: true }))
const at = (name: string) => join(folder, name)
const sameFile = (a: string, b: string) =>
  expect(Buffer.compare(readFileSync(at(a)), readFileSync(at(b)))).toBe(0)

function convert(...args: string[]) {
  const main = join(ROOT, "src/main.ts")
  const child = Bun.spawnSync([process.execPath, main, "convert", ...args], { cwd: folder })
  return {
    code: child.exitCode,
    stdout: child.stdout.toString(),
    stderr: child.stderr.toString(),
  }
}

/** One that must work. */
function converted(...args: string[]): string {
  const { code, stdout, stderr } = convert(...args)
  expect({ code, stderr }).toEqual({ code: 0, stderr: "" })
  return stdout
}

function refused(...args: string[]): string {
  const before = readdirSync(folder, { recursive: true }).sort()
  const { code, stdout, stderr } = convert(...args)
  expect({ code, stdout, lines: stderr.split("\n").length }).toEqual({
    code: 2,
    stdout: "",
    lines: 2,
  })
  expect(readdirSync(folder, { recursive: true }).sort()).toEqual(before)
  return stderr
}

describe("numbers come back as they were", () => {
  test("from Hugging Face to llm.c and back, in fp32", () => {
    expect(converted(HUB_FOLDER, "a.bin")).toBe(
      `read   ${HUB_FOLDER}  fp32  GPT-2, 0.0 M parameters: L 2, NH 2, C 16, V 97 (padded 128), maxT 8\n` +
        `wrote  a.bin${" ".repeat(HUB_FOLDER.length - 5)}  fp32  36,096 bytes\n`,
    )
    const said = converted("a.bin", "a/")
    expect(said).toContain("wrote  a/config.json")
    expect(said).toContain("no tokenizer with it: a vocabulary of 97 is not GPT-2's\n")
    converted("a", "b.bin")
    sameFile("a.bin", "b.bin")
    const written = parts(readFileSync(at("a/model.safetensors")))
    const original = parts(hubFixture()["model.safetensors"]!)
    expect(Object.keys(written).sort()).toEqual(Object.keys(original).sort())
    for (const [name, { dtype, shape, data }] of Object.entries(original)) {
      expect(written[name]).toMatchObject({ dtype, shape })
      expect([name, Buffer.compare(written[name]!.data, data)]).toEqual([name, 0])
    }
  })

  test("from bf16 to bf16, and through fp32", () => {
    converted(HUB_FOLDER, "half.bin", "--type", "bf16")
    expect(converted("half.bin", "half/")).toMatch(/model\.safetensors +bf16 /)
    expect(converted("half", "half2.bin")).toMatch(/half2\.bin +bf16 /)
    sameFile("half.bin", "half2.bin")
    converted("half", "wide.bin", "--type", "fp32")
    converted("wide.bin", "half3.bin", "--type", "bf16")
    sameFile("half.bin", "half3.bin")
  })

  test("from f16 to f16, through llm.c's fp32", () => {
    converted(HUB_FOLDER, "f16/", "--type", "f16")
    expect(converted("f16", "f16.bin")).toMatch(/f16\.bin +fp32 /)
    converted("f16.bin", "again/", "--type", "f16")
    sameFile("f16/model.safetensors", "again/model.safetensors")
  })

  test("over what was there, with --force, itself too", () => {
    converted(HUB_FOLDER, "over.bin")
    converted(HUB_FOLDER, "over.bin", "--type", "bf16", "--force")
    converted("over.bin", "over.bin", "--force")
    converted(HUB_FOLDER, "own")
    converted(HUB_FOLDER, "own/", "--type", "bf16", "--force")
    converted("own", "own.bin")
    sameFile("over.bin", "own.bin")
  })
})

test("it says how many numbers of fp32 tensors were rounded to the matrices' type", () => {
  const config = { maxT: 8, V: 97, Vp: 97, L: 2, NH: 2, C: 16 }
  const data = Float32Array.from({ length: countParameters(config) }, (_, i) => (i % 9) / 8)
  const half = 1 + 2 ** -10 // of f16, and not of bf16
  data.fill(half, -32, -29) // in lnfw
  writeModel(at("wide.bin"), config, [{ name: "all", data }])
  converted("wide.bin", "wide.gguf", "--type", "bf16")
  const said = "rounded to bf16: 3 numbers of fp32 tensors (--type fp32 keeps them as they are)\n"
  expect(converted("wide.gguf", "narrow.bin")).toEndWith(said)
  expect(converted("wide.gguf", "narrow/")).toEndWith(said)
  for (const [to, type] of [
    ["kept.gguf", "bf16"],
    ["kept.bin", "fp32"],
    ["f16/", "f16"],
  ] as const) {
    expect(converted("wide.gguf", to, "--type", type, "--force")).not.toContain("rounded")
  }
})

describe("what is written for transformers", () => {
  const config = { maxT: 8, V: 50257, Vp: 50304, L: 1, NH: 1, C: 2 }
  const gpt2 = () => {
    const data = new Float32Array(countParameters(config))
    writeModel(at("gpt2.bin"), config, [{ name: "all", data }])
    if (!existsSync(at("gpt2"))) converted("gpt2.bin", "gpt2")
  }

  test("has GPT-2's tokenizer where the vocabulary is GPT-2's", () => {
    gpt2()
    expect(readdirSync(at("gpt2")).sort()).toEqual([
      "config.json",
      "generation_config.json",
      "merges.txt",
      "model.safetensors",
      "special_tokens_map.json",
      "tokenizer_config.json",
      "vocab.json",
    ])
    const text = readFileSync(at("gpt2/vocab.json"), "utf8")
    const vocabulary = JSON.parse(text)
    expect(text).toStartWith('{"!": 0, "\\"": 1, ')
    expect(Object.keys(vocabulary)).toHaveLength(50257)
    expect([vocabulary[`${BYTE_ALPHABET[32]}the`], vocabulary["<|endoftext|>"]]).toEqual([
      262, 50256,
    ])
    const merges = readFileSync(at("gpt2/merges.txt"), "utf8")
    expect(merges).toStartWith("#version: 0.2\nĠ t\nĠ a\nh e\n")
    expect(merges.trimEnd().split("\n")).toHaveLength(50_001)
    const { eos_token_id, vocab_size } = JSON.parse(readFileSync(at("gpt2/config.json"), "utf8"))
    expect([eos_token_id, vocab_size]).toEqual([50256, 50257])
  })

  const why = hasTransformers
    ? ""
    : ` (skipped: ${PYTHON} has no torch and transformers; LLM_PYTHON names another)`
  test.skipIf(!hasTransformers)(
    `is loaded by it: the same logits, the same tokens${why}`,
    async () => {
      gpt2()
      converted(HUB_FOLDER, "loaded/")
      converted(HUB_FOLDER, "loaded16/", "--type", "bf16")
      const text = "Hello world, it's  12345 é日本"
      const program = `
import json, torch
from transformers import AutoModelForCausalLM, AutoTokenizer
model = AutoModelForCausalLM.from_pretrained("loaded").double()
half = AutoModelForCausalLM.from_pretrained("loaded16", dtype="auto")
gpt2 = AutoModelForCausalLM.from_pretrained("gpt2")
tokenizer = AutoTokenizer.from_pretrained("gpt2")
logits = model(torch.tensor(${JSON.stringify([...hubTokens()])}).view(2, 8)).logits
print(json.dumps(dict(
    logits=logits.flatten().tolist(), tokens=tokenizer(${JSON.stringify(text)}).input_ids,
    end=tokenizer.eos_token_id, type=str(half.dtype), size=list(gpt2.lm_head.weight.shape))))
`
      const child = Bun.spawnSync([PYTHON, "-c", program], {
        cwd: folder,
        env: { ...process.env, HF_HUB_OFFLINE: "1" },
      })
      expect([child.exitCode, child.exitCode === 0 ? "" : child.stderr.toString()]).toEqual([0, ""])
      const { logits, ...rest } = JSON.parse(child.stdout.toString())
      expect(rest).toEqual({
        tokens: (await loadEncoder())(text),
        end: 50256,
        type: "torch.bfloat16",
        size: [50257, 2],
      })
      expect(Float32Array.from(logits)).toEqual(hubLogits()) // float64, rounded, as in the fixture
    },
    120_000,
  )
})

describe("it refuses in one line, and leaves nothing", () => {
  test("a file or folder that is there", () => {
    writeFileSync(at("there.bin"), "")
    cpSync(HUB_FOLDER, at("there"), { recursive: true })
    for (const to of ["there.bin", "there", "there/"]) {
      expect(refused(HUB_FOLDER, to)).toBe(
        `llm: ${to}: it is there already (choose another name, or --force)\n`,
      )
    }
  })

  test.each([
    // The largest numbers that round to one of the type, in whole steps of f32, and the next ones.
    ["f16", "large/", "transformer.ln_f.bias", 0x477fefff],
    ["bf16", "large.bin", "lnfb", 0x7f7f7fff],
  ])("a number that is too large for %s", (type, to, name, bits) => {
    cpSync(HUB_FOLDER, at("source"), { recursive: true })
    const words = Uint32Array.of(bits, bits + 1)
    const [fits, large] = new Float32Array(words.buffer)
    const attempt = (value: number) => {
      const data = bytesOf(new Float32Array(16).fill(value, 3, 4))
      const all = parts(hubFixture()["model.safetensors"]!)
      const changed = { ...all, "transformer.ln_f.bias": { dtype: "F32", shape: [16], data } }
      writeFileSync(at("source/model.safetensors"), whole(changed))
    }
    attempt(fits!)
    converted("source", to, "--type", type)
    rmSync(at(to), { recursive: true })
    attempt(large!)
    expect(refused("source", to, "--type", type)).toBe(
      `llm: source: ${name}: number 3, ${large}, is too large for ${type} (try --type fp32)\n`,
    )
  })

  test("a folder that it reads from", () => {
    cpSync(HUB_FOLDER, at("self"), { recursive: true })
    for (const from of ["self", "self/model.safetensors"]) {
      expect(refused(from, "self/", "--force")).toBe(
        "llm: self/: the model is read from there (choose another folder)\n",
      )
    }
  })

  test("a run folder, whose checkpoints would be read instead", () => {
    mkdirSync(at("run"))
    writeFileSync(at("run/DONE_00000010"), "")
    expect(refused(HUB_FOLDER, "run/", "--force")).toBe(
      "llm: run/: it is a run folder (choose another folder)\n",
    )
  })

  test.each([
    [["x.pt"], "x.pt: no format has names in .pt (try NAME.bin, NAME.gguf, or a folder as NAME/)"],
    [["x.bin", "--type", "f16"], "--type f16: llm.c's model file has none (try fp32 or bf16)"],
    [["no/x.bin"], "no/x.bin: cannot write: no such file or folder (choose another folder)"],
    [["a.bin/x"], "TO a.bin/x: cannot make the folder: a part of the path is not a folder"],
  ])("%j", (args, message) => {
    expect(refused(HUB_FOLDER, ...args)).toStartWith(`llm: ${message}`)
  })
})
