// A hub in miniature: the questions that the library asks, files by their commit, large ones by way of
// another server, as the hub keeps them. What it does wrong is set from outside.

import { createHash } from "node:crypto"
import { type Answer, type Asked, badServer, ranged } from "../fixtures/http.ts"

export const COMMIT = "0123456789abcdef0123456789abcdef01234567"
const OTHER = "fedcba9876543210fedcba9876543210fedcba98"

export type Files = Record<string, Uint8Array>

export class HubServer {
  /** OWNER/NAME → its files. */
  readonly models: Record<string, Files> = {}
  commit = COMMIT
  /** Answers so to every question, or to questions for files alone. */
  status?: { of: "model" | "file"; code: number }
  /** Breaks off after so many bytes of a large file. */
  breakAfter?: number
  /** Sends a large file with a byte changed. */
  isDamaged = false
  ignoresRange = false
  /** Where large files are, if it is another place. */
  storageUrl: string | undefined
  /** Requests for files: their path, and what they ask with. */
  readonly asked: { path: string; range?: string; authorization?: string }[] = []
  private readonly storage = badServer((asked) => this.large(asked))
  private readonly server: Bun.Server<undefined>

  constructor() {
    this.server = Bun.serve({
      port: 0,
      hostname: "127.0.0.1",
      fetch: (request) => this.answer(request, new URL(request.url)),
    })
  }

  get url(): string {
    return `http://127.0.0.1:${this.server.port}`
  }

  /** Goes back to a hub without fault and without models. */
  reset(): void {
    for (const name of Object.keys(this.models)) delete this.models[name]
    this.asked.length = 0
    this.commit = COMMIT
    this.status = undefined
    this.breakAfter = this.storageUrl = undefined
    this.isDamaged = this.ignoresRange = false
  }

  newCommit(): void {
    this.commit = OTHER
  }

  stop(): void {
    this.server.stop(true)
    this.storage[Symbol.dispose]()
  }

  private async answer(request: Request, { pathname }: URL): Promise<Response> {
    const [, api, name = ""] = /^\/(api\/models\/)?([^/]+\/[^/]+)\//.exec(pathname) ?? []
    const files = this.models[name]
    if (!files) return Response.json({ error: "Repository not found" }, { status: 404 })
    if (this.status && (this.status.of === "model") === (api !== undefined)) {
      return Response.json({ error: "no" }, { status: this.status.code })
    }
    if (pathname.endsWith(`/revision/HEAD`)) {
      const rest = { private: false, downloads: 1, likes: 1, gated: false }
      return Response.json({ _id: "1", id: name, sha: this.commit, lastModified: 0, ...rest })
    }
    if (pathname.endsWith(`/paths-info/${this.commit}`)) {
      const { paths } = (await request.json()) as { paths: string[] }
      return Response.json(paths.filter((path) => files[path]).map((path) => info(path, files)))
    }
    const file = pathname.split(`/resolve/${this.commit}/`)[1] ?? ""
    const content = files[file]
    if (!content) return new Response("Entry not found", { status: 404 })
    this.note(request, file)
    if (isLarge(file)) {
      const storage = this.storageUrl ?? this.storage.url
      const location = `${storage}/${name}/${file}`
      return new Response(null, { status: 302, headers: { location } })
    }
    return new Response(Buffer.from(content), { headers: { etag: `"${sha1(content)}"` } })
  }

  private large(asked: Asked): Answer {
    const [, name = "", file = ""] = /^\/([^/]+\/[^/]+)\/(.+)$/.exec(asked.path)!
    this.note(asked, `storage ${file}`)
    const content = Buffer.from(this.models[name]![file]!)
    if (this.isDamaged) content[content.length - 1]! ^= 1
    const answer = this.ignoresRange ? { body: content } : ranged(content, asked)
    const body = Buffer.from(answer.body ?? "")
    const left = Math.max(0, (this.breakAfter ?? Infinity) - (content.length - body.length))
    return { ...answer, body: body.subarray(0, left), length: body.length }
  }

  private note({ headers }: Pick<Request, "headers">, path: string): void {
    const range = headers.get("range") ?? undefined
    const authorization = headers.get("authorization") ?? undefined
    this.asked.push({ path, range, authorization })
  }
}

const isLarge = (path: string) => path.endsWith(".safetensors")
const sha1 = (content: Uint8Array) => createHash("sha1").update(content).digest("hex")

function info(path: string, files: Files) {
  const content = files[path]!
  const header = Buffer.from(`blob ${content.length}\0`)
  const file = {
    type: "file",
    path,
    size: content.length,
    oid: sha1(Buffer.concat([header, content])),
  }
  if (!isLarge(path)) return file
  const oid = createHash("sha256").update(content).digest("hex")
  return { ...file, oid: sha1(header), lfs: { oid, size: content.length, pointerSize: 130 } }
}
