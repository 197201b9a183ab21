/* The microkernel's 32-bit units (product.h): one f32, or two bf16 of neighbouring k's. */
#ifndef LLM_UNIT_H
#define LLM_UNIT_H

#include "simd.h"

#ifdef LLM_BF16
typedef u32 pair_anywhere __attribute__((aligned(2), may_alias));
typedef float pairs_anywhere __attribute__((vector_size(4 * LANES), aligned(2), may_alias));

#if defined __ARM_FEATURE_BF16_VECTOR_ARITHMETIC
// BFDOT multiplies by one lane, so that one is all there is to load.
INLINE vec splat_bits(u32 bits) { return (vec)(uint64x2_t){bits}; }
#else
INLINE vec splat_bits(u32 bits) { return (vec)((veci){} + (int)bits); }
#endif
INLINE vec splat_unit(const real *p) { return splat_bits(*(const pair_anywhere *)p); }
INLINE vec splat_half(const real *p) { return splat_bits(*p); }

/* acc + a·b over both numbers of each unit; a is one unit for all lanes of b. */
INLINE vec multiply_add(vec acc, vec a, vec b) {
#if defined __AVX512BF16__
    return (vec)_mm512_dpbf16_ps((__m512)acc, (__m512bh)a, (__m512bh)b);
#elif defined __ARM_FEATURE_BF16_VECTOR_ARITHMETIC
    const bfloat16x4_t first = (bfloat16x4_t)vget_low_f32((float32x4_t)a);
    return (vec)vbfdotq_lane_f32((float32x4_t)acc, (bfloat16x8_t)b, first, 0);
#else
    const veci x = (veci)a, y = (veci)b, upper = (veci){} + (int)0xffff0000;
    acc += (vec)(x << 16) * (vec)(y << 16);
    return acc + (vec)(x & upper) * (vec)(y & upper);
#endif
}

/* Units along a row, `left` numbers of them; zeros follow. */
INLINE vec load_units(const real *p, i64 left) {
#if AVX512
    const u32 some = (u32)((1ull << min_i64(left, 32)) - 1);
    return (vec)_mm512_maskz_loadu_epi16(some, p);
#else
    if (left >= 2 * LANES) return *(const pairs_anywhere *)p;
    real numbers[2 * LANES] = {0};
    for (i64 i = 0; i < left; i++) numbers[i] = p[i];
    return *(const pairs_anywhere *)numbers;
#endif
}

/* Units of two rows, `stride` apart, of which there may be one only. */
INLINE vec load_pairs(const real *p, i64 stride, i64 rows, i64 left) {
    const bf16s odd = rows > 1 ? load_n_bits(p + stride, left) : (bf16s){};
    return (vec)(zero_extend(load_n_bits(p, left)) | zero_extend(odd) << 16);
}

/* acc + both numbers of each unit. */
INLINE vec add_units(vec acc, vec x) {
#if defined __AVX512BF16__
    const __m512bh ones = (__m512bh)_mm512_set1_epi16(0x3f80);
    return (vec)_mm512_dpbf16_ps((__m512)acc, (__m512bh)x, ones);
#else
    return acc + (vec)((veci)x << 16) + (vec)((veci)x & (int)0xffff0000);
#endif
}

INLINE vec to_unit(const vec x[2]) {
#if defined __ARM_FEATURE_BF16_VECTOR_ARITHMETIC // GCC 12 takes the conversion apart
    const uint16x8_t low = (uint16x8_t)vcvtq_low_bf16_f32((float32x4_t)x[0]);
    return (vec)vzip1q_u16(low, (uint16x8_t)vcvtq_low_bf16_f32((float32x4_t)x[1]));
#else
    return (vec)(zero_extend(to_bf16(x[0])) | zero_extend(to_bf16(x[1])) << 16);
#endif
}
#else
INLINE vec splat_unit(const real *p) { return splat(*p); }
INLINE vec splat_half(const real *p) { return splat(*p); } // a unit has no halves: never needed
INLINE vec multiply_add(vec acc, vec a, vec b) { return acc + a * b; }
INLINE vec load_units(const real *p, i64 left) { return load_n(p, left); }
INLINE vec add_units(vec acc, vec x) { return acc + x; }
INLINE vec to_unit(const vec x[1]) { return x[0]; }
INLINE vec load_pairs(const real *p, i64 stride, i64 rows, i64 left) {
    (void)stride, (void)rows;
    return load_n(p, left);
}
#endif

#endif
