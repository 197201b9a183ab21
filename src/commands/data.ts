// llm data SOURCE: makes token files.

import { join } from "node:path"
import { checkFolder, makeFolder } from "../data/files.ts"
import { ENDINGS, isText } from "../data/inputs.ts"
import type { Out } from "../data/progress.ts"
import { type DataOptions, FIELD, ownTexts, SOURCES, VAL_FRACTION } from "../data/sources.ts"
import { UserError } from "../errors.ts"
import type { Command } from "../main.ts"
import { nearest } from "../nearest.ts"
import type { CommandSpec, Options } from "../options.ts"
import { int } from "./specs.ts"

export type { DataOptions } from "../data/sources.ts"

/** Where tests look: another server, and results and progress in memory. */
export type DataSurroundings = { url?: string; stdout?: Out; stderr?: Out }

const OUT_DIR = "data"
const SIZES = ["10B", "100B"] as const
const OWN = "your own text"
const FINEWEB = ["fineweb", "fineweb-edu"]

/** The sources that an option goes with. */
const GOES_WITH: Record<string, readonly string[]> = {
  from: Object.keys(SOURCES).filter((name) => !["plays", "tokenizer"].includes(name)),
  seed: ["plays"],
  size: FINEWEB,
  "shard-tokens": [...FINEWEB, OWN],
  "val-fraction": [OWN],
  field: [OWN],
  name: [OWN],
}

export async function data(options: DataOptions, around: DataSurroundings = {}): Promise<void> {
  const { stdout = process.stdout, stderr = process.stderr, url } = around
  check(options)
  const [source = ""] = options.sources
  const { outDir = folderFor(options) } = options
  checkFolder("--out-dir", outDir)
  const remove = makeFolder("--out-dir", outDir)
  try {
    const make = SOURCES[source] ?? ownTexts
    const { lines, next } = await make(options, outDir, { stderr, url })
    for (const line of lines) stdout.write(`${line}\n`)
    stdout.write(`next: ${next}\n`)
  } catch (error) {
    remove()
    throw error
  }
}

/** llm.c's folders: FineWeb's samples have files of the same names. */
function folderFor({ sources: [source = ""], size = SIZES[0] }: DataOptions): string {
  if (!FINEWEB.includes(source)) return OUT_DIR
  return join(OUT_DIR, `${source === "fineweb" ? "" : "edu_"}fineweb${size}`)
}

function check(options: DataOptions): void {
  const { sources, from, field, valFraction, size, shardTokens, name, seed } = options
  const [source = ""] = sources
  const named = sources.find((one) => Object.hasOwn(SOURCES, one))
  if (named !== undefined && sources.length > 1) {
    const other = sources.find((one) => one !== named) ?? named
    throw new UserError(`llm data ${named} takes no other source, but got ${other} (leave it out)`)
  }
  const unknown = sources.find((one) => one !== named && !isText(one))
  if (unknown !== undefined) {
    const names = Object.keys(SOURCES)
    const near = nearest(unknown, names)
    const others = `try ${names.join(", ")}, a folder, or a path that ends in ${ENDINGS}`
    const hint = near === undefined ? others : `did you mean ${near}?`
    throw new UserError(`llm data ${unknown}: no such source (${hint})`)
  }
  const given = {
    from,
    seed,
    size,
    "shard-tokens": shardTokens,
    "val-fraction": valFraction,
    field,
    name,
  }
  for (const [option, value] of Object.entries(given)) {
    const allowed = GOES_WITH[option]!
    if (value === undefined || allowed.includes(named ?? OWN)) continue
    const list = new Intl.ListFormat("en-GB", { type: "disjunction" }).format(allowed)
    throw new UserError(`--${option} ${value} goes with ${list}, not with ${source} (leave it out)`)
  }
  if (valFraction !== undefined && !(valFraction >= 0 && valFraction < 1)) {
    throw new UserError(`--val-fraction ${valFraction} is not in [0, 1) (try 0.1)`)
  }
  if (seed !== undefined && !(Number.isSafeInteger(seed) && seed >= 0)) {
    throw new UserError(`--seed ${seed} is not a whole number from 0 (try 1)`)
  }
  if (name !== undefined && !/^[^/\0]+$/.test(name)) {
    throw new UserError(`--name ${name} is no part of a file's name (try corpus)`)
  }
}

const spec: CommandSpec = {
  name: "data",
  summary: `Makes token files: data/NAME_train.bin and data/NAME_val.bin. Of your own text, a .txt file is one
document; of a .jsonl file each line is one, of a .json file each element of its array, an object
whose "text" is its text: {"text": "Once upon a time"}; of a .parquet file each row.`,
  positional: {
    name: "SOURCE",
    help: `${Object.keys(SOURCES).join(", ")}; or your own text: folders, and files that end in ${ENDINGS}`,
    required: true,
    many: true,
  },
  options: [
    {
      name: "from",
      group: "Source",
      kind: "text",
      value: "PATH",
      help: "a local copy instead of a download (of plays and the tokenizer there is none)",
    },
    {
      name: "size",
      group: "Source",
      kind: "text",
      value: "N",
      choices: SIZES,
      help: `tokens of FineWeb's sample, ${SIZES.join(" or ")} (${SIZES[0]})`,
    },
    {
      name: "field",
      group: "Source",
      kind: "text",
      value: "NAME",
      help: `what holds the text of an object or a row of your own (${FIELD})`,
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
      help: `folder (${OUT_DIR}; FineWeb's ${OUT_DIR}/fineweb10B and so on)`,
    },
    {
      name: "name",
      group: "Output",
      kind: "text",
      value: "NAME",
      help: "what the files of your own text are called (as the first path)",
    },
    {
      name: "shard-tokens",
      group: "Output",
      ...int(1),
      help: "tokens of a file, several where there are more (FineWeb's 100000000; else one file)",
    },
  ],
  examples: [
    "llm data tinyshakespeare",
    "llm data my.txt --val-fraction 0.05",
    "llm data books/ notes.jsonl.gz --name library",
    "llm data fineweb-edu --size 10B",
  ],
}

async function run(options: Options): Promise<number> {
  await data({
    sources: options.positionals(),
    from: options.text("from"),
    size: options.text("size") as DataOptions["size"],
    field: options.text("field"),
    valFraction: options.optionalNumber("val-fraction"),
    seed: options.optionalNumber("seed"),
    outDir: options.text("out-dir"),
    name: options.text("name"),
    shardTokens: options.optionalNumber("shard-tokens"),
  })
  return 0
}

export const command: Command = { spec, run }
