// Limits of control groups, from trees of files such as the system shows.

import { afterAll, expect, test } from "bun:test"
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { dirname, join } from "node:path"
import { cgroupLimits } from "../../src/native/cgroup.ts"

const dir = mkdtempSync(join(tmpdir(), "llm-cgroup-"))
afterAll(() => rmSync(dir, { recursive: true }))

const GB = 2 ** 30
const NONE = 2 ** 63 - 4096 // what version 1 says where there is no limit

/** Files below /sys/fs/cgroup, and what /proc/self/cgroup says. */
type Row = [
  title: string,
  proc: string,
  files: Record<string, string>,
  cores: number,
  memory: number,
]

const ROWS: Row[] = [
  ["no control groups", "", {}, Infinity, Infinity],
  [
    "version 2 without limits",
    "0::/",
    { "cpu.max": "max 100000", "memory.max": "max" },
    Infinity,
    Infinity,
  ],
  [
    "version 2, a container that sees itself as the root",
    "0::/",
    { "cpu.max": "150000 100000", "memory.max": `${GB}` },
    1.5,
    GB,
  ],
  [
    "version 2, the process's own group",
    "0::/a/b",
    { "a/b/cpu.max": "200000 100000", "a/b/memory.max": `${2 * GB}` },
    2,
    2 * GB,
  ],
  [
    "version 2, the least on the way to the root, and nobody else's",
    "0::/a/b",
    {
      "a/cpu.max": "100000 50000",
      "a/b/cpu.max": "300000 100000",
      "c/cpu.max": "100 100000",
      "a/memory.max": `${3 * GB}`,
      "a/b/memory.max": "max",
      "memory.max": `${4 * GB}`,
    },
    2,
    3 * GB,
  ],
  [
    "version 1, a tree for each controller",
    "5:memory:/m/x\n4:cpu,cpuacct:/c\n1:name=systemd:/",
    {
      "cpu,cpuacct/c/cpu.cfs_quota_us": "50000",
      "cpu,cpuacct/c/cpu.cfs_period_us": "100000",
      "memory/m/memory.limit_in_bytes": `${GB}`,
      "memory/m/x/memory.limit_in_bytes": "9223372036854771712",
    },
    0.5,
    GB,
  ],
  [
    "version 1 without limits",
    "2:cpu:/\n1:memory:/",
    {
      "cpu/cpu.cfs_quota_us": "-1",
      "cpu/cpu.cfs_period_us": "100000",
      "memory/memory.limit_in_bytes": "9223372036854771712",
    },
    Infinity,
    NONE,
  ],
  [
    "version 1, a container that is told a path from outside",
    "3:memory:/docker/abc\n2:cpu:/docker/abc",
    {
      "cpu/cpu.cfs_quota_us": "250000",
      "cpu/cpu.cfs_period_us": "100000",
      "memory/memory.limit_in_bytes": `${GB}`,
    },
    2.5,
    GB,
  ],
  [
    "version 1 and, beside it, 2",
    "2:cpu:/p\n0::/q",
    {
      "cpu/p/cpu.cfs_quota_us": "400000",
      "cpu/p/cpu.cfs_period_us": "100000",
      "unified/q/memory.max": `${GB}`,
    },
    4,
    GB,
  ],
]

test.each(ROWS)("%s", (title, proc, files, cores, memory) => {
  const root = join(dir, title)
  const write = (path: string, text: string) => {
    mkdirSync(dirname(join(root, path)), { recursive: true })
    writeFileSync(join(root, path), `${text}\n`)
  }
  if (proc) write("proc/self/cgroup", proc)
  for (const [path, text] of Object.entries(files)) write(join("sys/fs/cgroup", path), text)
  expect(cgroupLimits(root)).toEqual({ cores, memory })
})
