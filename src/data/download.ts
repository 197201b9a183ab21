// Fetches a file whose content is known by its hash.

import { createHash } from "node:crypto"
import { UserError } from "../errors.ts"
import { thousands } from "./files.ts"

const IDLE_MS = 30_000

export type OnBytes = (done: number, total: number | undefined) => void

/** The body of an answer, whole. Every failure is a UserError that ends with `wayOut`. */
export async function download(
  url: string,
  wayOut: string,
  onBytes: OnBytes = () => {},
  idleMs = IDLE_MS,
): Promise<Uint8Array> {
  const fail = (what: string) => new UserError(`${url}: ${what} (${wayOut})`)
  const abort = new AbortController()
  let timer: ReturnType<typeof setTimeout> | undefined
  const heard = () => {
    clearTimeout(timer)
    timer = setTimeout(() => abort.abort(), idleMs)
  }
  const chunks: Uint8Array[] = []
  let done = 0
  let total: number | undefined
  let answered = false
  try {
    heard()
    const response = await fetch(url, { signal: abort.signal })
    answered = true
    if (!response.ok) throw fail(`the server answers ${response.status}`)
    // With a compressed body the header counts the compressed bytes.
    const length = response.headers.get("content-length")
    if (length && !response.headers.get("content-encoding")) total = Number(length)
    for await (const chunk of response.body ?? []) {
      heard()
      chunks.push(chunk)
      done += chunk.length
      onBytes(done, total)
    }
  } catch (error) {
    if (error instanceof UserError) throw error
    if (abort.signal.aborted) throw fail(`nothing came for ${idleMs / 1000} seconds`)
    const so = answered ? `broke off after ${thousands(done)} bytes` : "cannot be reached"
    throw fail(`${so}: ${(error as Error).message}`)
  } finally {
    clearTimeout(timer)
  }
  if (total !== undefined && done !== total) {
    throw fail(`broke off after ${thousands(done)} of ${thousands(total)} bytes`)
  }
  return Buffer.concat(chunks)
}

export function sha256(bytes: Uint8Array): string {
  return createHash("sha256").update(bytes).digest("hex")
}
