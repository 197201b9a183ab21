// What a seed draws, in every library: PyTorch's bits, as the fixture holds them.

import { describe, expect, test } from "bun:test"
import { bytesOf } from "../../src/formats/header.ts"
import type { Kernels } from "../../src/native/library.ts"
import { allocate } from "../../src/native/memory.ts"
import { fixture } from "../fixtures/weights.ts"
import { heading, reference, testedLibraries } from "../libraries.ts"
import { poison, unpoison } from "../poison.ts"

const ROOM = 80_000 // numbers: more than a block that the CPU library works on in parallel
const GUARD = 64
const CANARY = 7
const STATE_WORDS = 625

const memory = allocate(4 * (STATE_WORDS + 7 + ROOM))
const state = memory.view(Uint32Array, 0, STATE_WORDS)
const room = memory.view(Float32Array, 4 * (STATE_WORDS + 7), ROOM)
const outAddress = memory.address + 4 * (STATE_WORDS + 7 + GUARD)

const sha256 = (numbers: Float32Array) =>
  new Bun.CryptoHasher("sha256").update(bytesOf(numbers)).digest("hex")

/** A generator, on guarded memory. */
function seeded(kernels: Kernels, seed: number) {
  kernels.call("rng_seed", memory.address, seed)
  return (n: number, mean: number, std: number): Float32Array => {
    const end = GUARD + n
    room
      .fill(CANARY, 0, GUARD)
      .fill(Number.NaN, GUARD, end)
      .fill(CANARY, end, end + GUARD)
    const guards = [outAddress - 4 * GUARD, outAddress + 4 * n]
    for (const address of guards) poison(address, 4 * GUARD)
    kernels.call("normal_fill", outAddress, memory.address, n, mean, std)
    for (const address of guards) unpoison(address, 4 * GUARD)
    const outside = [...room.subarray(0, GUARD), ...room.subarray(end, end + GUARD)]
    expect(outside.every((x) => x === CANARY)).toBe(true)
    return room.slice(GUARD, end)
  }
}

type Initial = (typeof fixture.initial)[number]

/** A new GPT-2's weights, drawn layer by layer, in the model file's order. */
function drawModel(kernels: Kernels, { seed, config }: Initial): Float32Array {
  const { maxT, V, Vp, L, C } = config
  const draw = seeded(kernels, seed)
  const std = Math.fround(0.02)
  const wte = draw(V * C, 0, std)
  const wpe = draw(maxT * C, 0, std)
  const layers = Array.from({ length: L }, () => {
    const residual = Math.fround(0.02 / Math.sqrt(2 * L))
    return {
      qkvw: draw(3 * C * C, 0, std),
      attprojw: draw(C * C, 0, residual),
      fcw: draw(4 * C * C, 0, std),
      fcprojw: draw(4 * C * C, 0, residual),
    }
  })
  const repeat = (value: number, length: number) => new Float32Array(length).fill(value)
  const tensors = [
    ...[wte, repeat(0, (Vp - V) * C), wpe],
    ...[repeat(1, L * C), repeat(0, L * C)],
    ...[...layers.map((l) => l.qkvw), repeat(0, L * 3 * C)],
    ...[...layers.map((l) => l.attprojw), repeat(0, L * C)],
    ...[repeat(1, L * C), repeat(0, L * C)],
    ...[...layers.map((l) => l.fcw), repeat(0, L * 4 * C)],
    ...[...layers.map((l) => l.fcprojw), repeat(0, L * C)],
    ...[repeat(1, C), repeat(0, C)],
  ]
  return Float32Array.from(tensors.flatMap((tensor) => [...tensor]))
}

const ofReference = { name: "reference", kernels: reference, withBf16: true }
for (const library of [ofReference, ...(await testedLibraries())]) {
  const { kernels } = library
  describe(heading(library), () => {
    for (const { seed, mean, std, counts, sha256: hashes, last } of fixture.draws) {
      test.skipIf(!kernels)(`seed ${seed} draws PyTorch's numbers, call after call`, () => {
        const draw = seeded(kernels!, seed)
        const draws = counts.map((n) => draw(n, mean, std))
        expect(draws.map((numbers) => numbers.at(-1)!)).toEqual(last)
        expect(draws.map(sha256)).toEqual(hashes)
      })
    }

    for (const initial of fixture.initial) {
      const { V, C } = initial.config
      test.skipIf(!kernels)(`a new model of V ${V}, C ${C} has PyTorch's weights`, () => {
        const weights = drawModel(kernels!, initial)
        expect([...weights.subarray(0, 2)]).toEqual(initial.first.wte)
        expect(sha256(weights)).toBe(initial.sha256)
      })
    }

    const sizes = [...Array(40).keys()].map((i) => i + 1).concat(623, 624, 625, 65535, 65536, 65537)
    test.skipIf(!kernels)("any count leaves the reference's numbers and state", () => {
      for (const n of sizes) {
        const results = [reference, kernels!].map((library) => {
          const draw = seeded(library, n)
          return [sha256(draw(n, -0.25, 3)), sha256(draw(n, 0, 0.1)), state.join()]
        })
        expect(results[1]).toEqual(results[0]!)
      }
    })

    test.skipIf(!kernels)("any number of threads gives the same bits", () => {
      const hashes = [1, 2, 3, 5].map((threads) => {
        kernels!.call("llm_threads", threads)
        return sha256(seeded(kernels!, 1)(70_001, 0, 1))
      })
      expect(new Set(hashes).size).toBe(1)
    })
  })
}

test("the numbers are normal: their moments are those of the distribution", () => {
  const n = 70_000
  const numbers = seeded(reference, 3)(n, 0, 1)
  const moment = (k: number) => numbers.reduce((sum, x) => sum + x ** k, 0) / n
  // Four standard errors: those of x, x², x³ and x⁴ are √(1, 2, 15, 96)/√n.
  for (const [k, expected, variance] of [
    [1, 0, 1],
    [2, 1, 2],
    [3, 0, 15],
    [4, 3, 96],
  ] as const) {
    expect(Math.abs(moment(k) - expected)).toBeLessThan(4 * Math.sqrt(variance / n))
  }
})
