// Fetches over HTTP. A body that breaks off goes on where it ended; a server that is busy is asked
// again. Proxies are those of Bun's fetch: HTTPS_PROXY, HTTP_PROXY, NO_PROXY.

import { createHash } from "node:crypto"
import { setTimeout as sleep } from "node:timers/promises"
import { UserError } from "../errors.ts"
import { thousands } from "./files.ts"

export type OnBytes = (done: number, total: number | undefined) => void

export type Fetching = {
  /** What a user can do when it fails. */
  wayOut: string
  headers?: Record<string, string>
  /** What it means that the server answers so, where there is more to say. */
  refused?(status: number): UserError
  onBytes?: OnBytes | undefined
  /** Bytes that are there already. */
  from?: number
  signal?: AbortSignal | undefined
  idleMs?: number
  /** Before the first retry; it doubles from one to the next. */
  pauseMs?: number | undefined
}

const IDLE_MS = 30_000
const PAUSE_MS = 1000
const RETRIES = 4 // in a row, without a byte in between
const MAX_WAIT_MS = 600_000 // that a server may ask for
const BUSY = [408, 429, 500, 502, 503, 504]

/** Worth another try, after `waitMs` if the server says so. */
class Passing extends Error {
  constructor(
    message: string,
    readonly waitMs?: number,
  ) {
    super(message)
  }
}

/** The body of an answer, whole. */
export async function download(url: string, fetching: Fetching): Promise<Uint8Array> {
  const chunks: Uint8Array[] = []
  for await (const chunk of bodyOf(url, fetching)) chunks.push(chunk)
  return Buffer.concat(chunks)
}

/** The body of an answer from byte `from` on. Every failure is a UserError that ends with `wayOut`. */
export async function* bodyOf(url: string, fetching: Fetching): AsyncGenerator<Uint8Array> {
  const { wayOut, signal, pauseMs = PAUSE_MS } = fetching
  const fail = (what: string) => new UserError(`${url}: ${what} (${wayOut})`)
  const place: Place = { done: fetching.from ?? 0 }
  for (let failures = 0; ; ) {
    const before = place.done
    try {
      yield* attempt(url, place, fetching, fail)
      return
    } catch (error) {
      if (!(error instanceof Passing) || signal?.aborted) throw error
      if (place.done > before) failures = 0
      if (++failures > RETRIES) throw fail(error.message)
      await sleep(error.waitMs ?? pauseMs * 2 ** (failures - 1), undefined, { signal })
    }
  }
}

/** How far a body has come, and what was said about it. */
type Place = { done: number; total?: number | undefined; tag?: string | undefined }

async function* attempt(
  url: string,
  place: Place,
  { headers, refused, onBytes, signal, idleMs = IDLE_MS }: Fetching,
  fail: (what: string) => UserError,
): AsyncGenerator<Uint8Array> {
  const idle = new AbortController()
  let timer: ReturnType<typeof setTimeout> | undefined
  const heard = () => {
    clearTimeout(timer)
    timer = setTimeout(() => idle.abort(), idleMs)
  }
  try {
    heard()
    const range: Record<string, string> = place.done > 0 ? { range: `bytes=${place.done}-` } : {}
    const response = await fetch(url, {
      headers: { ...headers, "accept-encoding": "identity", ...range },
      signal: signal ? AbortSignal.any([idle.signal, signal]) : idle.signal,
    })
    let skip = readHead(response, place, refused, fail)
    for await (let chunk of response.body ?? []) {
      heard()
      const known = Math.min(skip, chunk.length)
      skip -= known
      chunk = chunk.subarray(known)
      if (chunk.length === 0) continue
      place.done += chunk.length
      onBytes?.(place.done, place.total)
      yield chunk
    }
  } catch (error) {
    if (error instanceof UserError || error instanceof Passing || signal?.aborted) throw error
    if (idle.signal.aborted) throw new Passing(`nothing came for ${idleMs / 1000} seconds`)
    // Who has never heard of a server need not ask it again.
    if (place.tag === undefined) throw fail(`cannot be reached: ${(error as Error).message}`)
    throw new Passing(`broke off after ${progress(place)}: ${(error as Error).message}`)
  } finally {
    clearTimeout(timer)
  }
  const { done, total } = place
  if (total !== undefined && done < total) throw new Passing(`broke off after ${progress(place)}`)
  if (total !== undefined && done > total) {
    throw fail(`${thousands(done)} bytes, but it has ${thousands(total)}`)
  }
}

/** Takes in an answer's status and headers. Returns the bytes to pass over: a server that knows no
 * ranges starts at the beginning. */
function readHead(
  { status, headers, ok }: Response,
  place: Place,
  refused: Fetching["refused"],
  fail: (what: string) => UserError,
) {
  if (BUSY.includes(status)) {
    const waitMs = retryAfterMs(headers.get("retry-after"))
    if (waitMs !== undefined && waitMs > MAX_WAIT_MS) {
      throw fail(`the server answers ${status}: not before ${Math.ceil(waitMs / 60_000)} minutes`)
    }
    throw new Passing(`the server answers ${status}`, waitMs)
  }
  const [, first, all] =
    /^bytes (?:(\d+)-\d+|\*)\/(\d+)$/.exec(headers.get("content-range") ?? "") ?? []
  if (status === 416 && Number(all) === place.done) {
    place.total = place.done
    return 0 // it was whole already
  }
  if (!ok) throw refused?.(status) ?? fail(`the server answers ${status}`)
  if (status === 206 && Number(first) !== place.done) {
    throw fail(`the server sends bytes from ${first ?? "nowhere"} on, not from ${place.done}`)
  }
  const length = headers.get("content-length")
  const isPlain = (headers.get("content-encoding") ?? "identity") === "identity"
  const total = status === 206 ? Number(all) : length && isPlain ? Number(length) : undefined
  const tag = headers.get("etag") ?? ""
  const hasChanged = place.tag !== undefined && (tag !== place.tag || total !== place.total)
  if (hasChanged) throw fail("it changed on the server while it was downloaded")
  place.total = total
  place.tag = tag
  return status === 206 ? 0 : place.done
}

/** Retry-After in seconds or as a date. */
function retryAfterMs(value: string | null): number | undefined {
  if (value === null) return undefined
  if (/^\d+$/.test(value)) return Number(value) * 1000
  const date = Date.parse(value)
  return Number.isNaN(date) ? undefined : Math.max(0, date - Date.now())
}

function progress({ done, total }: Place): string {
  return `${thousands(done)}${total === undefined ? "" : ` of ${thousands(total)}`} bytes`
}

export function sha256(bytes: Uint8Array): string {
  return createHash("sha256").update(bytes).digest("hex")
}
