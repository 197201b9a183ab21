// Mistakes that a user can make: arguments → what the one line says.

import { existsSync } from "node:fs"
import { command as convert } from "../../src/commands/convert.ts"
import { command as data } from "../../src/commands/data.ts"
import { command as emit } from "../../src/commands/emit.ts"
import { command as evaluate } from "../../src/commands/eval.ts"
import { command as info } from "../../src/commands/info.ts"
import { command as plan } from "../../src/commands/plan.ts"
import { command as sample } from "../../src/commands/sample.ts"
import { command as train } from "../../src/commands/train.ts"
import { BF16_INSTRUCTIONS } from "../../src/native/device.ts"
import { BF16_LIBRARIES, bestCpuLibrary } from "../../src/native/library.ts"

export type Row = [args: string, message: string | RegExp]

/** Where there is a GPU, that is no mistake. */
const withoutGpu = (args: string): Row[] =>
  existsSync("/dev/nvidiactl") ? [] : [[args, "--device cuda: no NVIDIA GPU: there is no"]]

// ---- rows from the option tables ----

export function optionRows(): Row[] {
  return [convert, data, emit, evaluate, info, plan, sample, train].flatMap(({ spec }): Row[] => {
    const { name, options, positional, second } = spec
    const first = `${name}${positional?.required ? " x" : ""}${second ? " y" : ""}`
    const rows: Row[] = [
      [`${first} --no-such-option`, /has no option --no-such-option \(/],
      [`${first} -zz`, /has no option -zz \(/],
    ]
    if (positional?.required) rows.push([name, `llm ${name} needs ${positional.name}: `])
    if (second) rows.push([`${name} a`, `llm ${name} needs ${second.name}: `])
    if (second) rows.push([`${name} a b c`, ` and ${second.name}, but then got c`])
    else if (!positional) rows.push([`${name} a`, / takes no argument, but got a/])
    else if (!positional.many) rows.push([`${name} a b`, / takes one /])
    for (const option of options) {
      const flag = `--${option.name}`
      if (option.kind === "flag") {
        rows.push([`${first} ${flag} ${flag}`, `${flag} is given twice`])
        rows.push([`${first} ${flag}=yes`, `${flag} takes no value, but got yes`])
        continue
      }
      rows.push([`${first} ${flag}`, `${flag} needs a value: ${flag} ${option.value}`])
      rows.push([
        `${first} --${option.name.slice(0, -1)}q 1`,
        /has no option .*(did you mean|see llm)/,
      ])
      if (option.kind === "text") {
        if (option.choices)
          rows.push([`${first} ${flag} nothing`, `${flag} nothing is not one of `])
        rows.push([`${first} ${flag}=`, `${flag} is empty`])
        continue
      }
      const what = option.kind === "int" ? "a whole number" : "a number"
      for (const value of ["abc", "NaN", "1e999", "0x10", "1,5"]) {
        rows.push([`${first} ${flag} ${value}`, `${flag} ${value} is not ${what}`])
      }
      if (option.kind === "int") rows.push([`${first} ${flag} 1.5`, `${flag} 1.5 is not ${what}`])
      rows.push([`${first} ${flag} ${option.min - 1}`, `${flag} ${option.min - 1} is not ${what}`])
      if (option.open === "min")
        rows.push([`${first} ${flag} ${option.min}`, `is not ${what} above`])
      const { max } = option
      if (max === undefined) continue
      rows.push([`${first} ${flag} ${max + 1}`, `${flag} ${max + 1} is not ${what}`])
      if (option.open === "max")
        rows.push([`${first} ${flag} ${max}`, `${flag} ${max} is not ${what}`])
    }
    return rows
  })
}

// ---- rows by hand ----

export const COMMANDS: Row[] = [
  ["trian", "no command trian (did you mean train?)"],
  ["--what", "no command --what"],
  ["train a.bin b.bin", "llm train takes one TOKENS, but got a.bin and b.bin (quote a glob)"],
  ["sample a To be", "llm sample takes one CHECKPOINT, but got a and To (see llm sample --help)"],
]

const EVAL = "eval model.bin --val toks_low.bin --batch 1"

// Only on a CPU that lacks the instructions; there is nothing to refuse on others.
export const hasBf16 = BF16_LIBRARIES.includes((await bestCpuLibrary()) ?? "reference")
export const MISSING_INSTRUCTIONS: Row[] = ["train", "sample model.bin", EVAL].map((command) => [
  `${command} --precision bf16`,
  `--precision bf16: this CPU has no instructions for it, ${BF16_INSTRUCTIONS} (try --precision fp32, or --device reference, which is slow)`,
])

export const CONTRADICTIONS: Row[] = [
  ["train --heads 7 --channels 768", "--heads 7 does not divide --channels 768 (try 6, 8 or 12)"],
  ["train --init model.bin --layers 3 toks.bin", "--layers 3 contradicts --init model.bin"],
  ["train --val toks.bin", "--val toks.bin needs TOKENS"],
  [
    "train --context 65 --context-max 64",
    "--context 65 is above the model's longest context of 64",
  ],
  ["train --init gpt2:d6 --context 2000", "longest context of 1024"],
  ["train --total-batch 100", "not a multiple of --batch 4 × --context 64 = 256 tokens (try 256)"],
  ["train --total-batch 600", "(try 512 or 768)"],
  ["train --steps 10 --warmup 11", "--warmup 11 is above the 10 steps"],
  ["train --device reference --threads 2", "--threads 2: the reference kernels use one"],
  ["train --master-weights 0", "--master-weights 0 contradicts --precision fp32"],
  ["train --precision fp8 --device cpu", "--precision fp8: a CPU cannot multiply in eight bits"],
  [
    "train --precision fp8 --device reference --master-weights 0",
    "--master-weights 0 contradicts --precision fp8",
  ],
  ["plan --precision fp8 --device cpu", "(try --device cuda, which need not be there)"],
  ["plan --precision fp8 --gelu-fusion 1", "--gelu-fusion 1 contradicts --precision fp8"],
  ["train --stochastic-rounding", "--stochastic-rounding contradicts --precision fp32"],
  ["plan --classifier-rows 100", "--classifier-rows 100 is not a multiple of 384 (try 384, or"],
  ["train --threads 1024", /--threads 1024 is far above the \d+ cores .*\(try --threads \d+\)/],
  ["train --device cpu --tf32 1", "--tf32 1: only a GPU has TF32 (try --tf32 0)"],
  ["train --device cpu -lg 5", "--log-device 5 needs a GPU (leave it out on a CPU)"],
  ["train --resume", "--resume needs --out FOLDER"],
  ["train --checkpoint-every 10", "--checkpoint-every needs --out FOLDER"],
  ["train -nk 2", "--keep needs --out FOLDER"],
  ...withoutGpu("train --device cuda"),
  ["train --vocab 97", "--vocab 97 is below 50257"],
  ["train --init gpt2:d13", "--init gpt2:d13 is no preset (there are gpt2:d6, "],
  ["train --init gpt3:c1", "--init gpt3:c1 is no preset"],
  ["train --init nothing", "--init nothing: no such file and no preset"],
  ["train --batch 300000", "tokens are too few for one batch of 300000×64"],
  ["plan --batch 1000000 --context 1000000 --context-max 1000000", "are above 2147483647"],
  [
    "train --channels 65536 --heads 64",
    /needs [\d.]+ GB of memory, and this machine has [\d.]+ GB \(try --recompute block, a smaller --batch, /,
  ],
  ["train --channels 65536 --heads 64 --recompute block", "GB (try a smaller --batch, "],
  ["plan --recompute blocks", "blocks is not one of 0, 1, 2, block (did you mean block?)"],
  [
    "train --hellaswag",
    "--hellaswag: there is neither data/hellaswag_val.bin nor dev/data/hellaswag/hellaswag_val.bin (name",
  ],
  ["train -h 1", "--hellaswag: there is neither"],
  ["train --hellaswag-file choices.bin", "--hellaswag-file choices.bin goes with --hellaswag"],
  ["train -h 0 --hellaswag-file choices.bin", "--hellaswag-file choices.bin goes with --hellaswag"],
  ["train -h 1 --val-every 0", "--hellaswag contradicts --val-every 0"],
  [`${EVAL} --context 9`, "--context 9 is above the model's longest context of 8 (try"],
  ["eval model.bin --batch 1000000000", "--batch 1000000000 is not a whole number"],
  ["eval model.bin", "model.bin: its vocabulary of 13 is below 50257, the built-in corpus's"],
  ["eval model.bin --val-batches 3 --hellaswag choices.bin", "--val-batches 3 goes with --val"],
  ...withoutGpu(`${EVAL} --device cuda`),
  [`${EVAL} --classifier-rows 100`, "--classifier-rows 100 is not a multiple of 384"],
  ["data plays --from x", "--from x goes with tinyshakespeare"],
  ["data plays --val-fraction 0.5", "--val-fraction 0.5 goes with your own text"],
  ["data text.txt --seed 3", "--seed 3 goes with plays"],
  ["data plays --field x", "--field x goes with your own text, not with plays"],
  [
    "data plays --shard-tokens 9",
    "--shard-tokens 9 goes with fineweb, fineweb-edu or your own text",
  ],
  ["data text.txt --size 10B", "--size 10B goes with fineweb or fineweb-edu, not with text.txt"],
  ["data text.txt --from x", "--from x goes with tinyshakespeare"],
  ["data fineweb --name x", "--name x goes with your own text, not with fineweb"],
  ["data text.txt --name a/b", "--name a/b is no part of a file's name"],
  ["data nothing", "llm data nothing: no such source"],
  ["data text.txt nothing", "llm data nothing: no such source"],
  ["data text.gz", "llm data text.gz: no such source"],
  ["data plays text.txt", "llm data plays takes no other source, but got text.txt"],
  ["data text.txt plays", "llm data plays takes no other source, but got text.txt"],
  ["convert model.bin x.bin --type f16", "--type f16: llm.c's model file has none (try fp32 or"],
  [
    "convert model.bin x.pt",
    "x.pt: no format has names in .pt (try NAME.bin, NAME.gguf, or a folder as NAME/)",
  ],
  ["convert model.bin toks.bin", "toks.bin: it is there already (choose another name, or --force)"],
  ["convert model.bin old", "old: it is there already"],
  ["train --init hub --layers 3", "--layers 3 contradicts --init hub, whose weights fix the"],
]

// Where the hub is not there, and nothing in its cache.
export const NO_HUB: Row[] = [
  ["sample gpt2", "openai-community/gpt2: no such path, nothing in "],
  ["eval distilgpt2", "distilbert/distilgpt2: no such path, nothing in "],
  [
    "train --init some-one/model",
    /some-one\/model: no such path, .* cannot be reached \(give a path/,
  ],
  ["convert some-one/model x.bin", "some-one/model: no such path, nothing in "],
  ["sample old/model", "old/model: cannot read: no such file or folder"],
]

export const FILES: Row[] = [
  ["train missing.bin", "missing.bin: cannot read: no such file or folder"],
  ["train no*.bin", "no*.bin: no file matches"],
  ["train .", ".: it is a folder"],
  ["train empty.bin", "empty.bin: the file is empty"],
  [
    "train toks_short.bin",
    "toks_short.bin: 1,062 bytes, but its header promises 20 tokens (1,064 bytes)",
  ],
  [
    "train toks_long.bin",
    "toks_long.bin: 1,066 bytes, but its header promises 20 tokens (1,064 bytes)",
  ],
  ["train toks_version.bin", "toks_version.bin: version 2"],
  ["train toks_head.bin", "toks_head.bin: 500 bytes"],
  ["train model.bin", /^llm: model\.bin: /],
  ["train toks.bin --batch 1 --context 8 --vocab 10", /toks\.bin: token .*10/],
  ["train toks{,_high}.bin --batch 1 --context 8 --vocab 30", /toks_high\.bin: token .*30/],
  ["train toks.bin", "toks.bin: 20 tokens are too few for one batch of 4×64, which reads 257"],
  ["train toks.bin --batch 1 --context 8 --val missing.bin", "missing.bin: cannot read"],
  ["train toks.bin --batch 1 --context 8 --val toks_long.bin", "toks_long.bin: 1,066 bytes"],
  ...["empty", "toks_short", "toks_version", "toks_head"].map((name): Row => {
    return [`train toks.bin --batch 1 --context 8 --val ${name}.bin`, `${name}.bin: `]
  }),
  ["train toks.bin --batch 1 --context 8 --val .", ".: it is a folder"],
  [
    "train toks.bin --batch 1 --context 8 --vocab 30 --val toks_high.bin",
    /toks_high\.bin: token .*30/,
  ],
  ["train --init toks.bin", /toks\.bin: .*token file/],
  ["train --init .", ".: it is a folder"],
  ["train --init empty.bin", "empty.bin: 0 bytes"],
  ["train --init model_short.bin", "model_short.bin: "],
  ["train --init model_long.bin", "model_long.bin: "],
  ["train --init model_magic.bin", "model_magic.bin: "],
  ["train --init model_version.bin", "model_version.bin: version 9"],
  [
    "train --init model_heads.bin",
    "model_heads.bin: its header's 3 heads do not divide its 8 channels",
  ],
  ["train --init hub_config", 'hub_config/config.json: model_type is "bert", not "gpt2"'],
  [
    "train --init hub_shape",
    "transformer.wte.weight is (97, 16), but config.json makes it (50257, 768)",
  ],
  ["sample hub_cut", "hub_cut/model.safetensors: 35,647 bytes, but its header promises 35,648"],
  ["eval hub_none", "hub_none: it has neither model.safetensors nor model.safetensors.index.json"],
  ["convert hub_index x.bin", 'hub_index/model.safetensors.index.json: the file of a, "../x"'],
  ["convert missing.bin x.bin", "missing.bin: cannot read: no such file or folder"],
  ["convert model_short.bin x.bin", "model_short.bin: "],
  ["convert toks.bin x/", /toks\.bin: .*token file/],
  [
    "convert alone.safetensors x/",
    "alone.safetensors: no config.json lies with it, which says what the model is (copy",
  ],
  ["sample missing.bin", "missing.bin: cannot read"],
  ["sample toks.bin", /toks\.bin: .*token file/],
  ["sample .", ".: it is a folder without a checkpoint"],
  ["sample old", "old: it is a folder without a checkpoint"],
  ["sample empty.bin", "empty.bin: 0 bytes"],
  ["sample model_short.bin", "model_short.bin: "],
  ["sample model_long.bin", "model_long.bin: "],
  ["sample model_magic.bin", "model_magic.bin: not a GPT-2 model: it starts with 7"],
  ["sample model_version.bin", "model_version.bin: version 9"],
  ["sample model_heads.bin", "model_heads.bin: its header's 3 heads do not divide"],
  ["sample model.bin --prompt hello", "is outside the model's vocabulary of 13"],
  ["sample model.bin --file no.txt", "--file no.txt: cannot read: no such file or folder (give a"],
  ["sample model.bin --file .", "--file .: cannot read: it is a folder (give a text file)"],
  ["sample model.bin --file toks.bin", "--file toks.bin: not UTF-8 (give a text file)"],
  ["sample model.bin --file empty.bin", "--file empty.bin is empty (leave it out"],
  ["sample model.bin --file empty.bin --prompt a", "--file contradicts --prompt (leave one out)"],
  ["sample model.bin --samples 2 --interactive", "--samples 2 contradicts --interactive"],
  ["sample model.bin --logprobs .", "--logprobs .: it is there already (choose another name)"],
  ["sample model.bin --logprobs model.bin", "--logprobs model.bin: it is there already"],
  ["sample model.bin --logprobs empty.bin/new", "--logprobs empty.bin: cannot make the folder: "],
  ["sample model.bin --context 9", "--context 9 is above the model's longest context of 8"],
  ["eval missing.bin", "missing.bin: cannot read"],
  ["eval toks.bin", /toks\.bin: .*token file/],
  ["eval old", "old: it is a folder without a checkpoint"],
  ["eval model_short.bin", "model_short.bin: "],
  ["eval model_heads.bin", "model_heads.bin: its header's 3 heads do not divide"],
  ["eval model.bin --val missing.bin", "missing.bin: cannot read: no such file"],
  ["eval model.bin --val no*.bin", "no*.bin: no file matches"],
  ["eval model.bin --val toks_short.bin", "toks_short.bin: 1,062 bytes"],
  [
    "eval model.bin --val toks.bin --batch 3",
    "toks.bin: 20 tokens are too few for one batch of 3×8",
  ],
  ["eval model.bin --val toks_high.bin --batch 1", /toks_high\.bin: token .*13/],
  ["eval model.bin --hellaswag missing.bin", "missing.bin: cannot read: no such file"],
  ["eval model.bin --hellaswag .", ".: it is a folder"],
  [
    "eval model.bin --hellaswag toks.bin",
    "toks.bin: not a multiple-choice evaluation: a GPT-2 token",
  ],
  ["eval model.bin --hellaswag choices_cut.bin", "choices_cut.bin: example 1: "],
  [
    "eval model.bin --hellaswag choices_high.bin",
    "token 13 in its completion 2, but the vocabulary",
  ],
  [
    "eval model.bin --hellaswag choices.bin --context 2",
    "choices.bin: example 1 has a completion of 3 tokens, above the context of 2 (try --context 3",
  ],
  [
    "train toks.bin --vocab 97 --batch 1 --context 2 --hellaswag --hellaswag-file choices.bin",
    "choices.bin: example 1 has a completion of 3 tokens, above the context of 2",
  ],
  ["train -h 1 --hellaswag-file missing.bin", "missing.bin: cannot read: no such file"],
  ["train -h 1 --out new --hellaswag-file choices_cut.bin", "choices_cut.bin: example 1: "],
  ["train --config missing.toml", "--config missing.toml: cannot read: no such file"],
  ["train --config broken.toml", "--config broken.toml: not TOML: "],
  [
    "train --config unknown.toml",
    "unknown.toml: bacth is no option of llm train (did you mean batch?)",
  ],
  ["train --config type.toml", "type.toml: batch must be a number, but is [1]"],
  ["train --config range.toml", "range.toml: batch 0 is not a whole number from 1"],
  ["train --config flag.toml", "flag.toml: shuffle must be true or false, but is 1"],
  ["data missing.txt", "missing.txt: cannot read"],
  ["data empty.txt", /empty\.txt: /],
  ["data invalid.txt", /invalid\.txt: .*byte 3/],
  ["data broken.jsonl", /broken\.jsonl: .*line 2/],
  ["data text.txt missing.txt", "missing.txt: cannot read"],
  ["data text.txt empty.txt", /empty\.txt: the file is empty/],
  ["data old", "old: no text lies in this folder"],
  ["data nofield.jsonl", /nofield\.jsonl: line 1 has no "text" .*--field NAME names another/],
  ["data nofield.jsonl --field title", 'nofield.jsonl: line 1 has no "title"'],
  ["data object.json", "object.json: not a JSON array at byte 0"],
  ["data text.parquet", "text.parquet: not a Parquet file"],
  ["data text.txt.gz", "text.txt.gz: not gzip, or cut short"],
  ["data text.txt.zst", "text.txt.zst: not Zstandard, or cut short"],
  ["data tinystories --from missing", "missing: cannot read"],
  ["data tinystories --from text.txt", "text.txt: the archive is cut short"],
  ["data tinystories --from old", "old: 0 .json files"],
  ["data fineweb --from missing.parquet", "missing.parquet: cannot read"],
  ["data fineweb-edu --from text.parquet", "text.parquet: not a Parquet file"],
  ["data fineweb --from text.txt", "--from text.txt: no .parquet file"],
  ["data hellaswag --from missing.jsonl", "missing.jsonl: cannot read"],
  ["data hellaswag --from nofield.jsonl", 'nofield.jsonl: line 1 has no "ctx"'],
  ["data tinyshakespeare --from text.txt", /text\.txt: /],
  ["data tinyshakespeare --from missing.txt", "missing.txt: cannot read"],
]

export const PLACES: Row[] = [
  [
    "train --out text.txt/run",
    "--out text.txt/run: cannot make the folder: a part of the path is not a folder",
  ],
  ["train --out text.txt", "--out text.txt: cannot make the folder"],
  ["train --out new --channels 65536 --heads 64", "of memory, and this machine has"],
  ["train --out new --init nothing", "--init nothing: no such file and no preset"],
  ["train --out new --config range.toml", "range.toml: batch 0"],
  ["train --out old", "--out old already holds a run"],
  ["convert model.bin no/x.bin", "no/x.bin: cannot write: no such file or folder"],
  ["convert model.bin text.txt/x", "TO text.txt/x: cannot make the folder: a part of the path"],
  ["data plays --out-dir text.txt/x", /text\.txt\/x/],
  ["data plays --out-dir /proc/x", /\/proc\/x/],
]
