// Data sets on the Hugging Face hub, or on a mirror that HF_ENDPOINT names.

import { UserError } from "../errors.ts"
import { download, type Fetching } from "./download.ts"
import type { RemoteFile } from "./fetch-file.ts"

/** A file of a data set. What is small has no checksum in the hub's list. */
export type HubFile = RemoteFile & { name: string }

export const MIRROR_HINT = "give a local copy with --from, or name a mirror in HF_ENDPOINT"

/** Where the hub is. */
export function endpoint(): string {
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
    const checksum = typeof lfs?.oid === "string" ? lfs.oid : undefined
    const address = `${base}/datasets/${dataset}/resolve/main/${prefix}${name}`
    return [{ name, url: address, bytes: size, checksum }]
  })
}
