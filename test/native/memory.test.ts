// Native memory: what the system is asked for, and what becomes of a view when it is gone.

import { describe, expect, test } from "bun:test"
import { existsSync, readFileSync } from "node:fs"
import { decodeProgram } from "../../src/model/program.ts"
import { Kernels } from "../../src/native/library.ts"
import { allocate } from "../../src/native/memory.ts"
import { Program } from "../../src/program/link.ts"

describe("freed memory", () => {
  test("leaves its views empty, so that writing to them harms nothing", () => {
    const memory = allocate(1000)
    const view = memory.view(Float32Array, 128, 10)
    view[3] = 5
    memory.free()
    expect(view.length).toBe(0)
    view[3] = 6
    expect(view[3]).toBeUndefined()
  })

  test("is neither viewed, nor addressed, nor freed again", () => {
    const memory = allocate(1000)
    memory.free()
    expect(() => memory.view(Float32Array, 0, 1)).toThrow("use of freed memory")
    expect(() => memory.address).toThrow("use of freed memory")
    expect(() => memory.free()).toThrow("freed twice")
  })

  test("is not run in, even where other memory has taken its place", async () => {
    const config = { L: 1, NH: 1, C: 8, V: 13, Vp: 128, maxT: 4 }
    const program = await Program.link(decodeProgram(config), await Kernels.open("reference"))
    program.free()
    const others = Array.from({ length: 4 }, () => allocate(program.plan.peak))
    expect(() => program.run("decode")).toThrow("use of freed memory")
    for (const memory of others) memory.free()
  })
})

const hasHugePages = existsSync("/sys/kernel/mm/transparent_hugepage")
const title = "huge pages are asked for, over all of the memory"
test.skipIf(!hasHugePages)(hasHugePages ? title : `${title} (skipped: the system has none)`, () => {
  const memory = allocate(10_000_000)
  const last = memory.address + memory.bytes - 1
  // Each mapping of the process: a line "from-to …" in hexadecimal, then its properties.
  const mappings = readFileSync("/proc/self/smaps", "utf8").split(/^(?=[\da-f]+-[\da-f]+ )/m)
  const flags = [memory.address, last].map((address) => {
    const mapping = mappings.find((text) => {
      const [from, to] = text
        .split(" ", 1)[0]!
        .split("-")
        .map((hex) => Number.parseInt(hex, 16))
      return from! <= address && address < to!
    })
    return /^VmFlags: (.*)$/m.exec(mapping!)![1]!.split(" ")
  })
  for (const each of flags) expect(each).toContain("hg")
  memory.free()
})
