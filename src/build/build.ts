// `bun run build`: one executable, ./llm, that holds everything.

import { spawnSync } from "node:child_process"
import { mkdirSync, readdirSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { CORPUS_FILE, CORPUS_SEED, makeCorpus, packCorpus } from "../data/corpus.ts"
import { UserError } from "../errors.ts"
import { NATIVE_BUILD_DIR } from "../native/assets.ts"
import { CUDA_FILE } from "../native/library.ts"
import { buildCuda } from "./cuda.ts"
import { buildNative } from "./native.ts"

process.chdir(join(import.meta.dir, "..", ".."))
const { warning } = await buildNative((line) => console.error(line))
if (warning) console.error(`warning: ${warning}`)
const { missing } = await buildCuda((line) => console.error(line)).catch((error) => {
  if (!(error instanceof UserError)) throw error
  console.error(error.message)
  process.exit(2)
})
if (missing) console.error(`without kernels for a GPU: ${missing}`)

const reference = readdirSync("c/reference").map((name) => join("c/reference", name))
const libraries = warning
  ? []
  : readdirSync(NATIVE_BUILD_DIR)
      .filter((name) => /\.so(\.\d+)?$/.test(name))
      .filter((name) => !missing || name !== CUDA_FILE) // which may be of other sources
const corpus = join("build", CORPUS_FILE)
mkdirSync("build", { recursive: true })
writeFileSync(corpus, packCorpus(await makeCorpus(CORPUS_SEED)))
const assets = ["c/llm.h", ...reference, corpus].concat(
  libraries.map((name) => join(NATIVE_BUILD_DIR, name)),
)

// A worker's file is an entry point of its own, so that it exists inside the executable.
const workers = ["src/data/tokenize-worker.ts", "src/train/writer-worker.ts"]
const entries = ["src/main.ts", ...workers]
const asFiles = [".h", ".c", ".so", ".1", ".bin"].map((extension) => `--loader=${extension}:file`)
// Start-up: a command loads its own chunks only, as bytecode, so that nothing is parsed. Settings of
// the folder where the program happens to be run are none of its business.
const forStart = ["--splitting", "--bytecode", "--format=esm"].concat(
  ["dotenv", "bunfig"].map((name) => `--no-compile-autoload-${name}`),
)
const { status } = spawnSync(
  process.execPath,
  ["build", "--compile", "--minify-syntax", "--asset-naming=[name].[ext]", ...forStart].concat(
    asFiles,
    "--outfile=llm",
    ...entries,
    ...assets,
  ),
  { stdio: ["ignore", "ignore", "inherit"] },
)
if (status !== 0) throw new Error("bun build failed")
console.error("built ./llm")
