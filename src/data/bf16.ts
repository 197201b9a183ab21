// bf16, the upper half of an f32, for numbers that JavaScript reads and writes.

const f32 = new Float32Array(1)
const bits = new Uint32Array(f32.buffer)

/** The number that 16 bits stand for. */
export function fromBf16(half: number): number {
  bits[0] = half << 16
  return f32[0]!
}

/** The 16 bits of the nearest bf16; a tie goes to the even one. */
export function roundToBf16(x: number): number {
  f32[0] = x
  const word = bits[0]!
  if (Number.isNaN(x)) return (word >>> 16) | 0x40
  return (word + 0x7fff + ((word >>> 16) & 1)) >>> 16
}

/** Rounds as many numbers as `out` has room for. */
export function roundAll(out: Uint16Array, numbers: Float32Array): void {
  for (let i = 0; i < out.length; i++) out[i] = roundToBf16(numbers[i]!)
}

/** Makes f32 of as many numbers as `out` has room for. */
export function widenAll(out: Float32Array, halves: Uint16Array): void {
  const words = new Uint32Array(out.buffer, out.byteOffset, out.length)
  for (let i = 0; i < words.length; i++) words[i] = halves[i]! << 16
}
