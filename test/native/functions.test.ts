// Numbers arrive in native code as what they are, whatever the engine has done before.

import { expect, test } from "bun:test"
import { mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"

// In a process of its own, whose first array of results this is: the engine then keeps it as
// doubles, as it may at any time when it has thrown away what it had learnt.
const SCRIPT = `
import { cc } from "bun:ffi"
import { checkArguments } from "${import.meta.dir}/../../src/native/functions.ts"
const parameter = (name, type) => ({ name, type, readOnly: true })
const last = {
  name: "last",
  returns: "i32",
  parameters: [parameter("arena", "pointer"), parameter("lr", "f32"), parameter("step", "i32")],
}
const { symbols } = cc({
  source: "last.c",
  flags: ["-nostdlib"],
  symbols: { last: { args: ["u64", "f32", "i32"], returns: "i32" } },
})
console.log(symbols.last(...checkArguments(last, [0, 0.5, 7])))
`

test("an integer beside floats is not taken for a double", () => {
  const dir = mkdtempSync(join(tmpdir(), "llm-functions-"))
  try {
    writeFileSync(
      join(dir, "last.c"),
      "int last(char *arena, float lr, int step) { return step; }\n",
    )
    writeFileSync(join(dir, "script.ts"), SCRIPT)
    const { stdout, stderr } = Bun.spawnSync([process.execPath, "script.ts"], { cwd: dir })
    expect(stderr.toString()).toBe("")
    expect(stdout.toString()).toBe("7\n")
  } finally {
    rmSync(dir, { recursive: true })
  }
})
