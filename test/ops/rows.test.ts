// What the kernels that a sampler calls promise: a row has the same bits whatever else is in the batch.

import { describe, expect, test } from "bun:test"
import { openCuda } from "../cuda/library.ts"
import { heading, reference, type Tested, testedLibraries } from "../libraries.ts"
import { NULL, overwritten, scratch, updated } from "./case.ts"
import { Random } from "./random.ts"
import { runKernel } from "./sandbox.ts"

const ANY = { absolute: Number.POSITIVE_INFINITY, relative: 0 } // only bits are compared
const FEW_ROWS = 16 // LLM_FEW_ROWS
const TIMEOUT_MS = 60_000

type Call = (kernel: string, args: Parameters<typeof runKernel>[2]) => Record<string, Float32Array>

const bitsOf = (x: Float32Array) => [...new Uint32Array(x.buffer, x.byteOffset, x.length)]

/** Rows of a product, from `from` on, with all that it can do besides. */
function product(call: Call, C: number, OC: number, from: number, N: number): Float32Array {
  const random = new Random(`product ${C} ${OC}`)
  const inp = random.normals(200 * C).subarray(from * C, (from + N) * C)
  const residual = random.normals(200 * OC).subarray(from * OC, (from + N) * OC)
  const { out, pre } = call("matmul_forward", {
    out: overwritten(N * OC, ANY),
    pre: overwritten(N * OC, ANY),
    inp: inp.slice(),
    weight: random.normals(OC * C),
    bias: random.normals(OC),
    residual: residual.slice(),
    scratch: scratch(Math.ceil(N / 64) * 64 * C), // LLM_MATMUL_SCRATCH
    ...{ N, C, OC },
  })
  return Float32Array.from([...out!, ...pre!])
}

function norm(call: Call, C: number, from: number, N: number): Float32Array {
  const random = new Random(`norm ${C}`)
  const inp = random.normals(20 * C).slice(from * C, (from + N) * C)
  const [weight, bias] = [random.normals(C), random.normals(C)]
  const sizes = { N, C, eps: 1e-5 }
  const out = overwritten(N * C, ANY)
  return call("layernorm_forward", { out, mean: NULL, rstd: NULL, inp, weight, bias, ...sizes })
    .out!
}

const MAX_T = 300
const POSITIONS = [0, 33, 130] // of three sequences, which get as many tokens each

/** The attention of new tokens and the caches that it leaves, when the tokens come in pieces of these
 * lengths, for all sequences together or for each by itself. */
function attend(call: Call, NH: number, C: number, pieces: number[], isTogether: boolean) {
  const random = new Random(`attention ${NH} ${C}`)
  const B = POSITIONS.length
  const T = pieces.reduce((sum, tokens) => sum + tokens)
  const [kcache, vcache] = [random.normals(B * MAX_T * C), random.normals(B * MAX_T * C)]
  const qkv = random.normals(B * T * 3 * C)
  const out = new Float32Array(B * T * C)
  const attendPiece = (b: number, sequences: number, t: number, tokens: number) => {
    const rows = Array.from({ length: sequences * tokens }, (_, i) => {
      return (b + Math.floor(i / tokens)) * T + t + (i % tokens)
    })
    const [from, to] = [b * MAX_T * C, (b + sequences) * MAX_T * C]
    const done = call("attention_decode", {
      out: overwritten(rows.length * C, ANY),
      kcache: updated(kcache.slice(from, to), ANY),
      vcache: updated(vcache.slice(from, to), ANY),
      qkv: Float32Array.from(
        rows.flatMap((row) => [...qkv.subarray(row * 3 * C, (row + 1) * 3 * C)]),
      ),
      positions: Int32Array.from(POSITIONS.slice(b, b + sequences), (position) => position + t),
      scratch: scratch(sequences * NH * MAX_T),
      ...{ B: sequences, T: tokens, C, NH, maxT: MAX_T },
    })
    for (const [i, row] of rows.entries()) out.set(done.out!.subarray(i * C, (i + 1) * C), row * C)
    kcache.set(done.kcache!, from)
    vcache.set(done.vcache!, from)
  }
  for (let b = 0; b < (isTogether ? 1 : B); b++) {
    let t = 0
    for (const tokens of pieces) {
      attendPiece(b, isTogether ? B : 1, t, tokens)
      t += tokens
    }
  }
  return bitsOf(Float32Array.from([...out, ...kcache, ...vcache]))
}

function testAttention(call: Call) {
  test.each([
    [1, 5],
    [3, 48],
    [2, 34],
    [2, 128],
    [3, 195],
    [1, 257],
  ])(
    "in attention of %p heads over %p channels",
    (NH, C) => {
      const ones = new Array<number>(7).fill(1)
      expect(attend(call, NH, C, ones, true)).toEqual(attend(call, NH, C, ones, false))
      const whole = attend(call, NH, C, [70], true)
      expect(attend(call, NH, C, [2, 33, 35], false)).toEqual(whole)
      expect(attend(call, NH, C, [63, 7], true)).toEqual(whole)
    },
    TIMEOUT_MS,
  )
}

const own: Tested = { name: "reference", kernels: reference, withBf16: true }
for (const library of [own, ...(await testedLibraries())]) {
  const { kernels, withBf16 } = library
  for (const kind of withBf16 ? ["", "_bf16"] : [""]) {
    const call: Call = (kernel, args) =>
      runKernel(kernels!, `${kernel}${kind}`, args).outputs as Record<string, Float32Array>
    const skips = describe.skipIf(!kernels)

    skips(`${heading(library)}${kind}: a row has the same bits whatever the others are`, () => {
      // Both results, one after the other.
      const rows = (x: Float32Array, width: number, from: number, count: number) => {
        const [a, b, second] = [from * width, (from + count) * width, x.length / 2]
        return bitsOf(Float32Array.from([...x.slice(a, b), ...x.slice(second + a, second + b)]))
      }
      test.each([
        [1, 1],
        [7, 13],
        [48, 65],
        [129, 17],
        [400, 100],
      ])(
        "in products of %p by %p",
        (C, OC) => {
          for (const N of [2, 3, 4, 7, FEW_ROWS - 1]) {
            const batch = product(call, C, OC, 0, N)
            for (let n = 0; n < N; n++) {
              expect(rows(batch, OC, n, 1)).toEqual(bitsOf(product(call, C, OC, n, 1)))
            }
          }
          const long = product(call, C, OC, 0, 131)
          for (const [from, N] of [
            [0, FEW_ROWS],
            [1, 65],
            [115, FEW_ROWS],
            [50, 64],
          ] as const) {
            expect(rows(long, OC, from, N)).toEqual(bitsOf(product(call, C, OC, from, N)))
          }
        },
        TIMEOUT_MS,
      )

      test.each([1, 13, 48, 129])("in norms of %p", (C) => {
        const batch = norm(call, C, 0, 20)
        for (let n = 0; n < 20; n++) {
          const row = batch.slice(n * C, (n + 1) * C)
          expect(bitsOf(row)).toEqual(bitsOf(norm(call, C, n, 1)))
        }
      })

      testAttention(call)
    })
  }
}

// Of the CUDA library, attention alone promises it for any number of rows.
const cuda = await openCuda()
const gpu = "library" in cuda ? cuda.library : undefined
for (const kind of ["", "_bf16"]) {
  const title = gpu ? gpu.name : `skipped: ${"reason" in cuda && cuda.reason}`
  describe.skipIf(!gpu)(`CUDA${kind} (${title}): a row has the same bits`, () => {
    testAttention((kernel, args) => {
      const { outputs, damage } = runKernel(gpu!, `${kernel}${kind}`, args)
      expect(damage).toEqual([])
      return outputs as Record<string, Float32Array>
    })
  })
}
