// Tiny Shakespeare: 1.1 MB of his plays, in the public domain, as char-rnn's repository has it.

import { readFileSync } from "node:fs"
import { UserError } from "../errors.ts"
import { download, type OnBytes, sha256 } from "./download.ts"
import { fileBytes, reason } from "./files.ts"

export const TINY_SHAKESPEARE_URL =
  "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt"
const SHA256 = "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed"
const WAY_OUT =
  "give a local copy with --from FILE, or make the built-in corpus with llm data plays"

export async function downloadTinyShakespeare(
  onBytes?: OnBytes,
  url = TINY_SHAKESPEARE_URL,
): Promise<string> {
  const bytes = await download(url, { wayOut: WAY_OUT, onBytes })
  const hash = sha256(bytes)
  if (hash !== SHA256) {
    throw new UserError(
      `${url}: this is not Tiny Shakespeare: its SHA-256 is ${hash}, not ${SHA256} (${WAY_OUT})`,
    )
  }
  return new TextDecoder().decode(bytes)
}

export function readTinyShakespeare(path: string): string {
  fileBytes(path, "--from takes a copy of Tiny Shakespeare")
  let bytes: Uint8Array
  try {
    bytes = readFileSync(path)
  } catch (error) {
    throw new UserError(`--from ${path}: cannot read: ${reason(error)} (give another copy)`)
  }
  const hash = sha256(bytes)
  if (hash !== SHA256) {
    throw new UserError(
      `--from ${path}: this is not Tiny Shakespeare: its SHA-256 is ${hash}, not ${SHA256} (for other texts use llm data PATH.txt)`,
    )
  }
  return new TextDecoder().decode(bytes)
}
