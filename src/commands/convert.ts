// llm convert FROM TO

import { existsSync, readdirSync, realpathSync, statSync } from "node:fs"
import { basename, dirname, extname } from "node:path"
import { thousands } from "../data/files.ts"
import { Progress } from "../data/progress.ts"
import { UserError } from "../errors.ts"
import { countParameters } from "../formats/model.ts"
import type { Command } from "../main.ts"
import { GPT2_VOCABULARY } from "../model/config.ts"
import { describeConfig } from "../model/program.ts"
import type { CommandSpec, Options } from "../options.ts"
import { completeSteps } from "../train/checkpoint.ts"
import { writeBin } from "../weights/bin.ts"
import { writeGguf } from "../weights/gguf-write.ts"
import { countRounded, typeName } from "../weights/numbers.ts"
import { openModel } from "../weights/open.ts"
import type { NumberType, WeightSource } from "../weights/source.ts"
import { writeHub } from "../weights/write-hub.ts"
import { CHECKPOINT_HELP } from "./specs.ts"

const TYPES = { fp32: "f32", bf16: "bf16", f16: "f16", q8_0: "q8_0" } as const
type TypeName = keyof typeof TYPES

const spec: CommandSpec = {
  name: "convert",
  summary: "Turns a model into another format, a number as it is where the new type holds it.",
  positional: { name: "FROM", help: CHECKPOINT_HELP, required: true },
  second: {
    name: "TO",
    help: "NAME.bin: llm.c's model file; NAME.gguf: llama.cpp's; a folder, NAME/: Hugging Face's",
    required: true,
  },
  options: [
    {
      name: "type",
      group: "Output",
      kind: "text",
      value: "NAME",
      choices: Object.keys(TYPES),
      help: "of the numbers: fp32, bf16, f16, q8_0 (FROM's, or fp32 where TO cannot have it)",
    },
    { name: "force", group: "Output", kind: "flag", help: "write over what is there" },
  ],
  examples: [
    "llm convert runs/first first/",
    "llm convert gpt2 gpt2_124M.bin",
    "llm convert first/ first.bin --type bf16",
    "llm convert runs/first first.gguf --type q8_0",
  ],
}

/** A format that can be written. */
interface Target {
  name: string
  types: readonly TypeName[]
  /** Returns the paths of what it wrote. */
  write(path: string, source: WeightSource, type: TypeName): Promise<string[]>
}

const BIN: Target = {
  name: "llm.c's model file",
  types: ["fp32", "bf16"],
  write: async (path, source, type) => {
    writeBin(path, source, TYPES[type as "fp32" | "bf16"])
    return [path]
  },
}
const HUB: Target = {
  name: "a Hugging Face folder",
  types: ["fp32", "bf16", "f16"],
  write: (path, source, type) => writeHub(path, source, TYPES[type as Exclude<TypeName, "q8_0">]),
}
const GGUF: Target = {
  name: "a GGUF file",
  types: ["fp32", "bf16", "f16", "q8_0"],
  write: async (path, source, type) => {
    await writeGguf(path, source, TYPES[type])
    return [path]
  },
}

function chooseTarget(path: string): Target {
  const isFolder = path.endsWith("/") || (existsSync(path) && statSync(path).isDirectory())
  const extension = extname(basename(path))
  if (isFolder || extension === "") return HUB
  if (extension === ".bin") return BIN
  if (extension === ".gguf") return GGUF
  throw new UserError(
    `${path}: no format has names in ${extension} (try NAME.bin, NAME.gguf, or a folder as NAME/)`,
  )
}

function chooseType(options: Options, { name, types }: Target, from: NumberType): TypeName {
  const given = options.text("type") as TypeName | undefined
  if (given !== undefined && !types.includes(given)) {
    throw new UserError(`--type ${given}: ${name} has none (try ${types.join(" or ")})`)
  }
  return given ?? types.find((type) => TYPES[type] === from) ?? "fp32"
}

async function run(options: Options): Promise<number> {
  const to = options.text("to")!
  const target = chooseTarget(to)
  checkFree(to, options.flag("force"))
  const from = options.text("from")!
  const source = await openModel(from)
  try {
    if (target === HUB) checkOther(to, [from, source.path, dirname(source.path)])
    const type = chooseType(options, target, source.type)
    const { config, path } = source
    // GGUF keeps vectors in fp32 beside matrices of any type; the other formats have one type for all.
    const isNarrowed = target !== GGUF && type !== "fp32" && TYPES[type] === source.type
    let rounded = 0
    const counted = watched(source, (numbers) => {
      if (isNarrowed) rounded += countRounded(numbers, TYPES[type])
    })
    const written = await withProgress(counted, (source) => target.write(to, source, type))
    const rows = [
      ["read", path, typeName(source.type), describeConfig(config)],
      ...written.map((file) => [
        "wrote",
        file,
        /\.(bin|gguf|safetensors)$/.test(file) ? type : "",
        `${thousands(statSync(file).size)} bytes`,
      ]),
    ]
    const widths = [0, 1, 2].map((i) => Math.max(...rows.map((row) => row[i]!.length)))
    for (const row of rows) {
      const cells = row.map((cell, i) => cell.padEnd(widths[i] ?? 0))
      process.stdout.write(`${cells.join("  ").trimEnd()}\n`)
    }
    if (target !== BIN && config.V !== GPT2_VOCABULARY) {
      const V = thousands(config.V)
      process.stdout.write(`no tokenizer with it: a vocabulary of ${V} is not GPT-2's\n`)
    }
    if (rounded > 0) {
      const wider = `${thousands(rounded)} numbers of fp32 tensors`
      process.stdout.write(`rounded to ${type}: ${wider} (--type fp32 keeps them as they are)\n`)
    }
    return 0
  } finally {
    source.close()
  }
}

/** The same source; `see` sees all that is read. */
function watched(source: WeightSource, see: (numbers: Float32Array) => void): WeightSource {
  return {
    path: source.path,
    config: source.config,
    type: source.type,
    typeOf: (name) => source.typeOf(name),
    read(name, into, first) {
      source.read(name, into, first)
      see(into)
    },
    close: () => source.close(),
  }
}

/** On a terminal, shows how far the source has been read. */
async function withProgress<R>(
  source: WeightSource,
  work: (source: WeightSource) => Promise<R>,
): Promise<R> {
  if (!process.stderr.isTTY) return work(source)
  const progress = new Progress(`converting ${source.path}`, process.stderr)
  const total = 4 * countParameters(source.config) // bytes of f32
  let done = 0
  const shown = watched(source, ({ byteLength }) => {
    done += byteLength
    progress.update(done, total)
  })
  try {
    return await work(shown)
  } finally {
    progress.clear()
  }
}

function checkFree(to: string, isForced: boolean): void {
  if (isForced || !existsSync(to)) return
  if (!statSync(to).isDirectory() || readdirSync(to).length > 0) {
    throw new UserError(`${to}: it is there already (choose another name, or --force)`)
  }
}

/** A folder of several files cannot be written over and be read at once; and a run's checkpoints are
 * what its folder is read as, whatever else is put there. */
function checkOther(to: string, from: string[]): void {
  if (existsSync(to) && completeSteps(to).length > 0) {
    throw new UserError(`${to}: it is a run folder (choose another folder)`)
  }
  const places = [to, ...from].filter(existsSync).map((path) => realpathSync(path))
  if (!existsSync(to) || !places.slice(1).includes(places[0]!)) return
  throw new UserError(`${to}: the model is read from there (choose another folder)`)
}

export const command: Command = { spec, run }
