/* One vector of floats, as wide as the instruction set this file is compiled for: GCC's vector
 * extensions carry the arithmetic (+ - * / and comparisons, so that one source serves AVX2, AVX-512
 * and NEON), intrinsics only what they cannot say: masked ends, minimum, maximum, square root. */
#ifndef LLM_SIMD_H
#define LLM_SIMD_H

#include <stddef.h>

#include "../llm.h"

#if defined __AVX512F__
#include <immintrin.h>
#define AVX512 1
#define LANES 16
#define VECTORS 4 // of a microkernel's row: 6 rows × 4 = 24 of 32 registers add up
#elif defined LLM_LANES_16
#include <math.h>
#define LANES 16 // without the instructions: the tests' way to run AVX-512's code on any machine
#define VECTORS 4
#elif defined __AVX2__
#include <immintrin.h>
#define AVX2 1
#define LANES 8
#define VECTORS 2 // 12 of 16
#else
#define LANES 4
#define VECTORS 4 // 24 of NEON's 32
#if defined __ARM_NEON
#include <arm_neon.h>
#else
#include <math.h>
#endif
#endif

#if defined __AMX_BF16__ || defined LLM_EMULATED_AMX
#define AMX 1
#endif

#define INLINE static inline __attribute__((always_inline, unused))
#define HIDDEN __attribute__((visibility("hidden")))

typedef float vec __attribute__((vector_size(4 * LANES), may_alias));
typedef float vec_anywhere __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef int veci __attribute__((vector_size(4 * LANES), may_alias));
typedef u32 vecu __attribute__((vector_size(4 * LANES), may_alias));
typedef float half_anywhere __attribute__((vector_size(2 * LANES), aligned(4), may_alias));
typedef double vecd __attribute__((vector_size(4 * LANES))); // of as many numbers as a half

typedef unsigned short bf16s __attribute__((vector_size(2 * LANES), aligned(2), may_alias));

INLINE i64 min_i64(i64 a, i64 b) { return a < b ? a : b; }
INLINE i64 max_i64(i64 a, i64 b) { return a > b ? a : b; }
INLINE i64 ceil_div(i64 a, i64 b) { return (a + b - 1) / b; }
INLINE i64 round_up(i64 a, i64 b) { return ceil_div(a, b) * b; }

#if LANES == 16
#define IOTA (veci){0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}
#elif LANES == 8
#define IOTA (veci){0, 1, 2, 3, 4, 5, 6, 7}
#else
#define IOTA (veci){0, 1, 2, 3}
#endif

INLINE vec splat(float x) {
#if AVX512
    return (vec)_mm512_set1_ps(x);
#elif AVX2
    return (vec)_mm256_set1_ps(x);
#else
    return x - (vec){};
#endif
}

INLINE vecu zero_extend(bf16s x) {
#if AVX512 // GCC 12 would widen halves, and put them together
    return (vecu)_mm512_cvtepu16_epi32((__m256i)x);
#else
    return __builtin_convertvector(x, vecu);
#endif
}

/* What is stored as bf16 is the upper half of an f32: read exactly, written to nearest even. */
INLINE vec from_bf16(bf16s x) {
#if defined __ARM_NEON
    return (vec)vshll_n_u16((uint16x4_t)x, 16);
#else
    return (vec)(zero_extend(x) << 16);
#endif
}

INLINE bf16s to_bf16(vec v) {
#if defined __AVX512BF16__
    return (bf16s)_mm512_cvtneps_pbh((__m512)v);
#elif defined __ARM_FEATURE_BF16_VECTOR_ARITHMETIC
    return (bf16s)vcvt_bf16_f32((float32x4_t)v);
#else
    // A tie stays even; a NaN is kept one, as its fraction could be cut to 0. Unsigned: a NaN's bits
    // may wrap.
    const vecu bits = (vecu)v, nan = (vecu)(v != v);
    const vecu even = bits + 0x7fff + (bits >> 16 & 1);
    return __builtin_convertvector(((nan & (bits | 0x400000)) | (~nan & even)) >> 16, bf16s);
#endif
}

INLINE vec load_f32(const float *p) { return *(const vec_anywhere *)p; }
INLINE vec load_bf16(const bf16 *p) { return from_bf16(*(const bf16s *)p); }
INLINE void store_f32(float *p, vec v) { *(vec_anywhere *)p = v; }
INLINE void store_bf16(bf16 *p, vec v) { *(bf16s *)p = to_bf16(v); }

/* What is read back after v has been stored. */
INLINE vec as_stored_f32(const float *p, vec v) { return (void)p, v; }
INLINE vec as_stored_bf16(const bf16 *p, vec v) { return (void)p, from_bf16(to_bf16(v)); }

/* The first `left` lanes from or to memory (all of them when left >= LANES), which is neither read
 * nor written beyond; the other lanes are 0. left >= 0. */
INLINE vec load_n_f32(const float *p, i64 left) {
    if (left >= LANES) return load_f32(p);
#if AVX512
    return (vec)_mm512_maskz_loadu_ps((__mmask16)((1u << left) - 1), p);
#elif AVX2
    return (vec)_mm256_maskload_ps(p, (__m256i)(IOTA < (int)left));
#elif defined __ARM_NEON
    float32x2_t low = vdup_n_f32(0), high = low;
    if (left & 2) low = vld1_f32(p);
    if (left == 1) low = vld1_lane_f32(p, low, 0);
    if (left == 3) high = vld1_lane_f32(p + 2, high, 0);
    return (vec)vcombine_f32(low, high);
#else
    vec v = splat(0);
    for (int i = 0; i < left; i++) v[i] = p[i];
    return v;
#endif
}

INLINE bf16s load_n_bits(const bf16 *p, i64 left) {
    if (left >= LANES) return *(const bf16s *)p;
#if AVX512
    return (bf16s)_mm256_maskz_loadu_epi16((__mmask16)((1u << left) - 1), p);
#else
    bf16s v = {0};
    for (int i = 0; i < left; i++) v[i] = p[i];
    return v;
#endif
}

INLINE vec load_n_bf16(const bf16 *p, i64 left) { return from_bf16(load_n_bits(p, left)); }

INLINE void store_n_f32(float *p, vec v, i64 left) {
    if (left >= LANES) {
        store_f32(p, v);
        return;
    }
#if AVX512
    _mm512_mask_storeu_ps(p, (__mmask16)((1u << left) - 1), (__m512)v);
#elif AVX2
    _mm256_maskstore_ps(p, (__m256i)(IOTA < (int)left), (__m256)v);
#elif defined __ARM_NEON
    if (left & 2) vst1_f32(p, vget_low_f32((float32x4_t)v));
    if (left == 1) vst1q_lane_f32(p, (float32x4_t)v, 0);
    if (left == 3) vst1q_lane_f32(p + 2, (float32x4_t)v, 2);
#else
    for (int i = 0; i < left; i++) p[i] = v[i];
#endif
}

INLINE void store_n_bf16(bf16 *p, vec v, i64 left) {
    if (left >= LANES) {
        store_bf16(p, v);
        return;
    }
    const bf16s half = to_bf16(v);
#if AVX512
    _mm256_mask_storeu_epi16(p, (__mmask16)((1u << left) - 1), (__m256i)half);
#else
    for (int i = 0; i < left; i++) p[i] = half[i];
#endif
}

/* store_n past the caches, where whole aligned vectors allow: memory that is overwritten is not
 * fetched first. stream_end, by the same thread, comes before anybody else reads it. */
INLINE void stream_n_f32(float *p, vec v, i64 left) {
#if AVX512
    if (left >= LANES && (unsigned long)p % sizeof v == 0) _mm512_stream_ps(p, (__m512)v);
#elif AVX2
    if (left >= LANES && (unsigned long)p % sizeof v == 0) _mm256_stream_ps(p, (__m256)v);
#else
    if (0) return;
#endif
    else store_n_f32(p, v, left);
}

// Half a cache line at a time: the write-combining buffers put the halves together.
INLINE void stream_n_bf16(bf16 *p, vec v, i64 left) {
#if AVX512
    if (left >= LANES && (unsigned long)p % sizeof(bf16s) == 0)
        _mm256_stream_si256((__m256i *)p, (__m256i)to_bf16(v));
#else
    if (0) return;
#endif
    else store_n_bf16(p, v, left);
}

INLINE void stream_end(void) {
#if AVX512 || AVX2
    _mm_sfence();
#endif
}

// One name for both types of number.
#define BY_TYPE(f, p) _Generic((p), float *: f##_f32, const float *: f##_f32, default: f##_bf16)
#define load(p) BY_TYPE(load, p)(p)
#define load_n(p, left) BY_TYPE(load_n, p)(p, left)
#define store(p, v) BY_TYPE(store, p)(p, v)
#define store_n(p, v, left) BY_TYPE(store_n, p)(p, v, left)
#define stream_n(p, v, left) BY_TYPE(stream_n, p)(p, v, left)
#define as_stored(p, v) BY_TYPE(as_stored, p)(p, v)

/* Where either operand is NaN: b, or NaN on NEON. So a value that must show is kept in b. */
INLINE vec vmax(vec a, vec b) {
#if AVX512
    return (vec)_mm512_max_ps((__m512)a, (__m512)b);
#elif AVX2
    return (vec)_mm256_max_ps((__m256)a, (__m256)b);
#elif defined __ARM_NEON
    return (vec)vmaxq_f32((float32x4_t)a, (float32x4_t)b);
#else
    veci take = a > b;
    return (vec)((take & (veci)a) | (~take & (veci)b));
#endif
}

INLINE vec vmin(vec a, vec b) {
#if AVX512
    return (vec)_mm512_min_ps((__m512)a, (__m512)b);
#elif AVX2
    return (vec)_mm256_min_ps((__m256)a, (__m256)b);
#elif defined __ARM_NEON
    return (vec)vminq_f32((float32x4_t)a, (float32x4_t)b);
#else
    veci take = a < b;
    return (vec)((take & (veci)a) | (~take & (veci)b));
#endif
}

INLINE vec vsqrt(vec a) {
#if AVX512
    return (vec)_mm512_sqrt_ps((__m512)a);
#elif AVX2
    return (vec)_mm256_sqrt_ps((__m256)a);
#elif defined __ARM_NEON
    return (vec)vsqrtq_f32((float32x4_t)a);
#else
    for (int i = 0; i < LANES; i++) a[i] = sqrtf(a[i]);
    return a;
#endif
}

/* a with the lanes from `left` on replaced by b. */
INLINE vec keep_n(vec a, vec b, i64 left) {
    veci keep = IOTA < (int)min_i64(left, LANES);
    return (vec)((keep & (veci)a) | (~keep & (veci)b));
}

/* Over all lanes, as a fixed tree. */
INLINE float sum(vec v) {
#if AVX512
    return _mm512_reduce_add_ps((__m512)v);
#elif defined __ARM_NEON
    return vaddvq_f32((float32x4_t)v);
#else
    for (int h = LANES / 2; h; h /= 2)
        for (int i = 0; i < h; i++) v[i] += v[i + h];
    return v[0];
#endif
}

INLINE float max_lane(vec v) {
#if AVX512
    return _mm512_reduce_max_ps((__m512)v);
#elif defined __ARM_NEON
    return vmaxvq_f32((float32x4_t)v);
#else
    float m = v[0];
    for (int i = 1; i < LANES; i++) m = v[i] > m ? v[i] : m;
    return m;
#endif
}

#if LANES == 16
#define LOW_PAIRS 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23
#define HIGH_PAIRS 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31
#elif LANES == 8
#define LOW_PAIRS 0, 8, 1, 9, 2, 10, 3, 11
#define HIGH_PAIRS 4, 12, 5, 13, 6, 14, 7, 15
#else
#define LOW_PAIRS 0, 4, 1, 5
#define HIGH_PAIRS 2, 6, 3, 7
#endif

#if defined __clang__
#define SHUFFLE(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define SHUFFLE(a, b, ...) __builtin_shuffle(a, b, (veci){__VA_ARGS__})
#endif

// Interleaving row i with row i + LANES/2 rotates the bits of an element's index by one place;
// after log2(LANES) rounds row and column have changed places.
INLINE void transpose(vec r[LANES]) {
    vec t[LANES];
#pragma GCC unroll 4
    for (int round = 1; round < LANES; round *= 2) {
#pragma GCC unroll 16
        for (int i = 0; i < LANES / 2; i++) {
            t[2 * i] = SHUFFLE(r[i], r[i + LANES / 2], LOW_PAIRS);
            t[2 * i + 1] = SHUFFLE(r[i], r[i + LANES / 2], HIGH_PAIRS);
        }
#pragma GCC unroll 16
        for (int i = 0; i < LANES; i++) r[i] = t[i];
    }
}

#endif
