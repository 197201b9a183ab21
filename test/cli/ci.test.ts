// .ci/run ends with the counts of the tests, whatever became of them.

import { afterAll, expect, test } from "bun:test"
import { cpSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { ROOT, run } from "./executable.ts"

const dir = mkdtempSync(join(tmpdir(), "llm-ci-"))
mkdirSync(join(dir, ".ci"))
mkdirSync(join(dir, "bin"))
cpSync(join(ROOT, ".ci", "run"), join(dir, ".ci", "run"))
cpSync(join(ROOT, "package.json"), join(dir, "package.json"))
for (const compiler of ["gcc", "g++"]) {
  writeFileSync(join(dir, "bin", compiler), "#!/bin/sh\n", { mode: 0o755 })
}
afterAll(() => rmSync(dir, { recursive: true }))

const NAMES = "(pass) one\n(pass) two [1.00ms]\n(skip) three\n(fail) four\n"
const SEVEN = " 7 pass\n 0 fail\nRan 7 tests across 2 files. [1s]\n"
const CLOSING = " 2 pass\n 1 skip\n 1 fail\n 9 expect() calls\nRan 4 tests across 1 file. [1.00s]\n"

/** Runs it with an npm of which each command does what the cases of a shell say, all others nothing. */
function runWith(cases: string) {
  const npm = `#!/bin/bash\ncase "$*" in\n${cases}\nesac\n`
  writeFileSync(join(dir, "bin", "npm"), npm, { mode: 0o755 })
  const env = { ...process.env, PATH: `${join(dir, "bin")}:${process.env.PATH}` }
  return run([join(dir, ".ci", "run")], { cwd: dir, env })
}
const OTHERS = `test | "run test:sanitize") cat "${dir}/other" ;;`

test.each([
  ["all that passed", SEVEN, "exit 0", 0, [7, 0, 0]],
  ["some that failed", `${NAMES}\n${CLOSING}`, "exit 1", 1, [2, 1, 1]],
  ["those before a crash", NAMES, "kill -SEGV $$", 139, [2, 1, 1]],
  ["none, when there was nothing", "", "exit 1", 1, [0, 0, 0]],
] as const)("it counts %s, and adds the other run's", async (_, output, end, status, counts) => {
  const [pass, fail, skip] = counts
  // An npm with two runs of tests: one prints this and ends so, the other ends well.
  for (const which of ["test", "run test:sanitize"]) {
    writeFileSync(join(dir, "output"), output)
    writeFileSync(join(dir, "other"), SEVEN)
    const { code, stdout } = await runWith(`"${which}") cat "${dir}/output"; ${end} ;;\n${OTHERS}`)
    expect(code).toBe(status)
    expect(stdout).toEndWith(`${pass + 7} passed, ${fail} failed, ${skip} skipped\n`)
    expect(stdout.includes("did not get to its end")).toBe(!output.includes("Ran "))
  }
})

test("both runs go on at once, and the sanitized one is told after the other", async () => {
  writeFileSync(join(dir, "output"), CLOSING)
  writeFileSync(join(dir, "other"), SEVEN)
  // One that waits for 10 seconds at most until the other has ended.
  const until = `for i in {1..200}; do [ -e "${dir}/begun" ] && break; sleep 0.05; done`
  const { code, stdout } =
    await runWith(`"run test:sanitize") cat "${dir}/other"; touch "${dir}/begun" ;;
    test) ${until}; [ -e "${dir}/begun" ] || exit 9; cat "${dir}/output" ;;`)
  expect(code).toBe(0)
  expect(stdout).toEndWith(`${CLOSING}${SEVEN}9 passed, 1 failed, 1 skipped\n`)
})

test.each(["check", "lint", "build"])(
  "it counts the tests when %s fails, and fails",
  async (name) => {
    writeFileSync(join(dir, "other"), SEVEN)
    const { code, stdout } = await runWith(`"run ${name}") exit 3 ;;\n${OTHERS}`)
    expect(code).toBe(3)
    expect(stdout).toEndWith("14 passed, 0 failed, 0 skipped\n")
  },
)
