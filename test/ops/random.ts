// Numbers for the cases: drawn from the case's own title, so that a case is the same in every run
// and on every library, and no two cases are alike.

export class Random {
  /** Whether the numbers are for a kernel's bf16 kind. */
  readonly isBf16: boolean = false
  private state: number

  constructor(seed: string) {
    this.state = Bun.hash.crc32(seed)
  }

  /** 32 random bits: a counter, scrambled (Steele, Lea, Flood 2014, in 32-bit form). */
  private bits(): number {
    this.state = (this.state + 0x9e3779b9) | 0
    let z = this.state
    z = Math.imul(z ^ (z >>> 16), 0x21f0aaad)
    z = Math.imul(z ^ (z >>> 15), 0x735a2d97)
    return (z ^ (z >>> 15)) >>> 0
  }

  /** In (0, 1). */
  uniform(): number {
    return (this.bits() + 0.5) / 2 ** 32
  }

  /** In 0 … n - 1. */
  integer(n: number): number {
    return Math.floor(this.uniform() * n)
  }

  normal(): number {
    return Math.sqrt(-2 * Math.log(this.uniform())) * Math.cos(2 * Math.PI * this.uniform())
  }

  /** Numbers computed from drawn ones, as a kernel's arrays can hold them. */
  stored(numbers: Float32Array): Float32Array {
    return numbers
  }

  normals(n: number, scale = 1): Float32Array {
    const numbers = new Float32Array(n)
    for (let i = 0; i < n; i++) numbers[i] = scale * this.normal()
    return numbers
  }

  uniforms(n: number, low: number, high: number): Float32Array {
    return Float32Array.from({ length: n }, () => low + (high - low) * this.uniform())
  }

  integers(n: number, below: number): Int32Array {
    return Int32Array.from({ length: n }, () => this.integer(below))
  }

  signs(n: number): number[] {
    return Array.from({ length: n }, () => (this.bits() & 1 ? 1 : -1))
  }
}
