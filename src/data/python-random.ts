// Python's random.shuffle, as some data sets were shuffled with it: the Mersenne Twister MT19937
// (Matsumoto, Nishimura 1998), seeded by init_by_array.

const [N, M] = [624, 397]

export class PythonRandom {
  private readonly state = new Uint32Array(N)
  private index = N

  /** A seed below 2³². */
  constructor(seed: number) {
    const s = this.state
    s[0] = 19_650_218
    for (let i = 1; i < N; i++) s[i] = Math.imul(1_812_433_253, mixed(s[i - 1]!)) + i
    let i = 1
    const wrap = () => {
      if (++i < N) return
      s[0] = s[N - 1]!
      i = 1
    }
    // The key has one word, so its index, which is added as well, is 0.
    for (let k = 0; k < N; k++) {
      s[i] = (s[i]! ^ Math.imul(mixed(s[i - 1]!), 1_664_525)) + seed
      wrap()
    }
    for (let k = 1; k < N; k++) {
      s[i] = (s[i]! ^ Math.imul(mixed(s[i - 1]!), 1_566_083_941)) - i
      wrap()
    }
    s[0] = 0x80000000
  }

  /** 32 random bits. */
  private next(): number {
    if (this.index === N) this.refill()
    let y = this.state[this.index++]!
    y ^= y >>> 11
    y ^= (y << 7) & 0x9d2c5680
    y ^= (y << 15) & 0xefc60000
    return (y ^ (y >>> 18)) >>> 0
  }

  private refill(): void {
    const s = this.state
    for (let i = 0; i < N; i++) {
      const y = (s[i]! & 0x80000000) | (s[(i + 1) % N]! & 0x7fffffff)
      s[i] = s[(i + M) % N]! ^ (y >>> 1) ^ (y & 1 ? 0x9908b0df : 0)
    }
    this.index = 0
  }

  /** Draws as many bits as n has, until they are below n. */
  private below(n: number): number {
    const shift = Math.clz32(n)
    let draw = this.next() >>> shift
    while (draw >= n) draw = this.next() >>> shift
    return draw
  }

  shuffle(items: unknown[]): void {
    for (let i = items.length - 1; i > 0; i--) {
      const j = this.below(i + 1)
      const item = items[i]
      items[i] = items[j]
      items[j] = item
    }
  }
}

const mixed = (word: number) => word ^ (word >>> 30)
