// llm.c's model file: a source of weights, and made from one.

import { writeWhole } from "../data/files.ts"
import { ModelFile, modelHead } from "../formats/model.ts"
import { parameterTable } from "../model/gpt2.ts"
import { encode, PIECE } from "./encode.ts"
import type { WeightSource } from "./source.ts"

export function openBin(path: string): WeightSource {
  const file = new ModelFile(path)
  const { config, dtype } = file.header
  const starts = new Map<string, number>() // in the file's numbers
  let end = 0
  for (const { name, shape } of parameterTable(config)) {
    starts.set(name, end)
    end += shape.reduce((a, b) => a * b, 1)
  }
  const type = dtype === "bf16" ? "bf16" : "f32"
  const padding = config.V * config.C // where wte's padding rows begin
  return {
    path,
    config,
    type,
    typeOf: () => type,
    read: (name, into, first) => {
      file.read(name, into, starts.get(name)! + first, first)
      if (name === "wte") into.fill(0, Math.max(0, padding - first))
    },
    close: () => file.close(),
  }
}

/** Writes llm.c's model file. */
export function writeBin(path: string, source: WeightSource, type: "f32" | "bf16"): void {
  const { config } = source
  function* chunks() {
    yield modelHead(config, type === "bf16" ? "bf16" : "fp32")
    for (const { name, shape } of parameterTable(config)) {
      const length = shape.reduce((a, b) => a * b, 1)
      for (let first = 0; first < length; first += PIECE) {
        const numbers = new Float32Array(Math.min(PIECE, length - first))
        source.read(name, numbers, first)
        yield encode(source, name, first, numbers, type)
      }
    }
  }
  writeWhole(path, chunks())
}
