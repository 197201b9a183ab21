// The CUDA library's machine code has the instructions that its design counts on: what can be known
// of its speed without a GPU. It is read by cuobjdump, of CUDA's toolkit, which need not be there.

import { describe, expect, test } from "bun:test"
import { spawnSync } from "node:child_process"
import { existsSync } from "node:fs"
import { dirname, join } from "node:path"
import { NATIVE_BUILD_DIR } from "../../src/native/assets.ts"
import { CUDA_FILE } from "../../src/native/library.ts"

const TIMEOUT_MS = 300_000 // a quarter of a minute where nothing else runs
const LIBRARY = join(NATIVE_BUILD_DIR, CUDA_FILE)
const HOPPER = "sm_90a"
const AMPERE = "sm_80"
// Bytes of a thread's own memory, spills among them: four registers.
const MOST_STACK = 16

const found = findCuobjdump()
const skipped = existsSync(LIBRARY) ? found.missing : "the CUDA library is not built"

function findCuobjdump(): { path?: string; missing?: string } {
  const { CUOBJDUMP, CUDA_HOME, PATH } = process.env
  const toolkits = [...new Bun.Glob("cuda*/bin").scanSync({ cwd: "/usr/local", onlyFiles: false })]
  const folders = [
    ...[CUOBJDUMP && dirname(CUOBJDUMP), PATH, CUDA_HOME && join(CUDA_HOME, "bin")],
    ...toolkits.map((folder) => join("/usr/local", folder)),
  ]
  const path = Bun.which("cuobjdump", { PATH: folders.filter(Boolean).join(":") })
  if (!path) {
    const how = "pip install nvidia-cuda-cuobjdump nvidia-cuda-nvdisasm, CUOBJDUMP=its path"
    return { missing: `no cuobjdump: ${how}` }
  }
  // It starts nvdisasm.
  const withIt = `${dirname(path)}:${PATH}`
  return Bun.which("nvdisasm", { PATH: withIt })
    ? { path }
    : { missing: `no nvdisasm beside ${path}: pip install nvidia-cuda-nvdisasm` }
}

/** What cuobjdump prints of the library for an architecture: a piece for each kernel, by its mangled
 * name. */
function dump(architecture: string, ...options: string[]): Map<string, string> {
  const { stdout, stderr, status } = spawnSync(
    found.path!,
    [...options, "--gpu-architecture", architecture, LIBRARY],
    {
      encoding: "utf8",
      maxBuffer: 2 ** 30,
      env: { ...process.env, PATH: `${dirname(found.path!)}:${process.env.PATH}` },
    },
  )
  if (status !== 0) throw new Error(`${found.path} ${options.join(" ")}: ${stderr}`)
  const pieces = stdout.split(/^\s*Function ?:? /m).slice(1)
  return new Map(pieces.map((piece) => [/^\w+/.exec(piece)![0], piece]))
}

/** The kernels whose mangled names match, each with its instructions' names, in their order. */
function disassemble(architecture: string, names: RegExp): Map<string, string[]> {
  const chosen = [...dump(architecture, "--dump-resource-usage").keys()].filter((name) =>
    names.test(name),
  )
  if (chosen.length === 0) throw new Error(`${LIBRARY} has no ${names} for ${architecture}`)
  const code = dump(architecture, "--dump-sass", "--function", chosen.join(","))
  const instruction = /^\s+\/\*[0-9a-f]{4,}\*\/\s+(?:@!?U?P\w+\s+)?([A-Z][\w.]*)/gm
  return new Map(
    [...code].map(([name, piece]) => [name, [...piece.matchAll(instruction)].map((m) => m[1]!)]),
  )
}

const counted = (code: string[], pattern: RegExp) =>
  code.filter((instruction) => pattern.test(instruction)).length

/** The names of kernels that have fewer of some instruction than `least` asks for. */
function lacking(kernels: Map<string, string[]>, least: [RegExp, number][]): string[] {
  return [...kernels].flatMap(([name, code]) =>
    least
      .filter(([pattern, count]) => counted(code, pattern) < count)
      .map(([pattern, count]) => `${name}: ${counted(code, pattern)} of ${count} ${pattern}`),
  )
}

describe.skipIf(skipped !== undefined)(
  `the CUDA library's machine code${skipped ? ` (skipped: ${skipped})` : ""}`,
  () => {
    test(
      "Hopper's attention multiplies by warpgroups what the copy engine brings, and spills nothing",
      () => {
        const kernels = disassemble(HOPPER, /\d(forward|keys|queries)_hopper/)
        expect(kernels.size).toBe(6) // three, for 64 and 128 channels
        const has: [RegExp, number][] = [
          [/^HGMMA\..*F32\.BF16/, 12], // 64 channels in steps of 16, three products at least
          [/^UTMALDG\.3D/, 2],
        ]
        expect(lacking(kernels, has)).toEqual([])
        for (const code of kernels.values()) {
          expect(counted(code, /^(LDL|STL|HMMA|LDGSTS)\b/)).toBe(0)
          // ptxas waits after each product where it cannot tell that its registers rest.
          const waits = counted(code, /^WARPGROUP\.DEPBAR/)
          expect(waits).toBeLessThan(counted(code, /^HGMMA/) / 2)
        }
      },
      TIMEOUT_MS,
    )

    test(
      "Hopper's own products multiply by the largest instruction, and wait for no store meanwhile",
      () => {
        const kernels = disassemble(HOPPER, /13product_tiles/)
        expect(kernels.size).toBe(2) // forward, and a gradient of what went in
        const has: [RegExp, number][] = [
          [/^HGMMA\.64x256x16\.F32\.BF16/, 32], // beside each of the eight parts that are stored
          [/^UTMALDG\.3D\.MULTICAST/, 2],
          [/^STG\.E\.128/, 16],
        ]
        expect(lacking(kernels, has)).toEqual([])
        for (const code of kernels.values()) {
          expect(counted(code, /^(LDL|STL)\b/)).toBe(0)
          expect(counted(code, /^WARPGROUP\.DEPBAR/)).toBeLessThan(counted(code, /^HGMMA/) / 2)
          expect(counted(code, /^MEMBAR/)).toBeLessThanOrEqual(4) // of the cluster's two barriers
        }
      },
      TIMEOUT_MS,
    )

    test(
      "attention before Hopper uses tensor cores, matrix loads and copies in the background",
      () => {
        const tiles = disassemble(AMPERE, /\d(forward_tiles|backward_(keys|queries))I/)
        expect(tiles.size).toBe(9) // three, for 32, 64 and 128 channels
        const has: [RegExp, number][] = [
          [/^HMMA\.16816\.F32\.BF16/, 16],
          [/^LDSM\..*\.4$/, 8], // four matrices at once
          [/^LDGSTS\.E\.BYPASS\..*128/, 8], // past the first cache
        ]
        expect(lacking(tiles, has)).toEqual([])
      },
      TIMEOUT_MS,
    )

    test(
      "kernels that memory bounds load and store sixteen bytes at a time",
      () => {
        // Of bf16 eight numbers at a time, of f32 four; then the loads and stores of one round: a
        // tensor's each. Rows of layer normalisation are held in up to three pieces.
        const rows: [RegExp, number, number, number][] = [
          ...[1, 2, 3].flatMap((k): [RegExp, number, number, number][] => [
            [RegExp(`layernorm_cu_\\w+7forwardILi[48]ELi${k}E`), 2, 3 * k, k],
            [RegExp(`layernorm_cu_\\w+8backwardILi[48]ELi${k}E`), 2, 4 * k, k],
          ]),
          [/classifier_cu_\w+8classifyILi[48]E/, 2, 4, 1],
          [/classifier_cu_\w+13classify_keptE/, 2, 0, 1], // rows are copied to shared memory
          [/optimizer_cu_\w+UpdateIfE/, 1, 4, 4],
          [/optimizer_cu_\w+UpdateItE/, 1, 4, 3], // its bf16 numbers are four, eight bytes
          [/elementwise_cu_\w+4GeluE/, 2, 1, 1],
          [/elementwise_cu_\w+12GeluGradientE/, 2, 2, 1],
          [/elementwise_cu_\w+3SumE/, 2, 2, 1],
          [/embedding_cu_\w+7forwardILi[48]E/, 2, 2, 1],
          [/embedding_cu_\w+10add_(tokens|places)ILi[48]E/, 4, 1, 1],
          [/11sum_columnsILi[48]E/, 2, 8, 0], // eight rows at once; its sums are few
          [/15few_rows_kernelILi\d+E4Pack/, 8, 4, 0],
        ]
        const all = disassemble(HOPPER, RegExp(rows.map(([name]) => name.source).join("|")))
        for (const [name, count, loads, stores] of rows) {
          const kernels = new Map([...all].filter(([mangled]) => name.test(mangled)))
          expect([name, kernels.size]).toEqual([name, count])
          const has: [RegExp, number][] = [
            [/^LDG\.E\.128/, loads],
            [/^STG\.E\.128/, stores],
          ]
          expect(lacking(kernels, has)).toEqual([])
        }
      },
      TIMEOUT_MS,
    )

    test(
      "tensors of eight bits are read sixteen bytes at a time and rounded two numbers at a time",
      () => {
        const kernels = disassemble(HOPPER, /fp8_cu_\w+8quantizeI\w+ELb1E/)
        const rounded = (name: string) => (name.includes("4E4m3") ? "E4M3" : "E5M2")
        expect([...kernels.keys()].map(rounded).sort()).toEqual(["E4M3", "E4M3", "E5M2", "E5M2"])
        // A thread's 4 rows of 8 numbers are on their way before the first is rounded; with a GELU to
        // compute meanwhile, and for its gradient 4 rows more, two are.
        const lacks = [...kernels].flatMap(([name, code]) => {
          const rounds = new RegExp(`^F2FP\\.SATFINITE\\.${rounded(name)}\\.F32`)
          const before = code.slice(
            0,
            code.findIndex((instruction) => rounds.test(instruction)),
          )
          const [loads, ahead] = [name.includes("OfE2E") ? 8 : 4, name.includes("OfE0E") ? 4 : 2]
          return [
            ...lacking(new Map([[name, before]]), [[/^LDG\.E\.128/, ahead]]),
            ...lacking(new Map([[name, code]]), [
              [rounds, 16],
              [/^LDG\.E\.128/, loads],
              [/^STG\.E\.64/, 4],
              [/^STS\b/, 8],
            ]),
          ]
        })
        expect(lacks).toEqual([])
      },
      TIMEOUT_MS,
    )

    test(`on Hopper no kernel has more than ${MOST_STACK} bytes of its own memory`, () => {
      const usage = [...dump(HOPPER, "--dump-resource-usage")].map(([name, text]) => ({
        name,
        stack: Number(/ STACK:(\d+)/.exec(text)![1]),
      }))
      expect(usage.length).toBeGreaterThan(50)
      expect(usage.filter(({ stack }) => stack > MOST_STACK)).toEqual([])
    })
  },
)
