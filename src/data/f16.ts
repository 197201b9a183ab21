// f16, IEEE 754's binary16, for single numbers; arrays of them are Float16Array's.

const f16 = new Float16Array(1)
const bits = new Uint16Array(f16.buffer)

/** The number that 16 bits stand for. */
export function fromF16(half: number): number {
  bits[0] = half
  return f16[0]!
}

/** The 16 bits of the nearest f16; a tie goes to the even one. From 65,520 on, that is infinity. */
export function roundToF16(x: number): number {
  f16[0] = x
  return bits[0]!
}
