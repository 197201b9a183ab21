// Picks the command, prints one error line, sets the exit code.

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
  plan: {
    summary: "the arena: every tensor, its place and life",
    load: () => import("./commands/plan.ts"),
  },
  emit: { summary: "the training step as one C file", load: () => import("./commands/emit.ts") },
  info: { summary: "this machine and its kernels", load: () => import("./commands/info.ts") },
}

const USAGE = 2 // exit code of a user's mistake

async function main([name, ...args]: string[]): Promise<number> {
  const { UserError } = await import("./errors.ts")
  try {
    if (name === undefined || name === "help" || name === "--help" || name === "-h") {
      process.stdout.write(overview())
      return name === undefined ? USAGE : 0
    }
    if (name === "--version") {
      process.stdout.write(`llm ${(await import("./version.ts")).VERSION}\n`)
      return 0
    }
    const entry = COMMANDS[name]
    const { nearest, parseOptions } = await import("./options.ts")
    if (!entry) {
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
    return await command.run(parseOptions(command.spec, args))
  } catch (error) {
    if (!(error instanceof UserError)) throw error
    process.stderr.write(`llm: ${error.message}\n`)
    return USAGE
  }
}

function overview(): string {
  const rows = Object.entries(COMMANDS).map(
    ([name, { summary }]) => `  ${name.padEnd(8)} ${summary}`,
  )
  return `llm: trains GPT-2-class language models\n\n${rows.join("\n")}\n\nllm COMMAND --help says more.\n`
}

process.exitCode = await main(process.argv.slice(2))
