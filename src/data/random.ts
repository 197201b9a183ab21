// Seeded random numbers for the order of batches and for the built-in corpus: xoshiro128**
// (Blackman, Vigna 2018), its state filled from the seeds by splitmix32. The same seeds give the
// same numbers on every machine.

export class Random {
  private readonly state = new Uint32Array(4)

  constructor(...seeds: number[]) {
    let word = 0
    for (const seed of seeds) {
      // Both halves, so that seeds beyond 32 bits differ.
      word = splitmix((word ^ seed) >>> 0)
      word = splitmix((word ^ Math.floor(seed / 2 ** 32)) >>> 0)
    }
    for (let i = 0; i < 4; i++) {
      this.state[i] = splitmix(word)
      word = (word + 0x9e3779b9) >>> 0
    }
  }

  /** A whole number in [0, 2³²). */
  next(): number {
    const s = this.state
    const s0 = s[0]!
    const s1 = s[1]!
    const s2 = s[2]!
    const s3 = s[3]!
    const result = Math.imul(rotate(Math.imul(s1, 5), 7), 9) >>> 0
    const t2 = s2 ^ s0
    const t3 = s3 ^ s1
    s[1] = s1 ^ t2
    s[0] = s0 ^ t3
    s[2] = t2 ^ (s1 << 9)
    s[3] = rotate(t3, 11)
    return result
  }

  /** A whole number in [0, n), n ≤ 2³². Draws that would favour small results are thrown away. */
  below(n: number): number {
    const limit = 2 ** 32 - (2 ** 32 % n)
    let draw = this.next()
    while (draw >= limit) draw = this.next()
    return draw % n
  }

  /** A number in [0, 1) with 53 bits. */
  uniform(): number {
    return ((this.next() >>> 5) * 2 ** 26 + (this.next() >>> 6)) / 2 ** 53
  }

  /** 0 … n−1 in random order (Fisher, Yates). */
  permutation(n: number): Uint32Array {
    const order = new Uint32Array(n)
    for (let i = 0; i < n; i++) {
      const j = this.below(i + 1)
      order[i] = order[j]!
      order[j] = i
    }
    return order
  }
}

function rotate(x: number, bits: number): number {
  return (x << bits) | (x >>> (32 - bits))
}

function splitmix(seed: number): number {
  let z = (seed + 0x9e3779b9) >>> 0
  z = Math.imul(z ^ (z >>> 16), 0x21f0aaad)
  z = Math.imul(z ^ (z >>> 15), 0x735a2d97)
  return (z ^ (z >>> 15)) >>> 0
}
