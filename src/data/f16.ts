// f16, IEEE 754's binary16, for numbers that JavaScript reads and writes.

const f32 = new Float32Array(1)
const bits = new Uint32Array(f32.buffer)

/** All that there are, by their bits: made on first use. */
let table: Float32Array | undefined

/** The number that 16 bits stand for. */
export function fromF16(half: number): number {
  table ??= Float32Array.from({ length: 65536 }, (_, i) => compute(i))
  return table[half]!
}

function compute(half: number): number {
  const sign = half & 0x8000 ? -1 : 1
  const exponent = (half >> 10) & 31
  const mantissa = half & 0x3ff
  if (exponent === 31) return mantissa ? Number.NaN : sign * Number.POSITIVE_INFINITY
  if (exponent === 0) return sign * mantissa * 2 ** -24
  return sign * (1024 + mantissa) * 2 ** (exponent - 25)
}

/** The 16 bits of the nearest f16; a tie goes to the even one. From 65,520 on, that is infinity. */
export function roundToF16(x: number): number {
  f32[0] = x
  const word = bits[0]!
  const sign = (word >>> 16) & 0x8000
  const size = word & 0x7fffffff
  if (size > 0x7f800000) return sign | 0x7e00 // NaN
  if (size >= 0x477ff000) return sign | 0x7c00
  // From the smallest normal number, 2⁻¹⁴, on: the exponent's bias is 112 less, 13 bits are rounded.
  const moved = size - (112 << 23)
  if (moved >= 1 << 23) return sign | ((moved + 0xfff + ((moved >>> 13) & 1)) >>> 13)
  const units = Math.abs(f32[0]) * 2 ** 24 // of the subnormal numbers, exact
  const down = Math.floor(units)
  const above = units - down
  return sign | (down + (above > 0.5 || (above === 0.5 && down % 2 === 1) ? 1 : 0))
}
