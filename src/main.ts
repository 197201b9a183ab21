// Picks the command, prints one error line, sets the exit code.

import { constants } from "node:os"
import { reason } from "./data/files.ts"
import { oneLine, UserError } from "./errors.ts"
import { Stop } from "./native/signals.ts"
import type { CommandSpec, Options } from "./options.ts"

export interface Command {
  spec: CommandSpec
  /** Returns the exit code. */
  run(options: Options): Promise<number>
}

// Loaded only when asked for: --help and errors come at once.
const COMMANDS: Record<string, { summary: string; load: () => Promise<{ command: Command }> }> = {
  train: { summary: "train or fine-tune a model", load: () => import("./commands/train.ts") },
  sample: { summary: "write text", load: () => import("./commands/sample.ts") },
  data: { summary: "make token files", load: () => import("./commands/data.ts") },
  eval: {
    summary: "validation loss and HellaSwag's accuracy of a model",
    load: () => import("./commands/eval.ts"),
  },
  convert: {
    summary: "a model in another format",
    load: () => import("./commands/convert.ts"),
  },
  plan: {
    summary: "the arena: every tensor, its place and life",
    load: () => import("./commands/plan.ts"),
  },
  emit: { summary: "the training step as one C file", load: () => import("./commands/emit.ts") },
  info: {
    summary: "this machine and its kernels; or what a file holds",
    load: () => import("./commands/info.ts"),
  },
}

const USAGE = 2 // exit code of a user's mistake

/** Runs a command line and returns the exit code. Throws only what is a bug of ours. */
export async function main([name, ...args]: string[]): Promise<number> {
  try {
    if (name === undefined) {
      process.stderr.write(overview())
      return USAGE
    }
    if (name === "help" && args[0] !== undefined) return await main([args[0], "--help"])
    if (name === "help" || name === "--help" || name === "-h") {
      process.stdout.write(overview())
      return 0
    }
    if (name === "--version") {
      process.stdout.write(`llm ${(await import("./version.ts")).VERSION}\n`)
      return 0
    }
    const entry = Object.hasOwn(COMMANDS, name) ? COMMANDS[name] : undefined
    if (!entry) {
      const { nearest } = await import("./nearest.ts")
      const near = nearest(name, Object.keys(COMMANDS))
      throw new UserError(
        `no command ${name} (${near ? `did you mean ${near}?` : "see llm --help"})`,
      )
    }
    const { command } = await entry.load()
    if (args.includes("--help")) {
      const { helpText } = await import("./help.ts")
      process.stdout.write(helpText(command.spec))
      return 0
    }
    const { parseOptions } = await import("./options.ts")
    return await command.run(parseOptions(command.spec, args))
  } catch (error) {
    const message = explain(error)
    if (message === undefined) throw error
    process.stderr.write(`llm: ${message}\n`)
    return USAGE
  }
}

/** One line for what the user or the system did; undefined for a bug of ours. */
function explain(error: unknown): string | undefined {
  if (error instanceof UserError) return error.message
  const { path, syscall } = error as NodeJS.ErrnoException
  if (!(error instanceof Error) || syscall === undefined) return undefined
  return oneLine(`${path ?? "output"}: cannot ${syscall}: ${reason(error)}`)
}

let isSilent = false // what is said is lost, and that has been told

/** Ends the program when nobody reads its output any more, as SIGPIPE would, or when the output
 * cannot be written. */
function lostOutput(error: NodeJS.ErrnoException): void {
  const isPipe = error.code === "EPIPE"
  if (isSilent && !isPipe) return
  if (Stop.outputLost(isPipe)) {
    isSilent = true
    if (!isPipe) process.stderr.write(`warning: ${explain(error)}; the run goes on\n`)
    return
  }
  if (isPipe) process.exit(128 + constants.signals.SIGPIPE)
  process.stderr.write(`llm: ${explain(error)}\n`)
  process.exit(USAGE)
}

function overview(): string {
  const rows = Object.entries(COMMANDS).map(
    ([name, { summary }]) => `  ${name.padEnd(8)} ${summary}`,
  )
  return `llm: trains GPT-2-class language models\n\n${rows.join("\n")}\n\nllm COMMAND --help says more.\n`
}

if (import.meta.main) {
  process.stdout.on("error", lostOutput)
  process.stderr.on("error", () => {
    if (!Stop.outputLost(false)) process.exit(USAGE)
  })
  process.exitCode = await main(process.argv.slice(2))
}
