// The CUDA library as a machine without CUDA sees it. It is built where nvcc is, by `bun run build`.

import { afterAll, describe, expect, test } from "bun:test"
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { dirname, join } from "node:path"
import { chooseArchitectures } from "../../src/build/cuda.ts"
import { findCompiler } from "../../src/build/native.ts"
import { NATIVE_BUILD_DIR } from "../../src/native/assets.ts"
import { findCublasLt } from "../../src/native/cublaslt.ts"
import { builtFor, countGpus } from "../../src/native/gpu.ts"
import { CUDA_FILE } from "../../src/native/library.ts"
import { ROOT, run } from "../cli/executable.ts"

const path = join(NATIVE_BUILD_DIR, CUDA_FILE)
const isBuilt = existsSync(path)
const hasGpu = existsSync("/dev/nvidiactl")

/** The libraries that a shared object names as needed: DT_NEEDED of its dynamic section (ELF, 64 bits,
 * little-endian). */
function needed(file: Buffer): string[] {
  const word = (at: number) => Number(file.readBigUInt64LE(at))
  const [start, size, count] = [word(0x28), file.readUInt16LE(0x3a), file.readUInt16LE(0x3c)]
  const sections = Array.from({ length: count }, (_, i) => start + i * size).map((at) => ({
    type: file.readUInt32LE(at + 4),
    offset: word(at + 24),
    bytes: word(at + 32),
    link: file.readUInt32LE(at + 40),
  }))
  const dynamic = sections.find(({ type }) => type === 6)! // SHT_DYNAMIC
  const names = sections[dynamic.link]!.offset
  return Array.from({ length: dynamic.bytes / 16 }, (_, i) => dynamic.offset + i * 16)
    .filter((at) => word(at) === 1) // DT_NEEDED
    .map((at) => names + word(at + 8))
    .map((at) => file.toString("latin1", at, file.indexOf(0, at)))
}

describe("LLM_CUDA_ARCHS", () => {
  const known = ["75", "80", "89", "90", "100"]

  test("names architectures, as nvcc knows them, from Ampere on", () => {
    expect(chooseArchitectures("90a", known)).toEqual(["90a"])
    expect(chooseArchitectures("80, 90a,100f", known)).toEqual(["80", "90a", "100f"])
  })

  test.each(["hopper", "sm_90a", "9.0", "90", "75", "95", "", "80,"])(
    '"%s" is refused, with those that can be',
    (asked) => {
      const strange = asked === "80," ? "" : asked
      expect(() => chooseArchitectures(asked, known)).toThrow(
        `"${strange}" is no architecture for these kernels and this nvcc (try 80, 89, 90a, 100; none`,
      )
    },
  )
})

describe.skipIf(!isBuilt)(`the CUDA library${isBuilt ? "" : " (skipped: not built)"}`, () => {
  test("needs glibc alone", () => {
    const all = needed(readFileSync(path))
    expect(all).toContain("libc.so.6")
    const others = all.filter((name) => !/^(ld-linux.*|lib(c|m|dl|rt|pthread))\.so\.\d$/.test(name))
    expect(others).toEqual([])
  })

  test("tells what GPUs it is for, without one", async () => {
    expect(builtFor(path)).toMatch(/^\d+\.\d(, \d+\.\d)*$/)
    const { stdout } = await run([process.execPath, join(ROOT, "src", "main.ts"), "info"])
    expect(stdout).toContain(
      `\nlibrary cuda            for NVIDIA GPUs of compute capability ${builtFor(path)}\n`,
    )
  })

  test.skipIf(hasGpu)("loads without a driver, and says that there is none", () => {
    expect(countGpus(path)).toEqual({
      missing: "there is no NVIDIA driver, or one too old for this CUDA (install a newer one)",
    })
  })
})

test.skipIf(hasGpu)("--device cuda without a GPU is refused in one line", async () => {
  const llm = [process.execPath, join(ROOT, "src", "main.ts")]
  const { code, stderr } = await run([...llm, "train", "--device", "cuda"])
  expect(stderr).toBe(
    "llm: --device cuda: no NVIDIA GPU: there is no /dev/nvidiactl, which its driver makes (or try --device cpu)\n",
  )
  expect(code).toBe(2)
})

const compiler = findCompiler()
test.skipIf(!compiler)("the driver of LLM_CUDA_PATH is the one that CUDA finds", async () => {
  const folder = mkdtempSync(join(tmpdir(), "llm-driver-"))
  const [source, library] = [join(folder, "cuda.c"), join(folder, "libcuda.so.1")]
  writeFileSync(source, "int cuInit(unsigned flags) { return (int)flags; }\n")
  const flags = ["-shared", "-fPIC", "-Wl,-soname,libcuda.so.1"]
  expect((await run([compiler!, ...flags, "-o", library, source])).code).toBe(0)
  // By its name alone, as CUDA's run-time opens it.
  const script = `
    import { dlopen } from "bun:ffi"
    import { readFileSync } from "node:fs"
    import { loadDriver } from "${join(ROOT, "src", "native", "driver.ts")}"
    loadDriver()
    dlopen("libcuda.so.1", { cuInit: { args: ["u32"], returns: "i32" } })
    console.log(readFileSync("/proc/self/maps", "utf8").match(/\\S*libcuda.so.1\\S*/)[0])`
  const env = { ...process.env, LLM_CUDA_PATH: folder }
  const { stdout, stderr } = await run([process.execPath, "-e", script], { env })
  rmSync(folder, { recursive: true })
  expect({ stdout, stderr }).toEqual({ stdout: `${library}\n`, stderr: "" })
})

const NCCL = `
  int ncclGetVersion(int *version) { *version = CODE; return STATUS; }
  const char *ncclGetErrorString(int status) { return status == 3 ? "internal error" : "?"; }
`

describe.skipIf(!compiler)("NCCL", () => {
  const folder = mkdtempSync(join(tmpdir(), "llm-nccl-"))
  afterAll(() => rmSync(folder, { recursive: true }))

  /** What a process finds that has a library, made with these macros, where it looks. */
  async function find(macros: string[], where: string, variables: Record<string, string>) {
    const [source, library] = [join(folder, "nccl.c"), join(folder, where, "libnccl.so.2")]
    mkdirSync(dirname(library), { recursive: true })
    writeFileSync(source, NCCL)
    const flags = [
      "-shared",
      "-fPIC",
      "-Wl,-soname,libnccl.so.2",
      ...macros.map((one) => `-D${one}`),
    ]
    expect((await run([compiler!, ...flags, "-o", library, source])).stderr).toBe("")
    const script = `
      import { findNccl } from "${join(ROOT, "src", "native", "nccl.ts")}"
      console.log(JSON.stringify(findNccl()))`
    const env = { ...process.env, LLM_CUDA_PATH: "", ...variables }
    const { stdout, stderr } = await run([process.execPath, "-e", script], { env })
    expect(stderr).toBe("")
    return { library, found: JSON.parse(stdout) }
  }

  test.each([
    ["22703", "2.27.3"],
    ["2804", "2.8.4"],
  ])("of a folder of the user's tells its version, %s", async (code, version) => {
    const given = { LLM_CUDA_PATH: join(folder, code) }
    const { library, found } = await find([`CODE=${code}`, "STATUS=0"], code, given)
    expect(found).toEqual({ path: library, version })
  })

  test("of a Python's wheel is found by the environment that is active", async () => {
    const where = "venv/lib/python3.12/site-packages/nvidia/nccl/lib"
    const given = { VIRTUAL_ENV: join(folder, "venv"), LD_LIBRARY_PATH: "" }
    const { found } = await find(["CODE=22703", "STATUS=0"], where, given)
    expect(found.version).toBeString() // of this one, or of one that the system has
    if (found.path.startsWith(folder)) expect(found.path).toBe(join(folder, where, "libnccl.so.2"))
  })

  test("that does not start is named with its own words and the way out", async () => {
    const given = { LLM_CUDA_PATH: join(folder, "broken") }
    const { library, found } = await find(["CODE=0", "STATUS=3"], "broken", given)
    expect(found.missing).toBe(
      `missing: ${library}: internal error (only several GPUs need it: ` +
        "pip install nvidia-nccl-cu13, or name its folder by LLM_CUDA_PATH)",
    )
  })
})

test("a cuBLASLt that is missing is named with how to get it", () => {
  const found = findCublasLt()
  if ("path" in found) expect(existsSync(found.path)).toBe(true)
  else expect(found.missing).toMatch(/^cuBLASLt is missing.*pip install nvidia-cublas/)
})
