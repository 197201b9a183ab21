import { afterAll, describe, expect, test } from "bun:test"
import { mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import fc from "fast-check"
import { completeSteps, expired, modelFile, removeRemains } from "../../src/train/checkpoint.ts"

const folder = mkdtempSync(join(tmpdir(), "checkpoint-"))
afterAll(() => rmSync(folder, { recursive: true }))

function fill(name: string, files: string[]): string {
  const path = join(folder, name)
  mkdirSync(path)
  for (const file of files) writeFileSync(join(path, file), "")
  return path
}

describe("which checkpoints may go", () => {
  const steps = fc.uniqueArray(fc.nat(1000), { minLength: 1, maxLength: 20 })

  test("never the newest, nor those that are to stay, whatever the options", () => {
    fc.assert(
      fc.property(steps, fc.nat(5), fc.nat(5), (all, keep, keepEvery) => {
        const gone = new Set(expired(all, keep, keepEvery))
        const newest = all.toSorted((a, b) => b - a)
        const stay = newest.slice(0, keep === 0 ? newest.length : keep)
        for (const step of all) {
          const isKept =
            stay.includes(step) || (keepEvery > 0 && step % keepEvery === 0) || keep === 0
          expect(gone.has(step)).toBe(!isKept)
        }
        expect(gone.has(newest[0]!)).toBe(false)
      }),
    )
  })
})

describe("a folder", () => {
  test("has the checkpoints of its DONE files, in the order of their steps", () => {
    const path = fill("done", [
      ...["DONE_00000010", "DONE_00000002", "DONE_123456789", "DONE_00000003.bak", "DONE_7"],
      ...["DONE_000000011", "model_00000099.bin", ".DONE_00000004.01234567.tmp"],
    ])
    expect(completeSteps(path)).toEqual([2, 10, 123456789])
    expect(modelFile(path, () => {})).toBe(join(path, "model_123456789.bin"))
  })

  test("without any is no place to take a model from", () => {
    const path = fill("none", ["model_00000099.bin"])
    expect(() => modelFile(path, () => {})).toThrow(`${path}: it is a folder without a checkpoint`)
    expect(modelFile(join(path, "model_00000099.bin"), () => {})).toBe(
      join(path, "model_00000099.bin"),
    )
  })

  const temporary = [
    ...[".model_00000010.bin.01234567.tmp", ".state_00000010_00000.bin.89abcdef.tmp"],
    ...[".DONE_00000010.01234567.tmp", ".run.toml.01234567.tmp", ".products.bin.01234567.tmp"],
  ]
  const parts = ["model_00000008.bin", "state_00000012_00000.bin"]
  const others = [
    ...[".notes.01234567.tmp", "model_00000010.bin.tmp", ".model_00000010.bin.tmp", "mine.tmp"],
    ...["model_00000010.bin", "state_00000010_00000.bin", "run.toml", "model_8.bin", "model.bin"],
  ]

  test("is rid of what a killed run left, and of nothing else", () => {
    const path = fill("remains", [...temporary, ...parts, ...others, "DONE_00000010"])
    removeRemains(path)
    expect(readdirSync(path).sort()).toEqual([...others, "DONE_00000010"].sort())
  })

  test("without a whole checkpoint keeps models, which may be somebody's own", () => {
    const path = fill("own", [...temporary, ...parts, ...others])
    removeRemains(path)
    expect(readdirSync(path).sort()).toEqual([...parts, ...others].sort())
  })
})
