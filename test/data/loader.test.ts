import { afterAll, describe, expect, test } from "bun:test"
import { mkdtempSync, rmSync, symlinkSync, truncateSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import fc from "fast-check"
import { findFiles, Loader, type LoaderOptions } from "../../src/data/loader.ts"
import { UserError } from "../../src/errors.ts"
import { FileChanged, writeTokens } from "../../src/formats/tokens.ts"

const folder = mkdtempSync(join(tmpdir(), "loader-"))
afterAll(() => rmSync(folder, { recursive: true }))

// Every token is its own position in the epoch: shard s starts at s·1000.
const SIZES = [100, 61, 40]
for (const [s, size] of SIZES.entries()) {
  const tokens = Uint16Array.from({ length: size }, (_, i) => s * 1000 + i)
  writeTokens(join(folder, `shard_${s}.bin`), tokens)
}
const ALL = join(folder, "shard_*.bin")
const SHAPE = { B: 2, T: 5, vocabulary: 50257 }

// (100 − 1)/5, (61 − 1)/5 and (40 − 1)/5 sequences, rounded down, by their first tokens.
const EPOCH = [19, 12, 7].flatMap((n, s) => Array.from({ length: n }, (_, i) => s * 1000 + i * 5))

function read(loader: Loader, batches: number, B = SHAPE.B): number[][] {
  return Array.from({ length: batches }, () => {
    const inputs = new Int32Array(B * 5).fill(-1)
    const targets = new Int32Array(B * 5).fill(-1)
    loader.next(inputs, targets)
    // Targets are the inputs shifted by one: here, tokens count upwards.
    expect([...targets]).toEqual([...inputs].map((token) => token + 1))
    return [...inputs]
  })
}

const count = (first: number) => Array.from({ length: 5 }, (_, i) => first + i)

describe("in sequence", () => {
  test("batches are the next sequences, wherever a shard ends, epoch after epoch", () => {
    const loader = Loader.open(ALL, SHAPE)
    expect(loader.batchesPerEpoch).toBe(19)
    expect(loader.tokenCount).toBe(201)
    expect(read(loader, 20).flat()).toEqual([...EPOCH, ...EPOCH.slice(0, 2)].flatMap(count))
    expect(loader.position).toEqual({ epoch: 1, shard: 0, sequence: 2 })
  })

  test("ranks share each step's sequences", () => {
    const loaders = [0, 1, 2].map((rank) => Loader.open(ALL, { ...SHAPE, rank, ranks: 3 }))
    expect(loaders.map((loader) => loader.batchesPerEpoch)).toEqual([6, 6, 6])
    expect(loaders.map((loader) => read(loader, 4).map((batch) => batch[0]))).toEqual([
      [0, 30, 60, 90],
      [10, 40, 70, 1005],
      [20, 50, 80, 1015],
    ])
  })

  test("reset goes back to the start", () => {
    const loader = Loader.open(ALL, SHAPE)
    const first = read(loader, 25)
    loader.reset()
    expect(read(loader, 25)).toEqual(first)
  })

  test("tokens in memory give the same batches as a file of them", () => {
    const tokens = Uint16Array.from({ length: 100 }, (_, i) => i)
    const memory = Loader.over("corpus", tokens, SHAPE)
    const file = Loader.open(join(folder, "shard_0.bin"), SHAPE)
    expect(read(memory, 12)).toEqual(read(file, 12))
  })
})

describe("shuffled", () => {
  const shuffled = (seed: number): LoaderOptions => ({ ...SHAPE, shuffle: true, seed })

  test("every epoch holds every sequence once, a shard at a time, in its own order", () => {
    fc.assert(
      fc.property(fc.nat({ max: 2 ** 32 }), (seed) => {
        const loader = Loader.open(ALL, shuffled(seed))
        const epochs = [read(loader, 19), read(loader, 19)].map((batches) =>
          batches.flat().filter((_, i) => i % 5 === 0),
        )
        for (const epoch of epochs) {
          expect(epoch.toSorted((a, b) => a - b)).toEqual(EPOCH)
          const shards = epoch.map((first) => Math.floor(first / 1000))
          const changes = shards.filter((shard, i) => i > 0 && shard !== shards[i - 1])
          expect(changes.length).toBe(2)
        }
        expect(epochs[0]).not.toEqual(epochs[1]!)
      }),
      { numRuns: 30 },
    )
  })

  test("the order depends on the seed alone", () => {
    const orders = [1, 1, 2, 1 + 2 ** 32].map((seed) => read(Loader.open(ALL, shuffled(seed)), 19))
    expect(orders[1]).toEqual(orders[0]!)
    expect(orders[2]).not.toEqual(orders[0]!)
    expect(orders[3]).not.toEqual(orders[0]!)
  })
})

test("a saved position goes on exactly, through JSON, in either order", () => {
  fc.assert(
    fc.property(
      fc.boolean(),
      fc.nat(1000),
      fc.nat(60),
      fc.nat(60),
      (shuffle, seed, before, elsewhere) => {
        const options = { ...SHAPE, shuffle, seed }
        const loader = Loader.open(ALL, options)
        read(loader, before)
        const saved = JSON.stringify(loader.position)
        const expected = read(loader, 25)
        const other = Loader.open(ALL, options)
        read(other, elsewhere)
        other.restore(JSON.parse(saved))
        expect(read(other, 25)).toEqual(expected)
      },
    ),
    { numRuns: 40 },
  )
})

test("the order of the data is the same for every batch size, from any position on", () => {
  fc.assert(
    fc.property(fc.boolean(), fc.nat(1000), fc.nat(40), (shuffle, seed, before) => {
      const options = { ...SHAPE, shuffle, seed }
      const twos = Loader.open(ALL, options)
      read(twos, before)
      const { position } = twos
      const expected = read(twos, 30).flat()
      for (const [B, batches] of [
        [1, 60],
        [3, 20],
        [4, 15],
        [6, 10],
      ] as const) {
        const other = Loader.open(ALL, { ...options, B })
        other.restore(position)
        expect(read(other, batches, B).flat()).toEqual(expected)
      }
    }),
    { numRuns: 20 },
  )
})

describe("a file that does not stay as it was", () => {
  const path = join(folder, "unsteady.bin")
  const original = Uint16Array.from({ length: 100 }, (_, i) => i)
  const shorter = original.subarray(0, 99)
  test.each<[string, () => void, string]>([
    ["changed in place", () => writeFileSync(path, "x", { flag: "r+" }), "the file has changed"],
    ["cut short", () => truncateSync(path, 1050), "the file has changed"],
    ["replaced", () => writeTokens(path, shorter), "the file has changed"],
    ["gone", () => rmSync(path), "cannot read any more: no such file or folder"],
  ])("%s: the next batch names it", (_, change, message) => {
    writeTokens(path, original)
    const loader = Loader.open(path, SHAPE)
    read(loader, 3)
    change()
    expect(() => read(loader, 1)).toThrow(FileChanged)
    expect(() => read(loader, 1)).toThrow(`${path}: ${message}`)
  })
})

test("a file that is replaced by its like is as good", () => {
  const path = join(folder, "steady.bin")
  const tokens = Uint16Array.from({ length: 100 }, (_, i) => i)
  writeTokens(path, tokens)
  const [loader, other] = [Loader.open(path, SHAPE), Loader.open(path, SHAPE)]
  const expected = read(other, 12)
  const before = read(loader, 3)
  writeTokens(path, tokens)
  expect([...before, ...read(loader, 9)]).toEqual(expected)
})

describe("files are found", () => {
  test("by a glob in the order of their names, links included", () => {
    symlinkSync("shard_1.bin", join(folder, "link_0.bin"))
    const names = (pattern: string) =>
      findFiles(join(folder, pattern)).map((path) => path.slice(folder.length + 1))
    expect(names("*_[01].bin")).toEqual(["link_0.bin", "shard_0.bin", "shard_1.bin"])
    expect(names("shard_{2,0}.bin")).toEqual(["shard_0.bin", "shard_2.bin"])
  })

  test("a name with brackets is meant literally where there is such a file", () => {
    const path = join(folder, "data[1].bin")
    writeTokens(path, new Uint16Array(50))
    expect(findFiles(path)).toEqual([path])
  })
})

describe("refused in one line", () => {
  const tooBig = join(folder, "vocabulary.bin")
  writeTokens(
    tooBig,
    Uint16Array.from({ length: 40 }, (_, i) => 90 + i),
  )
  const cases: [string, string, Partial<LoaderOptions>, string][] = [
    ["a glob without a match", join(folder, "*.nothing"), {}, "no file matches"],
    ["a missing file", join(folder, "missing.bin"), {}, "no such file or folder"],
    [
      "a shard shorter than a batch",
      ALL,
      { B: 4, T: 10 },
      "shard_2.bin: 40 tokens are too few for one batch of 4×10, which reads 41",
    ],
    [
      "a shard shorter than a batch of all ranks",
      ALL,
      { ranks: 4 },
      "shard_2.bin: 40 tokens are too few for one batch of 4 ranks of 2×5, which reads 41",
    ],
    [
      "a token out of the vocabulary",
      tooBig,
      { vocabulary: 100 },
      "token 10 is 100, but the vocabulary has 100",
    ],
  ]
  test.each(cases)("%s", (_, pattern, options, message) => {
    const open = () => Loader.open(pattern, { ...SHAPE, ...options })
    expect(open).toThrow(UserError)
    expect(open).toThrow(message)
    expect(open).not.toThrow(/\n/)
  })

  test("a bad token in a later shard, before anything is read", () => {
    for (const shuffle of [false, true]) {
      const options = { ...SHAPE, vocabulary: 1050, shuffle }
      const open = () => Loader.open(join(folder, "shard_{0,1}.bin"), options)
      expect(open).toThrow(/shard_1.bin: token 50 is 1,050, but the vocabulary has 1,050 /)
    }
  })

  test.each([
    { epoch: 0, shard: 3, sequence: 0 },
    { epoch: 0, shard: 0, sequence: 19 },
    { epoch: -1, shard: 0, sequence: 0 },
    { epoch: 0, shard: 0, sequence: 0.5 },
    { epoch: 0, shard: 0, sequence: Number.NaN },
  ])("a saved position that does not fit: $epoch, $shard, $sequence", (position) => {
    expect(() => Loader.open(ALL, SHAPE).restore(position)).toThrow(UserError)
  })
})
