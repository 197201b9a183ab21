// ./llm sample as a person runs it, on a model that has learnt nothing.

import { afterAll, beforeAll, describe, expect, test } from "bun:test"
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { Decoder, END_OF_TEXT, loadEncoder } from "../../src/data/tokenizer.ts"
import { writeModel } from "../../src/formats/model.ts"
import type { Config } from "../../src/model/config.ts"
import { initialize } from "../../src/model/initialize.ts"
import { decodeProgram } from "../../src/model/program.ts"
import { places } from "../../src/model/weights.ts"
import { Kernels } from "../../src/native/library.ts"
import { Program } from "../../src/program/link.ts"
import { buildExecutable, LLM, run } from "./executable.ts"

const TIMEOUT_MS = 60_000
const CONFIG: Config = { L: 1, NH: 2, C: 16, V: 50257, Vp: 50304, maxT: 32 }
const PROMPT = "To be, or not to be:\n"
const COUNT = 12

const dir = mkdtempSync(join(tmpdir(), "llm-sample-"))
const path = (name: string) => join(dir, name)
const llm = (args: string[], stdin?: string) =>
  run([LLM, "sample", "model.bin", "--tokens", `${COUNT}`, ...args], {
    cwd: dir,
    ...(stdin !== undefined && { stdin: new Blob([stdin]) }),
  })

async function sample(...args: string[]): Promise<string> {
  const { code, stdout, stderr } = await llm(["--prompt", PROMPT, ...args])
  expect([code, stderr]).toEqual([0, expect.stringMatching(/^\d+ tokens, [\d.]+ tokens\/s, .*\n$/)])
  return stdout
}

beforeAll(async () => {
  await buildExecutable()
  const kernels = await Kernels.open("reference")
  const tensors = decodeProgram(CONFIG)
  const program = await Program.link(tensors, kernels)
  initialize(program, tensors, CONFIG, kernels, 42)
  writeModel(path("model.bin"), CONFIG, [...places(program, tensors.parameters, CONFIG)])
  program.free()
  writeFileSync(path("prompt.txt"), PROMPT)
}, TIMEOUT_MS)

afterAll(() => rmSync(dir, { recursive: true }))

describe("a prompt", () => {
  test(
    "is the command line's, a file's, or what is piped in",
    async () => {
      const text = await sample()
      expect(text).toStartWith(PROMPT)
      expect(text.length).toBeGreaterThan(PROMPT.length + COUNT)
      expect((await llm(["--file", "prompt.txt"])).stdout).toBe(text)
      expect((await llm([], PROMPT)).stdout).toBe(text)
      expect((await llm(["--prompt", PROMPT], "something else")).stdout).toBe(text)
    },
    TIMEOUT_MS,
  )

  test(
    "that is none, or nothing from a pipe, is the beginning of a document",
    async () => {
      const { code, stdout, stderr } = await llm([])
      expect(code).toBe(0)
      expect(stderr).toContain("prompt of 1 included")
      expect((await llm([], "")).stdout).toBe(stdout)
    },
    TIMEOUT_MS,
  )

  test(
    "that passes the context is said once",
    async () => {
      const { stderr } = await llm(["--prompt", PROMPT.repeat(9), "--samples", "2"])
      const note =
        "the text is longer than the context of 32 tokens: whenever that was full, its older half was dropped\n"
      expect(stderr).toStartWith(note)
      expect(stderr.slice(note.length)).toMatch(/^24 tokens, [\d.]+ tokens\/s, .*\n$/)
      const short = await llm(["--prompt", PROMPT, "--context", "9"])
      expect(short.stderr).toStartWith("the text is longer than the context of 9 tokens")
    },
    TIMEOUT_MS,
  )
})

describe("several samples", () => {
  test(
    "are the same texts however many there are, on one thread and on two",
    async () => {
      const texts = async (n: number, threads: number) => {
        const all = await sample("--samples", `${n}`, "--threads", `${threads}`)
        return all.slice(0, -1).split("\n---\n")
      }
      const [one, three, eleven] = [await texts(1, 2), await texts(3, 1), await texts(11, 2)]
      expect([one.length, three.length, eleven.length]).toEqual([1, 3, 11])
      expect(three[0]).toBe(one[0]!)
      expect(eleven.slice(0, 3)).toEqual(three)
      expect(new Set(eleven).size).toBe(11)
    },
    TIMEOUT_MS,
  )
})

describe("a stop string", () => {
  test(
    "ends the text before it, in each sample by itself",
    async () => {
      const text = await sample()
      const stop = text.slice(-9, -5)
      const cut = text.slice(0, text.indexOf(stop, PROMPT.length))
      expect(await sample("--stop", "nowhere, is it?", "--stop", stop)).toBe(`${cut}\n`)
      const two = await sample("--samples", "2")
      const stopped = await sample("--samples", "2", "--stop", stop)
      expect(stopped).toBe(`${cut}\n---\n${two.split("\n---\n")[1]}`)
    },
    TIMEOUT_MS,
  )
})

describe("--logprobs", () => {
  test(
    "has a line for each token of each sample, in their order",
    async () => {
      const stdout = await sample("--samples", "2", "--logprobs", "new/tokens.jsonl")
      const lines = readFileSync(path("new/tokens.jsonl"), "utf8").trimEnd().split("\n")
      const tokens = lines.map((line) => JSON.parse(line))
      const first = (await loadEncoder())(PROMPT).length
      const decoder = await Decoder.load()
      expect(tokens).toHaveLength(2 * COUNT)
      for (const [i, token] of tokens.entries()) {
        expect(Object.keys(token)).toEqual(["sample", "position", "token", "text", "logprob"])
        expect([token.sample, token.position]).toEqual([Math.floor(i / COUNT), first + (i % COUNT)])
        expect(token.text).toBe(decoder.decode([token.token]))
        // All tokens of an untrained model are about as likely.
        expect(Math.abs(token.logprob + Math.log(CONFIG.V))).toBeLessThan(1)
      }
      const texts = [0, 1].map((s) => tokens.filter(({ sample }) => sample === s))
      const whole = texts.map((own) => PROMPT + decoder.decode(own.map(({ token }) => token)))
      expect(tokens.some(({ token }) => token === END_OF_TEXT)).toBe(false)
      expect(stdout).toBe(`${whole.join("\n---\n")}\n`)
    },
    TIMEOUT_MS,
  )
})

describe("--interactive", () => {
  test(
    "goes on from each line, and remembers what was said",
    async () => {
      const once = await llm(["--prompt", `${PROMPT}Yes.\n`])
      const answer = once.stdout.slice(`${PROMPT}Yes.\n`.length)
      const [one, two, other] = await Promise.all([
        llm(["--interactive", "--prompt", PROMPT], "Yes.\n"),
        llm(["--interactive", "--prompt", PROMPT], "Yes.\n\nNo.\n"),
        llm(["--interactive", "--prompt", PROMPT], "No.\n"),
      ])
      expect(one.stdout).toBe(PROMPT + answer)
      expect(one.stderr).toMatch(/^12 tokens, [\d.]+ tokens\/s, .*\n$/)
      expect(two.stdout).toStartWith(one.stdout)
      expect(two.stderr).toMatch(/^36 tokens, .*\n$/m)
      expect(other.stdout).not.toBe(one.stdout)
      expect(one.code).toBe(0)
    },
    TIMEOUT_MS,
  )

  test(
    "ends at Ctrl-D, and what it says then has lines of its own",
    async () => {
      let seen = ""
      const args = ["sample", "model.bin", "--interactive", "--tokens", "40"]
      const child = Bun.spawn([LLM, ...args], {
        cwd: dir,
        terminal: {
          data(terminal, bytes) {
            seen += new TextDecoder().decode(bytes)
            if (seen === "> ") terminal.write("Yes.\n")
            else if (seen.endsWith("\n> ")) terminal.write("\x04")
          },
        },
      })
      expect(await child.exited).toBe(0)
      expect(seen.replaceAll("\r", "")).toMatch(
        /\n> \nthe text is longer than the context of 32 tokens: .*\n40 tokens, .*\n$/,
      )
    },
    TIMEOUT_MS,
  )

  test(
    "ends at Ctrl-C while it writes",
    async () => {
      const args = ["sample", "model.bin", "--interactive", "--tokens", "1000000"]
      const child = Bun.spawn([LLM, ...args], {
        cwd: dir,
        stdin: "pipe",
        stdout: "pipe",
        stderr: "ignore",
      })
      child.stdin.write("Yes.\n")
      child.stdin.flush()
      await child.stdout.getReader().read()
      child.kill("SIGINT")
      expect(await child.exited).toBe(130)
    },
    TIMEOUT_MS,
  )

  test(
    "ends at Ctrl-C while it waits for a line",
    async () => {
      const args = ["sample", "model.bin", "--interactive", "--tokens", "3"]
      const child = Bun.spawn([LLM, ...args], {
        cwd: dir,
        stdin: "pipe",
        stdout: "pipe",
        stderr: "ignore",
      })
      child.stdin.write("Yes.\n")
      child.stdin.flush()
      const reader = child.stdout.getReader()
      let text = ""
      while (!text.endsWith("\n")) text += new TextDecoder().decode((await reader.read()).value)
      await Bun.sleep(300) // it waits again
      child.kill("SIGINT")
      await child.exited
      expect(child.signalCode ?? child.exitCode).toBe("SIGINT")
    },
    TIMEOUT_MS,
  )
})
