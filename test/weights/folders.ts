// Folders of Hugging Face's for tests, and all the numbers in them.

import { afterAll } from "bun:test"
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { parameterTable } from "../../src/model/gpt2.ts"
import { openHuggingFace } from "../../src/weights/huggingface.ts"
import type { WeightSource } from "../../src/weights/source.ts"
import { type Entry, type HubFiles, hubFixture, parts, whole } from "../fixtures/hub.ts"

export const { V, Vp, C, L, maxT, NH } = { V: 97, Vp: 128, C: 16, L: 2, maxT: 8, NH: 2 }
export const CONFIG = { V, Vp, C, L, maxT, NH }

/** What writes folders of a test file's own, which go when it is done. */
export function folders(): (files: HubFiles) => string {
  const folder = mkdtempSync(join(tmpdir(), "huggingface-"))
  afterAll(() => rmSync(folder, { recursive: true }))
  let count = 0
  return (files) => {
    const path = join(folder, `${count++}`)
    mkdirSync(path)
    for (const [name, content] of Object.entries(files)) writeFileSync(join(path, name), content)
    return path
  }
}

export const MODEL = "model.safetensors"
export const tensors = () => parts(hubFixture()[MODEL]!)
export const withTensors = (entries: Record<string, Entry>): HubFiles => ({
  ...hubFixture(),
  [MODEL]: whole(entries),
})
export const floats = ({ data }: Entry) => new Float32Array(Uint8Array.from(data).buffer)

/** Every number, where NaN was. */
export function readAll(source: WeightSource): Record<string, Float32Array> {
  return Object.fromEntries(
    parameterTable(source.config).map(({ name, shape }) => {
      const numbers = new Float32Array(shape.reduce((a, b) => a * b)).fill(Number.NaN)
      source.read(name, numbers, 0)
      return [name, numbers]
    }),
  )
}

export function readFolder(path: string) {
  const source = openHuggingFace(path)
  try {
    return { type: source.type, config: source.config, numbers: readAll(source) }
  } finally {
    source.close()
  }
}
