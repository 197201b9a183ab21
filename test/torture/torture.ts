// Runs of ./llm that are killed at random moments, during steps and while checkpoints are written, and
// go on by --resume: what comes out must be what an undisturbed run gives, to the bit.

import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { isDeepStrictEqual } from "node:util"
import { Random } from "../../src/data/random.ts"
import { LLM, run, writeSmallTokens } from "../cli/executable.ts"
import { record, remains, verifyAll } from "../cli/runs.ts"

export interface Toll {
  /** Runs that were compared with an undisturbed one. */
  runs: number
  kills: number
  /** Kills that left the files of an unfinished checkpoint. */
  amidWriting: number
}

const STEPS = 60
const BASE =
  "--layers 2 --heads 2 --channels 32 --vocab 97 --batch 2 --context 16 --lr 1e-2 --checkpoint-every 2"
    .concat(
      ` --keep 2 --keep-every 20 --val-every 7 --val-batches 3 --sample-every 0 --steps ${STEPS}`,
    )
    .split(" ")
const VARIANTS = [
  [],
  ["--shuffle"],
  ["--shuffle", "--total-batch", "128", "--skip-loss-z", "3"],
  ["--device", "reference", "--precision", "bf16", "--stochastic-rounding", "--shuffle"],
  ["--device", "reference", "--precision", "bf16", "--master-weights", "0"],
]

/** Kills until `isEnough`, at the end of a run. Throws when a run differs or a file is torn. */
export async function torture(
  seed: number,
  isEnough: (toll: Toll) => boolean,
  onRun: (toll: Toll, variant: string) => void = () => {},
): Promise<Toll> {
  const random = new Random(seed)
  const dir = mkdtempSync(join(tmpdir(), "llm-torture-"))
  const toll: Toll = { runs: 0, kills: 0, amidWriting: 0 }
  try {
    writeSmallTokens(dir)
    const calm: { expected: ReturnType<typeof record>; ms: number }[] = []
    for (let i = 0; !isEnough(toll); i = (i + 1) % VARIANTS.length) {
      const args = ["train", "small_train.bin", ...BASE, ...VARIANTS[i]!]
      const variant = VARIANTS[i]!.join(" ") || "plain"
      calm[i] ??= await undisturbed(dir, [...args, "--out", `calm-${i}`])
      const { expected, ms } = calm[i]!
      const out = `run-${toll.runs}`
      await disturbed(dir, [...args, "--out", out, "--resume"], ms, random, toll)
      if (remains(join(dir, out)).length > 0) throw new Error(`${out} holds remains of kills`)
      const got = record(join(dir, out))
      if (!isDeepStrictEqual(got, expected)) {
        throw new Error(`seed ${seed}, ${variant}: the run differs from the undisturbed one`)
      }
      toll.runs++
      onRun(toll, variant)
      rmSync(join(dir, out), { recursive: true })
    }
    return toll
  } finally {
    rmSync(dir, { recursive: true })
  }
}

/** A run to its end, and how long its steps took. */
async function undisturbed(dir: string, args: string[]) {
  const { code, stdout, stderr } = await run([LLM, ...args], { cwd: dir })
  if (code !== 0) throw new Error(`exit code ${code}: ${stderr}`)
  const times = [...stdout.matchAll(/ (\d+) ms /g)].map(([, ms]) => Number(ms))
  const ms = times.reduce((sum, time) => sum + time, 0)
  return { expected: record(join(dir, args.at(-1)!)), ms: Math.max(ms, STEPS) }
}

/** Starts a run again and again, and kills it after a random time, until one comes to its end. */
async function disturbed(dir: string, args: string[], ms: number, random: Random, toll: Toll) {
  const out = join(dir, args[args.indexOf("--out") + 1]!)
  for (;;) {
    const child = Bun.spawn([LLM, ...args], { cwd: dir, stdout: "pipe", stderr: "pipe" })
    // Most die while they train, the others while they start.
    const isEarly = random.uniform() < 0.1
    if (!isEarly) await line(child.stdout, "step ")
    await Bun.sleep(random.uniform() * (isEarly ? 100 : ms / 2))
    child.kill("SIGKILL")
    const code = await child.exited
    if (code === 0) return
    if (child.signalCode !== "SIGKILL") {
      throw new Error(`exit code ${code}: ${await new Response(child.stderr).text()}`)
    }
    toll.kills++
    if (await Bun.file(join(out, "main.log")).exists()) {
      verifyAll(out)
      if (remains(out).length > 0) toll.amidWriting++
    }
  }
}

/** Reads until a line starts so, or the stream ends. */
async function line(stream: ReadableStream<Uint8Array>, start: string): Promise<void> {
  const decoder = new TextDecoder()
  let text = "\n"
  const reader = stream.getReader()
  for (;;) {
    const { value, done } = await reader.read()
    if (done) return
    text += decoder.decode(value, { stream: true })
    if (text.includes(`\n${start}`)) break
  }
  // The rest is read, so that the pipe does not fill.
  void (async () => {
    while (!(await reader.read()).done);
  })()
}
