// A prompt that is read many tokens at a time leaves what one token at a time leaves.

import { describe, expect, test } from "bun:test"
import { roundToBf16 } from "../../src/data/bf16.ts"
import type { Config } from "../../src/model/config.ts"
import { parameterTable } from "../../src/model/gpt2.ts"
import { type DecodeProgram, decodeProgram } from "../../src/model/program.ts"
import type { Precision } from "../../src/native/contract.ts"
import type { Kernels } from "../../src/native/library.ts"
import { Program } from "../../src/program/link.ts"
import { tensorBytes } from "../../src/program/tensor.ts"
import { NO_FILTERS } from "../../src/sample/choose.ts"
import { Sampler } from "../../src/sample/generate.ts"
import { openEmulated } from "../emulated.ts"
import { Random } from "../ops/random.ts"
import { openLibraries, poison, worst } from "./run.ts"

const CONFIG: Config = { L: 2, NH: 3, C: 48, V: 61, Vp: 128, maxT: 150 }
const TEXT = [...new Random("text").integers(CONFIG.maxT, CONFIG.V)]

// Sums of at most 192 terms, grouped differently: √192 roundings through two layers' halves; a number
// in bf16 is off by 2⁻⁹ of itself, and has come through some twenty roundings of random sign; so has the
// one that it is compared with.
const RELATIVE: Record<Precision, number> = { fp32: 1e-5, bf16: 2 * 2 ** -9 * Math.sqrt(20) }

/** A program with a model of random weights, far enough apart that every token counts. */
async function open(kernels: Kernels, precision: Precision) {
  const tensors = decodeProgram(CONFIG, precision)
  const program = await Program.link(tensors, kernels)
  poison(program)
  for (const { name, init } of parameterTable(CONFIG)) {
    const view = program.view(tensors.parameters[name] as typeof tensors.logits)
    const scale = init === "normal" ? 0.2 : 0.1
    const numbers = new Random(name).normals(view.length, scale)
    if (init === "ones") for (let i = 0; i < numbers.length; i++) numbers[i]! += 1
    view.set(precision === "bf16" ? numbers.map(roundToBf16) : numbers)
  }
  return { tensors, program }
}

function logitsOneByOne(program: Program, tensors: DecodeProgram, text: number[]): Float32Array {
  text.forEach((token, position) => {
    program.view(tensors.token)[0] = token
    program.view(tensors.position)[0] = position
    program.run("decode")
  })
  return program.view(tensors.logits).slice(0, CONFIG.V)
}

const OPTIONS = { ...NO_FILTERS, context: CONFIG.maxT, seed: 1 }

/** The first `rows` rows of all caches. */
function cached(program: Program, { caches }: DecodeProgram, rows: number): Uint8Array[] {
  return caches.map((cache) => {
    return program.bytes(cache, 0, (tensorBytes(cache) / CONFIG.maxT) * rows).slice()
  })
}

const libraries: { title: string; kernels?: Kernels }[] = [
  ...(await openLibraries()),
  ...(["bf16", "amx"] as const).map((title) => ({ title: `emulated ${title}` })),
]
for (const library of libraries) {
  if (library.title.startsWith("emulated")) {
    const kernels = await openEmulated(library.title.endsWith("amx") ? "amx" : "bf16")
    if (kernels) library.kernels = kernels
  }
  const { title, kernels } = library
  for (const precision of kernels?.precisions ?? ["fp32" as const]) {
    describe.skipIf(!kernels)(`${title}, ${precision}`, () => {
      // Chunks of 64: none, parts of one, whole ones, and one that has to begin earlier.
      test("the logits after a prompt are those of one token at a time", async () => {
        const { program, tensors } = await open(kernels!, precision)
        for (const length of [1, 2, 3, 64, 65, 66, 129, 130, CONFIG.maxT]) {
          const text = TEXT.slice(0, length)
          const expected = logitsOneByOne(program, tensors, text)
          poison(program)
          const sampler = new Sampler(program, tensors, CONFIG, OPTIONS)
          sampler.read(text)
          sampler.next()
          const got = program.view(tensors.logits).slice(0, CONFIG.V)
          expect([length, worst(got, expected) < RELATIVE[precision]]).toEqual([length, true])
        }
        program.free()
      })

      test("and so are those after more of it, read behind what has been written", async () => {
        const { program, tensors } = await open(kernels!, precision)
        const sampler = new Sampler(program, tensors, CONFIG, OPTIONS)
        for (const [from, to] of [
          [0, 3],
          [3, 4],
          [4, 80],
          [80, 90],
          [90, 140],
        ] as const) {
          sampler.read(TEXT.slice(from, to))
          sampler.next()
        }
        const got = program.view(tensors.logits).slice(0, CONFIG.V)
        const expected = logitsOneByOne(program, tensors, sampler.texts[0]!.slice(0, -1))
        expect(worst(got, expected)).toBeLessThan(RELATIVE[precision])
        program.free()
      })

      test("how long the prompt is changes no bit of what its first tokens leave", async () => {
        const { program, tensors } = await open(kernels!, precision)
        const lengths = [4, 70, 140, CONFIG.maxT]
        const caches = lengths.map((length) => {
          poison(program)
          const sampler = new Sampler(program, tensors, CONFIG, OPTIONS)
          sampler.read(TEXT.slice(0, length))
          sampler.next()
          return cached(program, tensors, Math.min(length - 1, 69))
        })
        const bytes = ([cache]: Uint8Array[], length: number) => cache!.subarray(0, length)
        for (const other of caches) {
          const { length } = caches[0]![0]!
          expect(bytes(other, length)).toEqual(bytes(caches[0]!, length))
        }
        expect(caches[2]).toEqual(caches[1]!)
        expect(caches[3]).toEqual(caches[1]!)
        program.free()
      })
    })
  }
}
