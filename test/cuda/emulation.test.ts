// The emulated GPU itself: what a kernel does wrong has to show, in some order of threads at least, and
// a kernel that does nothing wrong gives its result in every order.

import { describe, expect, test } from "bun:test"
import { EMULATED_CUDA } from "../../src/build/emulated.ts"
import { parseContract } from "../../src/native/contract.ts"
import { DeviceLibrary, emulationNeeds } from "./library.ts"

// Of each, what its mistake is called when it is beyond a doubt; others show in the numbers.
const PLANTED: [title: string, name: string, message?: RegExp][] = [
  ["a missing barrier between writing and reading shared memory", "planted_race"],
  ["a missing barrier before shared memory is written again", "planted_reuse"],
  ["a missing __syncwarp between lanes", "planted_lanes"],
  ["a copy that is read before it was waited for", "planted_copy"],
  ["a tile that is read before its mbarrier was waited for", "planted_tile"],
  [
    "a block that ends before its tiles have come",
    "planted_tile_left",
    /^block 0,0,0 ended with 1 copies on their way/,
  ],
  ["a stream that does not wait for another", "planted_streams"],
  [
    "a barrier that some threads do not reach",
    "planted_barrier",
    /^100 of 256 threads of block 0,0,0 wait at a barrier that the others never reach/,
  ],
  [
    "a lane that is missing from a shuffle",
    "planted_shuffle",
    /waits in a warp-wide call that lane 3 never makes/,
  ],
  [
    "writing past dynamic shared memory",
    "planted_overflow",
    /block 0,0,0 wrote past its 1024 bytes of dynamic shared memory/,
  ],
  ["an address that is not aligned", "planted_address", /is not aligned to 8 bytes/],
  ["a grid that is too large", "planted_grid", /a grid of 1x65536x1 blocks/],
  ["a block that is too large", "planted_block", /a block of 1056x1x1 threads/],
  ["more shared memory than there is", "planted_memory", /232449 bytes of shared memory/],
]
const SEEDS = [1, 2, 3, 4, 5, 6]

const signatures = parseContract(
  PLANTED.map(([, name]) => `void ${name}(float *out, int mended);`).join("\n"),
)

const reason = await emulationNeeds()
const heading = reason ? `skipped: ${reason}` : "the emulated GPU"
describe.skipIf(reason !== undefined)(heading, () => {
  const open = () => DeviceLibrary.open(EMULATED_CUDA, signatures, "")
  const expected = Float32Array.from({ length: 256 }, (_, i) => 255 - i)

  for (const [title, name, message] of PLANTED) {
    test(`shows ${title}`, () => {
      const library = open()
      const memory = library.onDevice(4096)
      const run = (seed: number, isMended: boolean) => {
        library.seed(seed)
        library.call(name, memory.address, Number(isMended))
        library.wait()
        const out = new Float32Array(expected.length)
        memory.download(out)
        return out
      }
      for (const seed of SEEDS) expect(run(seed, true)).toEqual(expected)
      if (message) {
        for (const seed of SEEDS) expect(() => run(seed, false)).toThrow(message)
      } else {
        const differing = SEEDS.filter((seed) => !Bun.deepEquals(run(seed, false), expected))
        expect(differing).not.toEqual([])
      }
      expect(run(1, true)).toEqual(expected) // an error is told once
    })
  }
})
