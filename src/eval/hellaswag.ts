// llm train's HellaSwag: where its file lies.

import { existsSync } from "node:fs"
import { UserError } from "../errors.ts"
import { readChoices } from "../formats/choices.ts"
import type { Config } from "../model/config.ts"
import type { Options } from "../options.ts"
import { type Choices, fitChoices } from "./choices.ts"

/** Looked for in this order; llm.c's scripts expect the second. */
export const HELLASWAG_FILES = ["data/hellaswag_val.bin", "dev/data/hellaswag/hellaswag_val.bin"]

/** The questions that --hellaswag asks for; undefined when it does not. */
export function chooseHellaswag(options: Options, { V }: Config, T: number): Choices | undefined {
  const given = options.text("hellaswag-file")
  if (!options.flag("hellaswag")) {
    if (given === undefined) return undefined
    throw new UserError(`--hellaswag-file ${given} goes with --hellaswag (add it)`)
  }
  if (options.number("val-every") === 0) {
    throw new UserError(
      "--hellaswag contradicts --val-every 0: it is evaluated at validations (leave one out)",
    )
  }
  const path = given ?? HELLASWAG_FILES.find((file) => existsSync(file))
  if (path !== undefined) return fitChoices(path, readChoices(path, V), T)
  throw new UserError(
    `--hellaswag: there is neither ${HELLASWAG_FILES.join(" nor ")} (name the file with --hellaswag-file; for help: --help)`,
  )
}
