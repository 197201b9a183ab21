// Data sets on the Hugging Face hub, or on a mirror that HF_ENDPOINT names.

import { createHash } from "node:crypto"
import {
  closeSync,
  createReadStream,
  fsyncSync,
  openSync,
  renameSync,
  rmSync,
  statSync,
  writeSync,
} from "node:fs"
import { UserError } from "../errors.ts"
import { bodyOf, download, type Fetching } from "./download.ts"
import { reason, thousands, wayOut as wayOutOf } from "./files.ts"

/** A file of a data set. What is small has no hash in the hub's list. */
export type HubFile = { name: string; url: string; bytes: number; sha256: string | undefined }

export const MIRROR_HINT = "give a local copy with --from, or name a mirror in HF_ENDPOINT"

function endpoint(): string {
  const url = process.env.HF_ENDPOINT || "https://huggingface.co"
  if (URL.canParse(url)) return url.replace(/\/+$/, "")
  throw new UserError(`HF_ENDPOINT ${url} is not a URL (try https://huggingface.co)`)
}

/** The files in a folder of a data set; "" is its root. */
export async function hubFiles(
  dataset: string,
  folder: string,
  fetching: Fetching,
): Promise<HubFile[]> {
  const base = endpoint()
  const url = `${base}/api/datasets/${dataset}/tree/main${folder === "" ? "" : `/${folder}`}`
  const wrong = (what: string) => new UserError(`${url}: ${what} (${fetching.wayOut})`)
  let list: unknown
  try {
    list = JSON.parse(new TextDecoder().decode(await download(url, fetching)))
  } catch (error) {
    if (error instanceof UserError) throw error
  }
  if (!Array.isArray(list)) throw wrong("not a list of files")
  const prefix = folder === "" ? "" : `${folder}/`
  return list.flatMap((entry): HubFile[] => {
    if (entry?.type !== "file") return []
    const { path, size, lfs } = entry
    const name = `${path}`.startsWith(prefix) ? `${path}`.slice(prefix.length) : ""
    if (/^\.\w+$/.test(name)) return [] // .gitattributes
    // It becomes a file's name here.
    if (!/^\w[\w.-]*$/.test(name)) {
      throw wrong(`it lists ${JSON.stringify(path)}, which is no name of a file in that folder`)
    }
    if (!Number.isSafeInteger(size) || size < 0) throw wrong(`it lists ${path} without its size`)
    const sha256 = typeof lfs?.oid === "string" ? lfs.oid : undefined
    const address = `${base}/datasets/${dataset}/resolve/main/${prefix}${name}`
    return [{ name, url: address, bytes: size, sha256 }]
  })
}

/** Downloads a file to `path`, or goes on with what an earlier run left of it. */
export async function fetchFile(file: HubFile, path: string, fetching: Fetching): Promise<void> {
  const { url, bytes, sha256 } = file
  if (sizeOf(path) === bytes) return
  const partial = `${path}.part`
  const there = sizeOf(partial)
  // Only a hash can tell whether an older beginning belongs to what comes now.
  const from = sha256 !== undefined && there <= bytes ? there : 0
  const hash = createHash("sha256")
  if (from > 0) for await (const chunk of createReadStream(partial)) hash.update(chunk)
  let done = from
  let handle: number | undefined
  try {
    handle = openSync(partial, from > 0 ? "a" : "w")
    for await (const chunk of bodyOf(url, { ...fetching, from })) {
      for (let put = 0; put < chunk.length; ) put += writeSync(handle, chunk, put)
      hash.update(chunk)
      done += chunk.length
    }
    fsyncSync(handle)
  } catch (error) {
    if (error instanceof UserError || fetching.signal?.aborted) throw error
    throw new UserError(`${partial}: cannot write: ${reason(error)} (${wayOutOf(error)})`)
  } finally {
    if (handle !== undefined) closeSync(handle)
  }
  const found = hash.digest("hex")
  const isWrong = done !== bytes || (sha256 !== undefined && found !== sha256)
  if (isWrong) {
    rmSync(partial)
    const what =
      done === bytes
        ? `its SHA-256 is ${found}, not ${sha256}`
        : `${thousands(done)} bytes, but its list says ${thousands(bytes)}`
    throw new UserError(`${url}: ${what} (try again; ${fetching.wayOut})`)
  }
  renameSync(partial, path)
}

const sizeOf = (path: string) => statSync(path, { throwIfNoEntry: false })?.size ?? 0
