// llm data SOURCE: makes token files.

import { basename, extname } from "node:path"
import { builtinCorpus, CORPUS_SEED } from "../data/corpus.ts"
import type { OnBytes } from "../data/download.ts"
import { checkFolder, thousands } from "../data/files.ts"
import { prepareFile, prepareTinyShakespeare, type Split, writeSplit } from "../data/prepare.ts"
import { type Out, Progress } from "../data/progress.ts"
import { downloadTinyShakespeare, readTinyShakespeare } from "../data/shakespeare.ts"
import { UserError } from "../errors.ts"
import type { Command } from "../main.ts"
import type { CommandSpec, Options } from "../options.ts"
import { int } from "./specs.ts"

export type DataOptions = {
  source: string
  from?: string
  valFraction?: number
  outDir?: string
  seed?: number
}

/** Where tests look: another server, and results and progress in memory. */
export type DataSurroundings = { url?: string; stdout?: Out; stderr?: Out }

const VAL_FRACTION = 0.1
const OUT_DIR = "data"

export async function data(options: DataOptions, around: DataSurroundings = {}): Promise<void> {
  const { source, outDir = OUT_DIR } = options
  const stdout = around.stdout ?? process.stdout
  const stderr = around.stderr ?? process.stderr
  check(options)
  checkFolder("--out-dir", outDir)

  let name: string
  let split: Split
  const notes: string[] = []
  if (source === "tinyshakespeare") {
    name = "tiny_shakespeare"
    const text =
      options.from !== undefined
        ? readTinyShakespeare(options.from)
        : await withProgress("downloading Tiny Shakespeare", stderr, (onBytes) =>
            downloadTinyShakespeare(onBytes, around.url),
          )
    split = await prepareTinyShakespeare(text)
  } else if (source === "plays") {
    name = "plays"
    const corpus = await builtinCorpus(options.seed ?? CORPUS_SEED)
    split = corpus
    notes.push(
      `entropy  train ${corpus.trainNatsPerToken.toFixed(4)}, val ${corpus.valNatsPerToken.toFixed(4)} nats a token: the lowest loss that a model can reach`,
    )
  } else {
    name = basename(source, extname(source))
    const valFraction = options.valFraction ?? VAL_FRACTION
    split = await withProgress(`tokenizing ${source}`, stderr, (onBytes) =>
      prepareFile(source, valFraction, undefined, onBytes),
    )
    if (valFraction === 0) notes.push("no validation file, as --val-fraction is 0")
  }

  const written = writeSplit(outDir, name, split)
  for (const { path, tokens } of written) stdout.write(`${path}  ${thousands(tokens)} tokens\n`)
  for (const note of notes) stdout.write(`${note}\n`)
  stdout.write(`next: llm train ${written[0]!.path}\n`)
}

function check({ source, from, valFraction, seed }: DataOptions): void {
  const isPath = [".txt", ".jsonl"].includes(extname(source).toLowerCase())
  if (!isPath && source !== "tinyshakespeare" && source !== "plays") {
    throw new UserError(
      `llm data ${source}: no such source (try tinyshakespeare, plays, or a path that ends in .txt or .jsonl)`,
    )
  }
  if (from !== undefined && source !== "tinyshakespeare") {
    throw new UserError(
      `--from ${from} goes with tinyshakespeare, not with ${source} (leave it out)`,
    )
  }
  if (seed !== undefined && source !== "plays") {
    throw new UserError(`--seed ${seed} goes with plays, not with ${source} (leave it out)`)
  }
  if (valFraction !== undefined && !isPath) {
    throw new UserError(
      `--val-fraction ${valFraction} goes with your own text; ${source} has a fixed cut (leave it out)`,
    )
  }
  if (valFraction !== undefined && !(valFraction >= 0 && valFraction < 1)) {
    throw new UserError(`--val-fraction ${valFraction} is not in [0, 1) (try 0.1)`)
  }
  if (seed !== undefined && !(Number.isSafeInteger(seed) && seed >= 0)) {
    throw new UserError(`--seed ${seed} is not a whole number from 0 (try 1)`)
  }
}

async function withProgress<T>(
  what: string,
  out: Out,
  work: (onBytes: OnBytes) => Promise<T>,
): Promise<T> {
  const progress = new Progress(what, out)
  let bytes = 0
  try {
    const result = await work((done, total) => {
      bytes = done
      progress.update(done, total)
    })
    progress.finish(bytes)
    return result
  } catch (error) {
    progress.clear()
    throw error
  }
}

const spec: CommandSpec = {
  name: "data",
  summary: `Makes token files: data/NAME_train.bin and data/NAME_val.bin. A .txt file is one document; of a
.jsonl file each line is one, an object whose "text" is its text: {"text": "Once upon a time"}`,
  positional: {
    name: "SOURCE",
    help: "tinyshakespeare, plays, or a .txt or .jsonl file of your own",
    required: true,
  },
  options: [
    {
      name: "from",
      group: "Source",
      kind: "text",
      value: "FILE",
      help: "a local copy instead of a download (tinyshakespeare)",
    },
    {
      name: "val-fraction",
      group: "Source",
      kind: "float",
      value: "X",
      min: 0,
      max: 1,
      open: "max",
      help: `part of your own text that is kept for validation (${VAL_FRACTION})`,
    },
    { name: "seed", group: "Source", ...int(0, 2 ** 32 - 1), help: "of the plays (1)" },
    {
      name: "out-dir",
      group: "Output",
      kind: "text",
      value: "FOLDER",
      help: `folder (${OUT_DIR})`,
    },
  ],
  examples: ["llm data tinyshakespeare", "llm data plays", "llm data my.txt --val-fraction 0.05"],
}

async function run(options: Options): Promise<number> {
  await data({
    source: options.text("source")!,
    from: options.text("from"),
    valFraction: options.optionalNumber("val-fraction"),
    outDir: options.text("out-dir"),
    seed: options.optionalNumber("seed"),
  })
  return 0
}

export const command: Command = { spec, run }
