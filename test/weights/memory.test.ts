// Models are read piece by piece: of GPT-2 medium, in files that take no room on the disk.

import { afterAll, expect, test } from "bun:test"
import { mkdirSync, mkdtempSync, rmSync, truncateSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { modelBytes, modelHead } from "../../src/formats/model.ts"
import type { Config } from "../../src/model/config.ts"
import { hubTensors } from "../../src/weights/hf-names.ts"
import { withHeader } from "../fixtures/hub.ts"
import { peakOf } from "../peak.ts"

const CONFIG: Config = { maxT: 1024, V: 50257, Vp: 50304, L: 24, NH: 16, C: 1024 }
const folder = mkdtempSync(join(tmpdir(), "memory-"))
afterAll(() => rmSync(folder, { recursive: true }))

/** A file that begins so, and has zeros behind. */
function file(name: string, head: Uint8Array, bytes: number): string {
  const path = join(folder, name)
  writeFileSync(path, head)
  truncateSync(path, bytes)
  return path
}

function safetensors(): string {
  mkdirSync(join(folder, "hub"))
  const fields = { model_type: "gpt2", n_embd: CONFIG.C, n_layer: CONFIG.L, n_head: CONFIG.NH }
  writeFileSync(join(folder, "hub", "config.json"), JSON.stringify(fields))
  let end = 0
  const entries = [...hubTensors(CONFIG)].map(({ name, shape }) => {
    const start = end
    end += 4 * shape.reduce((a, b) => a * b, 1)
    return [name, { dtype: "F32", shape, data_offsets: [start, end] }]
  })
  const head = withHeader(JSON.stringify(Object.fromEntries(entries)), new Uint8Array())
  file("hub/model.safetensors", head, head.length + end)
  return join(folder, "hub")
}

test.each([
  ["Hugging Face's folder", safetensors],
  ["llm.c's file", () => file("model.bin", modelHead(CONFIG, "fp32"), modelBytes(CONFIG, "fp32"))],
])(
  "all numbers of %s, 1.4 GB, take no more memory than a few matrices",
  async (_, make) => {
    const module = join(import.meta.dir, "..", "..", "src", "info", "file.ts")
    const { stdout, peakBytes } = await peakOf(`
      const { describeFile } = await import(${JSON.stringify(module)})
      console.log((await describeFile(${JSON.stringify(make())})).text)`)
    expect(stdout).toContain("GPT-2, 354.8 M parameters")
    expect(peakBytes).toBeGreaterThan(50e6)
    expect(peakBytes).toBeLessThan(400e6)
  },
  120_000,
)
