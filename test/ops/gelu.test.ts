// What a product with a GELU gives can be made again from the sum that it keeps.

import { expect, test } from "bun:test"
import { BF16_LIBRARIES, Kernels, libraries } from "../../src/native/library.ts"
import { EMULATION_NEEDS, openEmulated } from "../emulated.ts"
import { NULL, overwritten, rounding, scratch } from "./case.ts"
import { bitDifferences } from "./check.ts"
import { Random } from "./random.ts"
import { runKernel } from "./sandbox.ts"

// Few rows go another way than many; neither is a whole number of vectors.
const SIZES = [
  { N: 5, C: 33, OC: 131 },
  { N: 70, C: 33, OC: 131 },
]

function check(name: string, suffixes: string[], kernels?: Kernels, reason?: string) {
  const title = `${name}: a product's GELU is gelu_forward of what it keeps, bit for bit`
  test.skipIf(!kernels)(kernels ? title : `${title} (skipped: ${reason})`, () => {
    for (const suffix of suffixes) {
      for (const { N, C, OC } of SIZES) {
        const random = new Random(`gelu ${N}`)
        const written = () => overwritten(N * OC, rounding())
        const product = runKernel(kernels!, `matmul_forward${suffix}`, {
          ...{ out: written(), pre: written(), inp: random.normals(N * C, 1 / Math.sqrt(C)) },
          ...{ weight: random.normals(OC * C), bias: random.normals(OC), residual: NULL },
          ...{ scratch: scratch(Math.ceil(N / 64) * 64 * C), N, C, OC },
        }).outputs
        const n = N * OC
        const inp = product.pre as Float32Array
        const again = runKernel(kernels!, `gelu_forward${suffix}`, {
          out: written(),
          inp,
          n,
        }).outputs
        expect(bitDifferences({ out: product.out! }, { out: again.out! })).toEqual([])
        expect(again.out!.every(Number.isFinite)).toBe(true)
      }
    }
  })
}

for (const { name, reason } of await libraries()) {
  const suffixes = name === "reference" || BF16_LIBRARIES.includes(name) ? ["", "_bf16"] : [""]
  check(name, suffixes, reason === undefined ? await Kernels.open(name) : undefined, reason)
}
check("emulated AVX-512 with BF16", ["", "_bf16"], await openEmulated("bf16"), EMULATION_NEEDS)
check("emulated AMX", ["_bf16"], await openEmulated("amx"), EMULATION_NEEDS)
