// What llm data makes of each source.

import { readFileSync, rmSync } from "node:fs"
import { join } from "node:path"
import { UserError } from "../errors.ts"
import { writeTokenizer } from "../formats/tokenizer.ts"
import { builtinCorpus, CORPUS_SEED } from "./corpus.ts"
import { download, type OnBytes } from "./download.ts"
import { fileBytes, reason, thousands } from "./files.ts"
import { leftOut, nameOf } from "./inputs.ts"
import { prepareTexts, prepareTinyShakespeare, type Written, writeSplit } from "./prepare.ts"
import { type Out, withProgress } from "./progress.ts"
import { Decoder, END_OF_TEXT, VOCABULARY } from "./tokenizer.ts"

export type DataOptions = {
  /** A source's name, or paths. */
  sources: string[]
  from?: string | undefined
  field?: string | undefined
  valFraction?: number | undefined
  size?: "10B" | "100B" | undefined
  shardTokens?: number | undefined
  name?: string | undefined
  outDir?: string | undefined
  seed?: number | undefined
  workers?: number
}
/** Where progress goes, and another server to download from. */
export type Around = { stderr: Out; url?: string | undefined }
export type Made = { lines: string[]; next: string }

type Source = (options: DataOptions, folder: string, around: Around) => Promise<Made>

export const VAL_FRACTION = 0.1
export const FIELD = "text"

export const SOURCES: Record<string, Source> = {
  tinyshakespeare: async ({ from, workers }, folder, { stderr, url }) => {
    const { downloadTinyShakespeare, readTinyShakespeare } = await import("./shakespeare.ts")
    const text =
      from !== undefined
        ? readTinyShakespeare(from)
        : await withProgress("downloading Tiny Shakespeare", stderr, (onBytes) =>
            downloadTinyShakespeare(onBytes, url),
          )
    const split = await prepareTinyShakespeare(text, workers)
    return made(writeSplit(folder, "tiny_shakespeare", split))
  },

  plays: async ({ seed }, folder) => {
    const corpus = await builtinCorpus(seed ?? CORPUS_SEED)
    const { trainNatsPerToken, valNatsPerToken } = corpus
    const note = `entropy  train ${trainNatsPerToken.toFixed(4)}, val ${valNatsPerToken.toFixed(4)} nats a token: the lowest loss that a model can reach`
    return made(writeSplit(folder, "plays", corpus), [note])
  },

  tinystories: async ({ from, workers }, folder, { stderr }) => {
    const { prepareTinyStories, fetchTinyStories } = await import("./tinystories.ts")
    const downloads = join(folder, ".TinyStories_downloads")
    const source =
      from ??
      (await withProgress("downloading TinyStories", stderr, (onBytes) =>
        fetchTinyStories(downloads, onBytes),
      ))
    const written = await withProgress("tokenizing TinyStories", stderr, (onBytes) =>
      prepareTinyStories(source, folder, onBytes, workers),
    )
    rmSync(downloads, { recursive: true, force: true })
    return made(written)
  },

  fineweb: (options, folder, around) => fineWeb(false, options, folder, around),
  "fineweb-edu": (options, folder, around) => fineWeb(true, options, folder, around),

  hellaswag: async ({ from }, folder, { stderr, url }) => {
    const { HELLASWAG_URL, writeHellaSwag } = await import("./hellaswag.ts")
    const address = url ?? HELLASWAG_URL
    const bytes =
      from !== undefined
        ? readFrom(from)
        : await withProgress("downloading HellaSwag", stderr, (onBytes) =>
            download(address, { wayOut: "give a local copy with --from FILE", onBytes }),
          )
    const { path, examples } = await writeHellaSwag(from ?? address, bytes, folder)
    return {
      lines: [`${path}  ${thousands(examples)} questions`],
      next: `llm eval CHECKPOINT --hellaswag ${quoted(path)}`,
    }
  },

  tokenizer: async (_, folder) => {
    const decoder = await Decoder.load()
    const path = join(folder, "gpt2_tokenizer.bin")
    const tokens = Array.from({ length: VOCABULARY }, (_, token) => decoder.tokenBytes(token))
    writeTokenizer(path, { tokens, endOfText: END_OF_TEXT })
    return {
      lines: [`${path}  ${thousands(VOCABULARY)} tokens, as llm.c decodes them`],
      next: `llm info ${quoted(path)}`,
    }
  },
}

/** A person's own texts. */
export const ownTexts: Source = async (options, folder, { stderr }) => {
  const { sources: paths, valFraction = VAL_FRACTION, field = FIELD } = options
  const name = options.name ?? nameOf(paths[0]!)
  const { shardTokens, workers } = options
  const others = leftOut(paths)
  const written = await withProgress(`tokenizing ${paths.join(", ")}`, stderr, (onBytes) =>
    prepareTexts({ paths, field, valFraction, folder, name, shardTokens, workers, onBytes }),
  )
  const more = others.length > 1 ? ` and ${thousands(others.length - 1)} more` : ""
  const notes = [
    ...(valFraction === 0 ? ["no validation file, as --val-fraction is 0"] : []),
    ...(others[0] ? [`left out, by their names: ${others[0]}${more}`] : []),
  ]
  return made(written, notes)
}

async function fineWeb(
  edu: boolean,
  { from, size = "10B", shardTokens, workers }: DataOptions,
  folder: string,
  { stderr }: Around,
): Promise<Made> {
  const { prepareFineWeb } = await import("./fineweb.ts")
  const showDownload = (name: string, work: (onBytes: OnBytes) => Promise<void>) =>
    withProgress(`downloading ${name}`, stderr, work)
  const written = await withProgress("tokenizing FineWeb", stderr, (onBytes) =>
    prepareFineWeb({ edu, size, from, folder, shardTokens, workers, onBytes, showDownload }),
  )
  return made(written)
}

/** The line of each file, and the command that trains on them. */
function made(written: Written[], notes: string[] = []): Made {
  const files = written.map(({ path, tokens, isReplaced }) => {
    const older = isReplaced ? ", in place of an older file" : ""
    return `${path}  ${thousands(tokens)} tokens${older}`
  })
  const train = written.filter(({ path }) => /_train(_\d{6})?\.bin$/.test(path))
  const [first = written[0]!] = train
  const all = first.path.replace(/_\d{6}\.bin$/, "_*.bin")
  return { lines: [...files, ...notes], next: `llm train ${quoted(all)}` }
}

/** An argument as a shell takes it. */
const quoted = (text: string) =>
  /^[\w./@%+=:,-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`

function readFrom(path: string): Uint8Array {
  fileBytes(path, "--from takes a local copy")
  try {
    return readFileSync(path)
  } catch (error) {
    throw new UserError(`--from ${path}: cannot read: ${reason(error)} (give another copy)`)
  }
}
