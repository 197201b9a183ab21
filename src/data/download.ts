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
  const chunks: Uint8Array[] = []
  let done = 0
  let total: number | undefined
  const begin = (response: Response) => {
    if (!response.ok) throw fail(`the server answers ${response.status}`)
    // With a compressed body the header counts the compressed bytes.
    const length = response.headers.get("content-length")
    if (length && !response.headers.get("content-encoding")) total = Number(length)
  }
  const take = (chunk: Uint8Array) => {
    chunks.push(chunk)
    done += chunk.length
    onBytes(done, total)
  }
  await receive(url, wayOut, { begin, take, idleMs })
  if (total !== undefined && done !== total) {
    throw fail(`broke off after ${thousands(done)} of ${thousands(total)} bytes`)
  }
  return Buffer.concat(chunks)
}

export interface Receiver {
  headers?: Record<string, string>
  /** Told of the answer, whatever its status, before its body. */
  begin(response: Response): void
  take(chunk: Uint8Array): void
  idleMs?: number
}

/** Hands over an answer as it comes. Every failure is a UserError that ends with `wayOut`. */
export async function receive(
  url: string,
  wayOut: string,
  { headers = {}, begin, take, idleMs = IDLE_MS }: Receiver,
): Promise<void> {
  const abort = new AbortController()
  let timer: ReturnType<typeof setTimeout> | undefined
  const heard = () => {
    clearTimeout(timer)
    timer = setTimeout(() => abort.abort(), idleMs)
  }
  let done: number | undefined
  try {
    heard()
    const response = await fetch(url, { headers, signal: abort.signal })
    done = 0
    begin(response)
    for await (const chunk of response.body ?? []) {
      heard()
      done += chunk.length
      take(chunk)
    }
  } catch (error) {
    if (error instanceof UserError) throw error
    const fail = (what: string) => new UserError(`${url}: ${what} (${wayOut})`)
    if (abort.signal.aborted) throw fail(`nothing came for ${idleMs / 1000} seconds`)
    const broke = done !== undefined && `broke off after ${thousands(done)} bytes`
    throw fail(`${broke || "cannot be reached"}: ${(error as Error).message}`)
  } finally {
    clearTimeout(timer)
    abort.abort() // an answer that was refused need not come any further
  }
}

export function sha256(bytes: Uint8Array): string {
  return createHash("sha256").update(bytes).digest("hex")
}
