// Models of the Hugging Face hub, kept in its usual cache, which other programs share:
// models--OWNER--NAME/ has blobs/ by checksum, snapshots/COMMIT/ with links to them by name, and
// refs/main, the commit that is newest. The hub's own library asks for what there is; the download,
// which goes on where it was broken off, and is checked, is ours.

import { existsSync, mkdirSync, readFileSync, rmSync, statSync, symlinkSync } from "node:fs"
import { dirname, join } from "node:path"
import { getHFHubCachePath, HubApiError, modelInfo, pathsInfo } from "@huggingface/hub"
import type { Fetching } from "../data/download.ts"
import { fetchFile, type RemoteFile } from "../data/fetch-file.ts"
import { reason, writeWhole } from "../data/files.ts"
import { endpoint } from "../data/hub.ts"
import { type Out, withProgress } from "../data/progress.ts"
import { UserError } from "../errors.ts"
import { readHubConfig } from "./hf-config.ts"
import { CONFIG_FILE, INDEX_FILE, MODEL_FILE, shardList } from "./huggingface.ts"

const ANSWER_MS = 20_000 // for a question about a model
const COMMIT = /^[0-9a-f]{40}$/
const SHA256 = 64 // digits
const CHECKSUM = /^([0-9a-f]{40}|[0-9a-f]{64})$/ // git's of a small file, SHA-256 of a large one

/** The folder of a model of the hub, downloaded as far as it is not there. */
export async function fetchModel(
  name: string,
  stderr: Out = process.stderr,
  pauseMs?: number,
): Promise<string> {
  const repository = join(getHFHubCachePath(), `models--${name.replace("/", "--")}`)
  const isOffline = /^(1|on|yes|true)$/i.test(process.env.HF_HUB_OFFLINE ?? "")
  const hub = new Hub(endpoint(), name, pauseMs)
  const commit = isOffline ? "HF_HUB_OFFLINE is set" : await hub.commit()
  if (COMMIT.test(commit)) return download(hub, commit, repository, stderr)
  const folder = cachedSnapshot(repository)
  if (folder === undefined) {
    throw new UserError(
      `${name}: no such path, nothing in ${repository}, and ${commit} (give a path, or try where there is a network)`,
    )
  }
  if (!isOffline) stderr.write(`${name}: ${commit}; the copy in the cache is taken\n`)
  return folder
}

async function download(hub: Hub, commit: string, repository: string, stderr: Out) {
  const snapshot = join(repository, "snapshots", commit)
  const get = (file: string) => fetchInto(hub, commit, file, repository, stderr)
  const lacks = (what: string) =>
    new UserError(`${hub.name}: it has no ${what} (give a GPT-2 that is kept as safetensors)`)
  if (!(await get(CONFIG_FILE))) throw lacks(CONFIG_FILE)
  readHubConfig(join(snapshot, CONFIG_FILE)) // before gigabytes of another kind of model come
  if (!(await get(MODEL_FILE))) {
    if (!(await get(INDEX_FILE))) throw lacks(`${MODEL_FILE} or ${INDEX_FILE}`)
    const shards = new Set(shardList(join(snapshot, INDEX_FILE)).values())
    for (const shard of shards) if (!(await get(shard))) throw lacks(shard)
  }
  const main = join(repository, "refs", "main")
  mkdirSync(dirname(main), { recursive: true })
  if (readText(main) !== commit) writeWhole(main, [Buffer.from(commit)])
  return snapshot
}

/** Downloads a file of a commit, unless it is there; false where the hub has none of that name. */
async function fetchInto(
  hub: Hub,
  commit: string,
  path: string,
  repository: string,
  stderr: Out,
): Promise<boolean> {
  const link = join(repository, "snapshots", commit, path)
  if (existsSync(link)) return true
  const file = await hub.file(commit, path)
  if (!file) return false
  const { checksum } = file
  const blob = join(repository, "blobs", checksum)
  try {
    for (const each of [blob, link]) mkdirSync(dirname(each), { recursive: true })
    if (checksum.length !== SHA256) await fetchFile(file, blob, hub.fetching)
    else {
      await withProgress(`downloading ${hub.name} ${path}`, stderr, (onBytes) =>
        fetchFile(file, blob, { ...hub.fetching, onBytes }),
      )
    }
    rmSync(link, { force: true }) // to a blob that was deleted
    symlinkSync(join("..", "..", "blobs", checksum), link)
  } catch (error) {
    if (error instanceof UserError) throw error
    throw new UserError(`${link}: cannot write: ${reason(error)} (set HF_HUB_CACHE to a folder)`)
  }
  return true
}

/** The model that the cache has as the newest, if it has all of it. */
function cachedSnapshot(repository: string): string | undefined {
  const commit = readText(join(repository, "refs", "main"))?.trim() ?? ""
  const snapshot = join(repository, "snapshots", commit)
  const has = (file: string) => existsSync(join(snapshot, file))
  if (!COMMIT.test(commit) || !has(CONFIG_FILE)) return undefined
  if (has(MODEL_FILE)) return snapshot
  if (!has(INDEX_FILE)) return undefined
  return [...shardList(join(snapshot, INDEX_FILE)).values()].every(has) ? snapshot : undefined
}

function readText(path: string): string | undefined {
  return statSync(path, { throwIfNoEntry: false })?.isFile()
    ? readFileSync(path, "utf8")
    : undefined
}

/** What the hub says about one model. */
class Hub {
  readonly fetching: Fetching
  private readonly headers: Record<string, string>
  private readonly asked

  constructor(
    private readonly endpoint: string,
    readonly name: string,
    pauseMs?: number,
  ) {
    const accessToken = process.env.HF_TOKEN?.trim() || undefined
    if (accessToken?.startsWith("hf_") === false) {
      throw new UserError(
        "HF_TOKEN: a token of the hub starts with hf_ (set it to one, or unset it)",
      )
    }
    this.headers = accessToken === undefined ? {} : { authorization: `Bearer ${accessToken}` }
    this.fetching = {
      wayOut: "run it again: it goes on from there",
      headers: this.headers,
      refused: (status) => this.refused(status),
      pauseMs,
    }
    const timed = (url: string | URL | Request, init?: RequestInit) =>
      fetch(url, { ...init, signal: AbortSignal.timeout(ANSWER_MS) })
    this.asked = { hubUrl: endpoint, accessToken, fetch: timed as typeof fetch }
  }

  /** The newest commit, or why the hub cannot be asked. */
  async commit(): Promise<string> {
    try {
      const { sha } = await modelInfo({ ...this.asked, name: this.name, additionalFields: ["sha"] })
      if (COMMIT.test(sha)) return sha
      throw new UserError(`${this.endpoint}: it names no commit of ${this.name} (try again)`)
    } catch (error) {
      if (error instanceof HubApiError) throw this.refused(error.statusCode)
      if (error instanceof UserError) throw error
      return `${this.endpoint} cannot be reached`
    }
  }

  /** What there is of a file; undefined where there is none. */
  async file(
    commit: string,
    path: string,
  ): Promise<(RemoteFile & { checksum: string }) | undefined> {
    const wrong = (what: string) => new UserError(`${this.endpoint}: ${what} (try again)`)
    let found: Awaited<ReturnType<typeof pathsInfo>>
    try {
      const repo = { type: "model", name: this.name } as const
      found = await pathsInfo({ ...this.asked, repo, paths: [path], revision: commit })
    } catch (error) {
      if (error instanceof HubApiError) throw this.refused(error.statusCode)
      throw wrong(`no answer about ${this.name}/${path}: ${(error as Error).message}`)
    }
    if (found.length === 0) return undefined
    const { size: bytes, oid: checksum = "" } = found[0]!.lfs ?? found[0]!
    const url = `${this.endpoint}/${this.name}/resolve/${commit}/${path}`
    if (Number.isSafeInteger(bytes) && CHECKSUM.test(checksum)) return { url, bytes, checksum }
    throw wrong(`what it says of ${this.name}/${path} cannot be used`)
  }

  /** What an answer means that is none. */
  private refused(status: number): UserError {
    const { endpoint, name } = this
    const hasToken = this.headers.authorization !== undefined
    const token = hasToken ? "the token in HF_TOKEN may not read it" : "set HF_TOKEN to a token"
    const says: Record<number, string> = {
      401: `there is no such model, or it is private (check the name, or ${token})`,
      403: `it must be asked for at ${endpoint}/${name} (then set HF_TOKEN to your token)`,
      404: "there is no such model (check the name)",
    }
    const what = says[status] ?? "it cannot be had now (try later)"
    return new UserError(`${name}: ${endpoint} answers ${status}: ${what}`)
  }
}
