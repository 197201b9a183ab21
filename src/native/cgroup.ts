// What control groups leave a process of the machine: the least of the limits of its own group and
// of those above it. Version 2 has one tree for everything; version 1 has one for each controller.

import { readFileSync } from "node:fs"
import { join } from "node:path"

export interface Limits {
  /** CPU time, as a number of cores; infinite where nothing limits it. */
  cores: number
  /** Bytes; infinite where nothing limits them. */
  memory: number
}

/** The limits of this process. `root` is where proc and sys are found. */
export function cgroupLimits(root = "/"): Limits {
  const lines = readText(join(root, "proc/self/cgroup")).split("\n")
  const trees = lines.map((line) => /^\d+:([^:]*):(.*)$/.exec(line)?.slice(1) ?? ["", "/"])
  const mounts = join(root, "sys/fs/cgroup")
  /** The numbers of a file in every group from this process's own up to the root of a tree. */
  const values = (controller: string, folders: string[], name: string): number[][] => {
    const [, group] = trees.find(([names]) => names!.split(",").includes(controller)) ?? ["", "/"]
    const parts = group!.split("/").filter(Boolean)
    return folders.flatMap((folder) =>
      [...parts, ""].map((_, depth) => {
        const path = join(mounts, folder, ...parts.slice(0, depth), name)
        return readText(path).split(/\s/).map(Number) // "max" is no number
      }),
    )
  }
  // Beside trees of version 1, that of version 2 lies in a folder of its own.
  const quotas = values("", ["", "unified"], "cpu.max")
  const v1 = (name: string) => values("cpu", ["cpu", "cpu,cpuacct"], name).flat()
  const periods = v1("cpu.cfs_period_us")
  quotas.push(...v1("cpu.cfs_quota_us").map((quota, i) => [quota, periods[i]!]))
  const bytes = values("", ["", "unified"], "memory.max")
  bytes.push(...values("memory", ["memory"], "memory.limit_in_bytes"))
  return {
    cores: least(quotas.map(([quota, period]) => (quota! > 0 ? quota! / period! : NaN))),
    memory: least(bytes.flat()),
  }
}

function least(numbers: number[]): number {
  return Math.min(Number.POSITIVE_INFINITY, ...numbers.filter((n) => n > 0))
}

function readText(path: string): string {
  try {
    return readFileSync(path, "utf8").trim()
  } catch {
    return "" // no such group or tree: no limit from it
  }
}
