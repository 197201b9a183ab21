// What this machine is: its instruction sets, by CPUID or the system's AT_HWCAP2, and the cores that
// this process may use.

import { cc } from "bun:ffi"
import { availableParallelism, cpus, totalmem } from "node:os"
import { cacheDir, unpack } from "./assets.ts"
import { cgroupLimits } from "./cgroup.ts"
import { libc } from "./libc.ts"

const LEVELS = {
  x64: ["x86-64-v3", "x86-64-v4", "x86-64-v4-bf16", "x86-64-v4-amx"],
  arm64: ["arm64", "arm64-bf16"],
} as const
export type InstructionSet = (typeof LEVELS)[keyof typeof LEVELS][number]

/** What the kernels are compiled for on this architecture, weakest first. */
export const INSTRUCTION_SETS: readonly InstructionSet[] =
  process.arch in LEVELS ? LEVELS[process.arch as keyof typeof LEVELS] : []

// CPUID leaf 7 and 1 name the features, XGETBV whether the system saves the wide registers.
// Lists as in the x86-64 psABI's micro-architecture levels, of the features that the kernels use.
const PROBE = `
static void cpuid(unsigned leaf, unsigned sub, unsigned *r) {
  __asm__ volatile("cpuid" : "=a"(r[0]), "=b"(r[1]), "=c"(r[2]), "=d"(r[3]) : "a"(leaf), "c"(sub));
}
int level(void) {
  unsigned r0[4], r1[4], r7[4], r71[4], low, high;
  cpuid(0, 0, r0);
  if (r0[0] < 7) return 0;
  cpuid(1, 0, r1);
  cpuid(7, 0, r7);
  cpuid(7, 1, r71);
  if (!(r1[2] >> 27 & 1)) return 0; /* OSXSAVE */
  __asm__ volatile(".byte 0x0f, 0x01, 0xd0" : "=a"(low), "=d"(high) : "c"(0)); /* xgetbv */
  int v3 = (low & 6) == 6 && (r1[2] >> 12 & 1) && (r1[2] >> 28 & 1) && (r1[2] >> 29 & 1) /* fma avx f16c */
    && (r7[1] >> 3 & 1) && (r7[1] >> 5 & 1) && (r7[1] >> 8 & 1); /* bmi1 avx2 bmi2 */
  int v4 = v3 && (low & 0xe6) == 0xe6 && (r7[1] >> 16 & 1) && (r7[1] >> 17 & 1) /* avx512 f dq */
    && (r7[1] >> 28 & 1) && (r7[1] >> 30 & 1) && (r7[1] >> 31 & 1); /* cd bw vl */
  int bf16 = v4 && r7[0] >= 1 && (r71[0] >> 5 & 1);
  int amx = bf16 && (low & 0x60000) == 0x60000 && (r7[3] >> 22 & 1) && (r7[3] >> 24 & 1); /* bf16 tile */
  return amx ? 4 : bf16 ? 3 : v4 ? 2 : v3;
}`

let probed: Promise<readonly InstructionSet[]> | undefined
/** The instruction sets that this CPU and system run, weakest first. */
export function instructionSets(): Promise<readonly InstructionSet[]> {
  probed ??= probe()
  return probed
}

async function probe(): Promise<readonly InstructionSet[]> {
  return INSTRUCTION_SETS.slice(0, process.arch === "arm64" ? arm64Level() : await x64Level())
}

async function x64Level(): Promise<number> {
  const path = unpack(await cacheDir(), "cpuid.c", new TextEncoder().encode(PROBE))
  const { symbols } = cc({
    source: path,
    flags: ["-nostdlib"],
    symbols: { level: { args: [], returns: "i32" } },
  })
  const level = symbols.level()
  return level === 4 && !permitTiles() ? 3 : level
}

const SYS_ARCH_PRCTL = 158
const ARCH_REQ_XCOMP_PERM = 0x1023
const XFEATURE_XTILEDATA = 18

/** AMX's tiles make a thread's state 8 KiB larger, so Linux wants to be asked for them. */
function permitTiles(): boolean {
  return Number(libc().syscall(SYS_ARCH_PRCTL, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA)) === 0
}

const AT_HWCAP2 = 26n
const HWCAP2_BF16 = 1n << 14n

/** Every arm64 CPU that runs Linux has NEON; FEAT_BF16 is an extension from Armv8.2 on. */
function arm64Level(): number {
  return libc().getauxval(AT_HWCAP2) & HWCAP2_BF16 ? 2 : 1
}

/** The CPU's name as the system gives it. */
export function cpuName(): string {
  return cpus()[0]?.model.trim() || "unknown (/proc/cpuinfo has no model name)"
}

/** How many cores this process may use: its affinity, cut by the control group's quota. */
export function usableCores(): number {
  return Math.max(1, Math.min(availableParallelism(), Math.floor(cgroupLimits().cores)))
}

/** Bytes of memory that this process may use: the machine's, cut by the control group's limit. */
export function usableMemory(): number {
  return Math.min(totalmem(), cgroupLimits().memory)
}
