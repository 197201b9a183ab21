// Which model file a path means.

import { existsSync, readdirSync, statSync } from "node:fs"
import { join } from "node:path"
import { UserError } from "../errors.ts"

export const CHECKPOINT_HELP = "a GPT-2 model file, or a run folder, whose newest model is taken"

/** The file itself, or the model of the most steps in a run folder. */
export function modelFile(path: string): string {
  if (!existsSync(path) || !statSync(path).isDirectory()) return path
  const models = readdirSync(path).filter((name) => /^model_\d{8,}\.bin$/.test(name))
  const newest = models.sort((a, b) => a.length - b.length || (a < b ? -1 : 1)).at(-1)
  if (newest) return join(path, newest)
  throw new UserError(
    `${path}: it is a folder without a model_*.bin (give a model file, or a folder that llm train --out has made)`,
  )
}
