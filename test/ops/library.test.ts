// What the libraries say about themselves, and the form the reference's source must keep.

import { describe, expect, test } from "bun:test"
import { readdirSync } from "node:fs"
import { heading, reference, testedLibraries } from "../libraries.ts"

const C_DIR = `${import.meta.dir}/../../c`

const ofReference = { name: "reference", kernels: reference, withBf16: true }
for (const library of [ofReference, ...(await testedLibraries())]) {
  const { name, kernels } = library
  const limit = name === "reference" ? 1 : 4
  describe(heading(library), () => {
    test.skipIf(!kernels)("llm_threads sets the number of threads, and 0 keeps it", () => {
      for (const n of [4, 1, 3]) {
        expect(kernels!.call("llm_threads", n)).toBe(Math.min(n, limit))
        expect(kernels!.call("llm_threads", 0)).toBe(Math.min(n, limit))
      }
    })

    test.skipIf(!kernels)("llm_peak counts two operations a multiply-add and thread", () => {
      for (const threads of [1, 2]) {
        kernels!.call("llm_threads", threads)
        const work = 1_000_000
        const operations = kernels!.call("llm_peak", work) as number
        const asked = 2 * work * Math.min(threads, limit)
        expect(operations).toBeGreaterThanOrEqual(asked)
        expect(operations).toBeLessThan(asked * 1.01)
      }
    })
  })
}

describe("the reference's source", () => {
  const names = readdirSync(`${C_DIR}/reference`)
  const sources = names.filter((name) => name.endsWith(".c"))

  test("includes no system header, so that it compiles where there are none", async () => {
    for (const name of names) {
      const text = await Bun.file(`${C_DIR}/reference/${name}`).text()
      expect([name, text.match(/#\s*include\s*<.*/g)]).toEqual([name, null])
    }
  })

  const gcc = Bun.which("gcc")
  const title = "is one program of strict C99, in one unit or several, without a warning"
  test.skipIf(!gcc)(gcc ? title : `${title} (skipped: no gcc)`, async () => {
    const flags = ["-std=c99", "-Wall", "-Wextra", "-Wshadow", "-fsyntax-only", `-I${C_DIR}`]
    const paths = sources.map((name) => `${C_DIR}/reference/${name}`)
    const unit = paths.map((path) => `#include "${path}"\n`).join("")
    for (const input of [paths, ["-x", "c", "-"]]) {
      const run = Bun.spawn([gcc!, ...flags, ...input], {
        stdin: new Blob([unit]),
        stderr: "pipe",
      })
      expect(await new Response(run.stderr).text()).toBe("")
      expect(await run.exited).toBe(0)
    }
  })
})
