// Mutates one reader's file and reads the results: NAME SEED CASES PATH. Its own process, so that a
// crash or a hang of the reader is seen from outside; what it happened on lies at PATH.

import { writeFileSync } from "node:fs"
import { Random } from "../../src/data/random.ts"
import { UserError } from "../../src/errors.ts"
import { type Case, drawn, systematic } from "./mutate.ts"
import { READERS, type Reader } from "./readers.ts"
import { TooMuch, watched } from "./watch.ts"

const UNCHANGED = "unchanged"
const MAX_MS = 5000 // of one small file, on a machine that does something else as well

/** What is wrong with how a mutated file was answered; else whether it was read. */
function judge(reader: Reader, path: string, bytes: Buffer): string | boolean {
  writeFileSync(path, bytes)
  const expected = reader.expected(bytes)
  // The header, what the body holds in either type and once more, and a piece on the way.
  const limit = 8 * bytes.length + 4096 + (reader.spareBytes ?? 0)
  const start = performance.now()
  let got: unknown
  try {
    got = watched(limit, () => reader.read(path))
  } catch (error) {
    if (error instanceof TooMuch)
      return `asked for more memory than the file justifies: ${error.message}`
    if (!(error instanceof UserError)) return `threw ${(error as Error).stack ?? error}`
    if (expected !== undefined) return `refused what is whole: ${error.message}`
    if (!error.message.includes(path)) return `does not name the path: ${error.message}`
    if (/\p{Cc}/u.test(error.message)) return `more than a line: ${JSON.stringify(error.message)}`
    got = undefined
  }
  const ms = performance.now() - start
  if (ms > MAX_MS) return `took ${ms} ms`
  if (expected === undefined && got !== undefined) return "read what must be refused"
  if (!Bun.deepEquals(got, expected, true)) return "read something else than the bytes say"
  return got !== undefined
}

function* cases(reader: Reader, seed: number, count: number): Generator<Case> {
  const file = reader.file()
  const others = reader.others?.() ?? []
  yield { what: UNCHANGED, bytes: file }
  yield* systematic(file, reader)
  for (const [i, bytes] of others.entries()) yield { what: `file ${i} of the others`, bytes }
  const random = new Random(seed, Bun.hash.crc32(reader.name))
  for (let i = 0; i < count; i++) {
    const other = random.below(8) === 0 ? others[random.below(others.length)] : undefined
    yield drawn(other ?? file, random, reader)
  }
}

const [name, seed, count, path = ""] = process.argv.slice(2)
const reader = READERS.find((candidate) => candidate.name === name)!
const tally = { read: 0, refused: 0 }
for (const { what, bytes } of cases(reader, Number(seed), Number(count))) {
  const verdict = judge(reader, path, bytes)
  if (typeof verdict === "string" || (what === UNCHANGED && !verdict)) {
    process.stderr.write(`${what}: ${verdict}\n`)
    process.exit(1)
  }
  tally[verdict ? "read" : "refused"]++
}
process.stdout.write(JSON.stringify(tally))
