// The fixture is what it claims to be, so that a test that fails against it blames the right side.

import { describe, expect, test } from "bun:test"
import { bytesOf } from "../../src/formats/header.ts"
import { fixture, fixtureTruth, fixtureWeights } from "../fixtures/weights.ts"

describe("the fixture", () => {
  test("has the weights that PyTorch computed with", () => {
    const hash = new Bun.CryptoHasher("sha256")
    for (const { data } of fixtureWeights()) hash.update(bytesOf(data))
    expect(hash.digest("hex")).toBe(fixture.weightsSha256)
  })

  test("has a loss that follows from its logits, and that AdamW started from", () => {
    const { B, T, y, logits, loss } = fixtureTruth()
    const { V } = fixture.config
    let sum = 0
    for (let n = 0; n < B * T; n++) {
      const row = logits.subarray(n * V, (n + 1) * V)
      sum += Math.log(row.reduce((total, x) => total + Math.exp(x), 0)) - row[y[n]!]!
    }
    // The stored logits are rounded to 24 bits, and their errors mostly cancel in the mean.
    expect(Math.abs(sum / (B * T) / fixture.losses[0]! - 1)).toBeLessThan(1e-6)
    expect(loss).toBe(Math.fround(fixture.losses[0]!))
  })

  test("has gradients of the norm that AdamW's first step saw", () => {
    const { gradients } = fixtureTruth()
    const squares = Object.values(gradients).flatMap((g) => [...g].map((x) => x * x))
    const norm = Math.sqrt(squares.reduce((a, b) => a + b))
    expect(Math.abs(norm / fixture.gradNorms[0]! - 1)).toBeLessThan(1e-6)
    const { V, Vp, C } = fixture.config
    expect(gradients.wte!.subarray(V * C)).toEqual(new Float32Array((Vp - V) * C))
  })
})
