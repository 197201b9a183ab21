// The argument lists of llm.c's published run scripts and examples, as data: what each of them says,
// to the last option, with only the program's name changed. The scripts are made for 8 ranks or more;
// on one rank the accumulation makes up the difference, so the same tokens make a step.

import { describe, expect, test } from "bun:test"
import { TRAIN } from "../../src/commands/train-spec.ts"
import { type Options, parseOptions, type Value } from "../../src/options.ts"
import { chooseModel, chooseShape } from "../../src/train/settings.ts"

/** llm.c's letters for the options that its scripts give. */
const LETTERS: Record<string, string> = {
  i: "tokens",
  j: "val",
  e: "init",
  o: "out",
  n: "checkpoint-every",
  nk: "keep",
  nm: "keep-every",
  y: "resume",
  b: "batch",
  t: "context",
  d: "total-batch",
  x: "steps",
  k: "schedule",
  l: "lr",
  u: "warmup",
  q: "final-lr-frac",
  c: "weight-decay",
  sl: "skip-loss-z",
  sg: "skip-grad-z",
  v: "val-every",
  m: "val-batches",
  s: "sample-every",
  g: "sample-tokens",
  h: "hellaswag",
  a: "overfit-batch",
  f: "tf32",
  ge: "gelu-fusion",
  r: "recompute",
  z: "zero",
}

const D12 = { L: 12, NH: 12, C: 768, maxT: 1024 }
const D24 = { L: 24, NH: 16, C: 1024, maxT: 1024 }
const D36 = { L: 36, NH: 20, C: 1280, maxT: 1024 }
const D48 = { L: 48, NH: 25, C: 1600, maxT: 1024 }
const GPT3 = { L: 12, NH: 12, C: 768, maxT: 2048 }

type Script = {
  args: string
  says: Record<string, Value>
  /** The model that -e names; absent where the file is not there to read. */
  model?: Omit<Awaited<ReturnType<typeof chooseModel>>["config"], "V" | "Vp">
  /** Micro-steps on one rank. */
  accumulation: number
}

/** What the scripts that reproduce GPT-2 on FineWeb share. */
const fineweb = (set: string, prefix = "") => ({
  tokens: `dev/data/${prefix}${set}/${prefix}fineweb_train_*.bin`,
  val: `dev/data/${prefix}${set}/${prefix}fineweb_val_*.bin`,
  "val-every": 250,
  "sample-tokens": 144,
  hellaswag: true,
  context: 1024,
  "total-batch": 524288,
  recompute: "0",
  zero: 1,
  "weight-decay": 0.1,
  "final-lr-frac": 0,
  warmup: 700,
  resume: true,
})

const SCRIPTS: Record<string, Script> = {
  "scripts/run_gpt2_124M.sh": {
    args: `-i "dev/data/fineweb10B/fineweb_train_*.bin" -j "dev/data/fineweb10B/fineweb_val_*.bin"
      -o log_gpt2_124M -v 250 -s 20000 -g 144 -h 1 -b 64 -t 1024 -d 524288 -r 0 -z 1 -c 0.1
      -l 0.0006 -q 0.0 -u 700 -n 5000 -y 1 -e "d12"`,
    says: {
      ...fineweb("fineweb10B"),
      out: "log_gpt2_124M",
      "sample-every": 20000,
      batch: 64,
      lr: 0.0006,
      "checkpoint-every": 5000,
      init: "d12",
    },
    model: D12,
    accumulation: 8,
  },
  "scripts/run_gpt2_350M.sh": {
    args: `-i 'dev/data/fineweb100B/fineweb_train_*.bin' -j 'dev/data/fineweb100B/fineweb_val_*.bin'
      -o log_gpt2_350M -v 250 -s 100000 -g 144 -h 1 -b 64 -t 1024 -d 524288 -r 0 -z 1 -c 0.1
      -l 0.0003 -q 0.0 -u 700 -n 2000 -x 60000 -y 1 -e "d24"`,
    says: {
      ...fineweb("fineweb100B"),
      out: "log_gpt2_350M",
      "sample-every": 100000,
      batch: 64,
      lr: 0.0003,
      "checkpoint-every": 2000,
      steps: 60000,
      init: "d24",
    },
    model: D24,
    accumulation: 8,
  },
  "scripts/run_gpt2_774M.sh": {
    args: `-i "dev/data/fineweb100B/fineweb_train_*.bin" -j "dev/data/fineweb100B/fineweb_val_*.bin"
      -o log_gpt2_774M -v 250 -s 300000 -g 144 -h 1 -b 32 -t 1024 -d 524288 -r 0 -z 1 -c 0.1
      -l 0.00025 -q 0.0 -u 700 -n 4000 -x 286102 -y 1 -e "d36"`,
    says: {
      ...fineweb("fineweb100B"),
      out: "log_gpt2_774M",
      "sample-every": 300000,
      batch: 32,
      lr: 0.00025,
      "checkpoint-every": 4000,
      steps: 286102,
      init: "d36",
    },
    model: D36,
    accumulation: 16,
  },
  // Without the quote too many that stands behind its d48.
  "scripts/run_gpt2_1558M.sh": {
    args: `-i "dev/data/edu_fineweb100B/edu_fineweb_train_*.bin"
      -j "dev/data/edu_fineweb100B/edu_fineweb_val_*.bin" -o log_gpt2_1558M -v 250 -s 300000 -g 384
      -h 1 -b 16 -t 1024 -d 1048576 -r 0 -z 1 -c 0.1 -k "cosine" -l 0.0006 -q 0.1 -u 700 -n 2000
      -x 32000 -ge 1 -y 1 -e "d48"`,
    says: {
      ...fineweb("fineweb100B", "edu_"),
      out: "log_gpt2_1558M",
      "sample-every": 300000,
      "sample-tokens": 384,
      batch: 16,
      "total-batch": 1048576,
      schedule: "cosine",
      lr: 0.0006,
      "final-lr-frac": 0.1,
      "checkpoint-every": 2000,
      steps: 32000,
      "gelu-fusion": "1",
      init: "d48",
    },
    model: D48,
    accumulation: 64,
  },
  "scripts/run_gpt3_125M.sh": {
    args: `-i "dev/data/fineweb100B/fineweb_train_*.bin" -j "dev/data/fineweb100B/fineweb_val_*.bin"
      -o log_gpt3_125M -v 250 -s 20000 -g 144 -h 1 -b 32 -t 2048 -d 524288 -r 0 -z 1 -c 0.1
      -l 0.0006 -q 0.1 -u 700 -n 10000 -nk 5 -nm 50000 -ge 1 -sl 7.0 -sg 7.0 -y 1 -x 572204
      -e "gpt3:c768"`,
    says: {
      ...fineweb("fineweb100B"),
      out: "log_gpt3_125M",
      "sample-every": 20000,
      batch: 32,
      context: 2048,
      lr: 0.0006,
      "final-lr-frac": 0.1,
      "checkpoint-every": 10000,
      keep: 5,
      "keep-every": 50000,
      "gelu-fusion": "1",
      "skip-loss-z": 7,
      "skip-grad-z": 7,
      steps: 572204,
      init: "gpt3:c768",
    },
    model: GPT3,
    accumulation: 8,
  },
  // Made for 16 ranks; without -pi, which says how they meet.
  "scripts/multi_node/run_gpt2_124M_mpi.sh": {
    args: `-i "/ephemeral/data/fineweb/bin_10B/fineweb_train_*.bin"
      -j "/ephemeral/data/fineweb/bin_10B/fineweb_val_*.bin"
      -o /ephemeral/data/fineweb/log_gpt2_124M_multi -v 250 -s 20000 -g 144 -h 1 -b 64 -t 1024
      -d 2097152 -r 0 -z 1 -c 0.1 -l 0.0006 -q 0.1 -u 700 -n 1000 -y 0 -e d12`,
    says: {
      ...fineweb("fineweb10B"),
      tokens: "/ephemeral/data/fineweb/bin_10B/fineweb_train_*.bin",
      val: "/ephemeral/data/fineweb/bin_10B/fineweb_val_*.bin",
      out: "/ephemeral/data/fineweb/log_gpt2_124M_multi",
      "sample-every": 20000,
      batch: 64,
      "total-batch": 2097152,
      lr: 0.0006,
      "final-lr-frac": 0.1,
      "checkpoint-every": 1000,
      resume: false,
      init: "d12",
    },
    model: D12,
    accumulation: 32,
  },
  "run_gpt2_124M.sh where memory is short, as scripts/README.md advises": {
    args: `-i "dev/data/fineweb10B/fineweb_train_*.bin" -j "dev/data/fineweb10B/fineweb_val_*.bin"
      -o log124M -e "d12" -b 4 -t 1024 -d "524288" -r 1 -z 1 -c 0.1 -l 0.0006 -q 0.0 -u 700 -n 5000
      -v 250 -s 20000 -h 1`,
    says: {
      tokens: "dev/data/fineweb10B/fineweb_train_*.bin",
      val: "dev/data/fineweb10B/fineweb_val_*.bin",
      out: "log124M",
      init: "d12",
      batch: 4,
      context: 1024,
      "total-batch": 524288,
      recompute: "1",
      zero: 1,
      "weight-decay": 0.1,
      lr: 0.0006,
      "final-lr-frac": 0,
      warmup: 700,
      "checkpoint-every": 5000,
      "val-every": 250,
      "sample-every": 20000,
      hellaswag: true,
    },
    model: D12,
    accumulation: 128,
  },
  "train_gpt2.cu's comparison with train_gpt2.py": {
    args: "-b 4 -t 64 -l 1e-4 -v 200 -s 200 -a 1 -x 10 -f 0",
    says: {
      batch: 4,
      context: 64,
      lr: 1e-4,
      "val-every": 200,
      "sample-every": 200,
      "overfit-batch": true,
      steps: 10,
      tf32: "0",
    },
    accumulation: 1,
  },
  "train_gpt2.cu's larger batch": {
    args: "-b 8 -v 200 -s 200 -i data/TinyStories",
    says: { batch: 8, "val-every": 200, "sample-every": 200, tokens: "data/TinyStories" },
    accumulation: 1,
  },
  "the README's run on TinyStories": {
    args: `-i dev/data/tinystories/TinyStories_train.bin -j dev/data/tinystories/TinyStories_val.bin
      -v 250 -s 250 -g 144 -o stories.log -b 32`,
    says: {
      tokens: "dev/data/tinystories/TinyStories_train.bin",
      val: "dev/data/tinystories/TinyStories_val.bin",
      "val-every": 250,
      "sample-every": 250,
      "sample-tokens": 144,
      out: "stories.log",
      batch: 32,
    },
    accumulation: 1,
  },
  "the README's sweep of learning rates": {
    args: "-i data/TinyStories -v 250 -s 250 -g 144 -l 3e-5 -o stories0.log",
    says: {
      tokens: "data/TinyStories",
      "val-every": 250,
      "sample-every": 250,
      "sample-tokens": 144,
      lr: 3e-5,
      out: "stories0.log",
    },
    accumulation: 1,
  },
  "a short run on Tiny Shakespeare from released weights": {
    args: `-i "dev/data/tinyshakespeare/tiny_shakespeare_train.bin"
      -j "dev/data/tinyshakespeare/tiny_shakespeare_val.bin" -e "gpt2_124M_bf16.bin" -o log -b 4
      -t 128 -d 512 -l 0.0006 -q 0.1 -u 5 -x 20 -v 10 -m 10 -s 0`,
    says: {
      tokens: "dev/data/tinyshakespeare/tiny_shakespeare_train.bin",
      val: "dev/data/tinyshakespeare/tiny_shakespeare_val.bin",
      init: "gpt2_124M_bf16.bin",
      out: "log",
      batch: 4,
      context: 128,
      "total-batch": 512,
      lr: 0.0006,
      "final-lr-frac": 0.1,
      warmup: 5,
      steps: 20,
      "val-every": 10,
      "val-batches": 10,
      "sample-every": 0,
    },
    accumulation: 1,
  },
}

/** As a shell cuts it. */
const words = (args: string): string[] =>
  [...args.matchAll(/"([^"]*)"|'([^']*)'|(\S+)/g)].map(([, a, b, c]) => a ?? b ?? c!)

const parse = (args: string): Options => parseOptions(TRAIN, words(args))

/** The defaults of a run that is told nothing. */
const nothing = parseOptions(TRAIN, []).resolved()

describe.each(Object.entries(SCRIPTS))("%s", (_, { args, says, model, accumulation }) => {
  test("says with llm what it says with llm.c, and nothing else", () => {
    expect(parse(args).resolved()).toEqual({ ...nothing, ...says })
    for (const name of Object.keys(says)) {
      expect([name, parse(args).isGiven(name)]).toEqual([name, true])
    }
  })

  if (model) {
    test("names the same model", async () => {
      const { config, source } = await chooseModel(parse(args))
      expect(config).toEqual({ ...model, V: 50257, Vp: 50304 })
      expect(source).toBeUndefined()
    })
  }

  test("makes a step of the same tokens on one rank", () => {
    const { batch = 4, context = 64 } = says as Record<string, number>
    const totalBatch = (says["total-batch"] as number) ?? batch * context
    expect(chooseShape(parse(args), { ...D12, maxT: 2048, V: 50257, Vp: 50304 })).toEqual({
      B: batch,
      T: context,
      accumulation,
      totalBatch,
    })
  })
})

test("every letter of the scripts is the table's, in both directions", () => {
  const own = [TRAIN.positional!, ...TRAIN.options].flatMap(({ name, short }) =>
    short ? [[short, name.toLowerCase()]] : [],
  )
  for (const [short, name] of own) {
    if (short! in LETTERS) expect([short, LETTERS[short!]]).toEqual([short!, name])
  }
  const known = new Set(own.map(([short]) => short))
  for (const short of Object.keys(LETTERS)) expect(known).toContain(short)
})

test("a value of --zero means the same run for one rank, and there are four", () => {
  for (const stage of [0, 1, 2, 3]) {
    expect(parseOptions(TRAIN, ["-z", `${stage}`]).number("zero")).toBe(stage)
  }
  expect(() => parseOptions(TRAIN, ["--zero", "4"])).toThrow(
    "--zero 4 is not a whole number from 0 to 3",
  )
})
