// The table of registers has what ptxas told, kernel by kernel.

import { expect, test } from "bun:test"
import { registersTable } from "../../bench/registers.ts"

const kernel = (architecture: string, name: string, spills: string, used: string) =>
  `ptxas info    : Compiling entry function '${name}' for '${architecture}'
ptxas info    : Function properties for ${name}
    16 bytes stack frame, ${spills}
ptxas info    : Used ${used}, 384 bytes cmem[0]
ptxas info    : Compile time = 194.175 ms
`
const NONE = "0 bytes spill stores, 0 bytes spill loads"
const CHUNKS = "_Z10sum_chunksILi8EtEvPfPKT0_iiii"
const BURN = "_ZN39_GLOBAL__N__a9ea87de_7_peak_cu_llm_peak4burnEPffx"

test("a kernel is a row, with what each architecture takes", () => {
  const told =
    "ptxas info    : 0 bytes gmem\n" +
    kernel("sm_80", CHUNKS, NONE, "32 registers, used 1 barriers, 16384 bytes smem") +
    kernel("sm_80", BURN, NONE, "20 registers, used 0 barriers") +
    kernel("sm_90a", CHUNKS, "8 bytes spill stores, 12 bytes spill loads", "255 registers")
  const rows = registersTable([{ source: "sums", told }])
    .split("\n")
    .map((line) => line.replace(/ +/g, " "))
  expect(rows[0]).toBe(
    "| source | kernel | sm_80 | spilled B | shared KB | sm_90a | spilled B | shared KB |",
  )
  expect(rows.slice(2)).toEqual([
    "| sums | sum_chunks<8, bf16> | 32 | | 16.0 | 255 | 20 | |",
    "| sums | burn | 20 | | | | | |",
    "",
  ])
})
