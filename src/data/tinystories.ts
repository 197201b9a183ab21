// TinyStories (Eldan, Li 2023) as llm.c's tinystories.py makes it of the archive's JSON files: the
// first is for validation; each file's stories are shuffled by Python's generator, stripped, and
// follow an end-of-text token. (The script puts the files in the order in which its processes happen
// to finish; here it is that of their names.)

import { closeSync, mkdirSync, openSync, readdirSync, rmSync, writeSync } from "node:fs"
import { basename, join } from "node:path"
import { UserError } from "../errors.ts"
import { TokenWriter } from "../formats/tokens.ts"
import { type Chunks, chunksOf, type Meter } from "./chunks.ts"
import type { OnBytes } from "./download.ts"
import { fetchFile } from "./fetch-file.ts"
import { fileBytes, reason, wayOut } from "./files.ts"
import { hubFiles, MIRROR_HINT } from "./hub.ts"
import { isFolder } from "./inputs.ts"
import { type Job, textsOf } from "./jobs.ts"
import { tokenizeJobs } from "./pool.ts"
import { shardName, type Written } from "./prepare.ts"
import { PythonRandom } from "./python-random.ts"
import { documentJobs, elementJobs } from "./readers.ts"
import { readTar } from "./tar.ts"

export const TINY_STORIES = {
  dataset: "roneneldan/TinyStories",
  file: "TinyStories_all_data.tar.gz",
}
const NAME = "TinyStories"
const SEED = 1337 // of a split's first file
// What Python's strip() takes away, which is not quite what trim() does.
const SPACE =
  "[\\t-\\r\\x1c-\\x20\\x85\\xa0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000]+"
const AROUND = new RegExp(`^${SPACE}|${SPACE}$`, "g")

/** Downloads the archive into a folder. Returns its path. */
export async function fetchTinyStories(folder: string, onBytes: OnBytes): Promise<string> {
  const { dataset, file: wanted } = TINY_STORIES
  const fetching = { wayOut: MIRROR_HINT, onBytes }
  const files = await hubFiles(dataset, "", { wayOut: MIRROR_HINT })
  const file = files.find(({ name }) => name === wanted)
  if (!file) throw new UserError(`${dataset}: it has no ${wanted} (${MIRROR_HINT})`)
  mkdirSync(folder, { recursive: true })
  const path = join(folder, wanted)
  await fetchFile(file, path, fetching)
  return path
}

/** Writes FOLDER/TinyStories_train.bin and …_val.bin from the archive, or a folder of its files. */
export async function prepareTinyStories(
  source: string,
  folder: string,
  onBytes: OnBytes = () => {},
  workers?: number,
): Promise<Written[]> {
  if (isFolder(source)) return await writeStories(source, folder, onBytes, workers)
  const unpacked = join(folder, ".TinyStories_all_data")
  try {
    await unpack(source, unpacked)
    return await writeStories(unpacked, folder, onBytes, workers)
  } finally {
    rmSync(unpacked, { recursive: true, force: true })
  }
}

/** Puts the archive's JSON files into a new folder. */
async function unpack(archive: string, folder: string): Promise<void> {
  rmSync(folder, { recursive: true, force: true })
  mkdirSync(folder)
  await readTar(archive, chunksOf(archive), async (path, content) => {
    const name = basename(path) // whatever folder it says, it stays in ours
    if (!isStories(name)) return
    try {
      await save(join(folder, name), content)
    } catch (error) {
      if (error instanceof UserError) throw error
      const { code } = error as NodeJS.ErrnoException
      if (code === "EEXIST") throw new UserError(`${archive}: two files in it are called ${name}`)
      throw new UserError(
        `${join(folder, name)}: cannot write: ${reason(error)} (${wayOut(error)})`,
      )
    }
  })
}

async function save(path: string, content: Chunks): Promise<void> {
  const handle = openSync(path, "wx")
  try {
    for await (const chunk of content) {
      for (let done = 0; done < chunk.length; ) done += writeSync(handle, chunk, done)
    }
  } finally {
    closeSync(handle)
  }
}

const isStories = (name: string) => name.endsWith(".json") && !name.startsWith(".")

async function writeStories(
  source: string,
  folder: string,
  onBytes: OnBytes,
  workers?: number,
): Promise<Written[]> {
  const names = readdirSync(source).filter(isStories).sort()
  const [val, ...train] = names.map((name) => join(source, name))
  if (val === undefined || train.length === 0) {
    throw new UserError(
      `${source}: ${names.length} .json files, but one is needed for validation and more for training (give a copy of ${TINY_STORIES.file}, or a folder with its files)`,
    )
  }
  const total = [val, ...train].reduce((sum, path) => sum + fileBytes(path), 0)
  const meter = { bytes: 0 }
  const files: TokenWriter[] = []
  const written: Written[] = []
  try {
    for (const [split, paths] of Object.entries({ train, val: [val] })) {
      const path = join(folder, shardName(NAME, split))
      const file = new TokenWriter(path)
      files.push(file)
      for await (const { tokens } of tokenizeJobs(storyJobs(paths, meter), workers)) {
        file.append(tokens)
        onBytes(meter.bytes, total)
      }
      written.push({ path, tokens: file.count })
    }
  } catch (error) {
    for (const file of files) file.discard()
    throw error
  }
  for (const file of files) file.finish()
  return written
}

async function* storyJobs(paths: string[], meter: Meter): AsyncGenerator<Job> {
  for (const [index, path] of paths.entries()) {
    const stories: string[] = []
    for await (const job of elementJobs(path, "story", chunksOf(path, meter))) {
      for (const story of await textsOf(job as Job & { kind: "elements" }))
        stories.push(strip(story))
    }
    new PythonRandom(SEED + index).shuffle(stories)
    yield* documentJobs(stories)
  }
}

/** A text without the white space around it, as Python's strip() takes it away. */
export function strip(text: string): string {
  return text.replace(AROUND, "")
}
