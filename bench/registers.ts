// `bun run bench registers`: what each CUDA kernel takes of a multiprocessor, as ptxas told when the
// library was compiled.

import { spawnSync } from "node:child_process"
import { readdirSync, readFileSync } from "node:fs"
import { basename, join } from "node:path"
import { digits, table } from "../src/bench/table.ts"
import { buildCuda, TOLD } from "../src/build/cuda.ts"
import { UserError } from "../src/errors.ts"

interface Use {
  architecture: string
  kernel: string // mangled
  registers: number // of a thread
  spilled: number // bytes of a thread, stored and loaded
  shared: number // bytes of a block, but for those that the launch adds
}

/** A table with a row for each kernel; builds the library first where it is stale. */
export async function benchRegisters(): Promise<string> {
  const { folder, missing } = await buildCuda((line) => console.error(line))
  if (!folder) throw new UserError(`no CUDA kernels: ${missing ?? "LLM_CUDA_ARCHS is none"}`)
  const files = readdirSync(folder).filter((name) => name.endsWith(TOLD))
  return registersTable(
    files.sort().map((name) => ({
      source: basename(name, TOLD),
      told: readFileSync(join(folder, name), "utf8"),
    })),
  )
}

/** Of what `ptxas -v` told of each source. */
export function registersTable(sources: { source: string; told: string }[]): string {
  const all = sources.map(({ source, told }) => ({ source, uses: usesIn(told) }))
  const uses = all.flatMap((one) => one.uses)
  const architectures = [...new Set(uses.map(({ architecture }) => architecture))]
  const named = names([...new Set(uses.map(({ kernel }) => kernel))])
  const rows = all.flatMap(({ source, uses }) =>
    [...new Set(uses.map(({ kernel }) => kernel))].map((kernel) => [
      ...[source, named.get(kernel)!],
      ...architectures.flatMap((architecture) =>
        cells(uses.find((use) => use.kernel === kernel && use.architecture === architecture)),
      ),
    ]),
  )
  const headings = architectures.flatMap((name) => [`${name}:`, "spilled B:", "shared KB:"])
  return table(["source", "kernel", ...headings], rows)
}

const cells = ({ registers, spilled, shared }: Partial<Use> = {}) => [
  `${registers ?? ""}`,
  `${spilled || ""}`,
  shared ? digits(shared / 1024) : "",
]

function usesIn(told: string): Use[] {
  return told.split("Compiling entry function ").flatMap((part) => {
    const [, kernel, architecture] = /^'(\w+)' for '(\w+)'/.exec(part) ?? []
    if (!kernel || !architecture) return []
    const number = (pattern: RegExp) => Number(pattern.exec(part)?.[1] ?? 0)
    return {
      architecture,
      kernel,
      registers: number(/Used (\d+) registers/),
      spilled: number(/(\d+) bytes spill stores/) + number(/(\d+) bytes spill loads/),
      shared: number(/(\d+) bytes smem/),
    }
  })
}

/** Kernels as the sources name them, without their parameters. */
function names(mangled: string[]): Map<string, string> {
  const { stdout } = spawnSync("c++filt", ["-p"], { encoding: "utf8", input: mangled.join("\n") })
  if (!stdout) throw new UserError("c++filt is missing, which binutils has (install binutils)")
  const short = stdout
    .replaceAll("(anonymous namespace)::", "")
    .replaceAll("unsigned short", "bf16")
    .replaceAll("> >", ">>")
    .split("\n")
  return new Map(mangled.map((name, i) => [name, short[i]!]))
}
