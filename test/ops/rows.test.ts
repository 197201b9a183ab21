// What the kernels that a sampler calls promise: a row has the same bits whatever else is in the batch.

import { describe, expect, test } from "bun:test"
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

interface Texts {
  NH: number
  C: number
  maxT: number
  positions: number[]
  T: number
}

/** T new tokens of several sequences, in one call or one by one. */
function attend(call: Call, { NH, C, maxT, positions, T }: Texts, isOneByOne: boolean) {
  const random = new Random(`attention ${NH} ${C}`)
  const B = positions.length
  const [kcache, vcache] = [random.normals(B * maxT * C), random.normals(B * maxT * C)]
  const qkv = random.normals(B * T * 3 * C)
  const out = new Float32Array(B * T * C)
  /** The tokens from (b,t) on: of `sequences` sequences, `tokens` of each. */
  const piece = (b: number, t: number, sequences: number, tokens: number) => {
    const [from, to] = [b * maxT * C, (b + sequences) * maxT * C]
    const [first, count] = [b * T + t, sequences * tokens]
    const done = call("attention_decode", {
      out: overwritten(count * C, ANY),
      kcache: updated(kcache.slice(from, to), ANY),
      vcache: updated(vcache.slice(from, to), ANY),
      qkv: qkv.slice(first * 3 * C, (first + count) * 3 * C),
      positions: Int32Array.from(positions.slice(b, b + sequences), (position) => position + t),
      scratch: scratch(sequences * NH * maxT),
      ...{ B: sequences, T: tokens, C, NH, maxT },
    })
    out.set(done.out!, first * C)
    kcache.set(done.kcache!, from)
    vcache.set(done.vcache!, from)
  }
  if (!isOneByOne) piece(0, 0, B, T)
  for (let i = 0; isOneByOne && i < B * T; i++) piece(Math.floor(i / T), i % T, 1, 1)
  return Float32Array.from([...out, ...kcache, ...vcache])
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

      test.each([
        [1, 5],
        [3, 48],
        [2, 34],
        [3, 195],
      ])("in attention of %p heads over %p channels", (NH, C) => {
        const texts = { NH, C, maxT: 40, positions: [0, 33, 17], T: 7 }
        expect(bitsOf(attend(call, texts, false))).toEqual(bitsOf(attend(call, texts, true)))
      })
    })
  }
}
