/* One vector of floats, as wide as the instruction set this file is compiled for: GCC's vector
 * extensions carry the arithmetic (+ - * / and comparisons, so that one source serves AVX2, AVX-512
 * and NEON), intrinsics only what they cannot say: masked ends, minimum, maximum, square root. */
#ifndef LLM_SIMD_H
#define LLM_SIMD_H

#include <stddef.h>

#include "../llm.h"

#if defined __AVX512F__
#include <immintrin.h>
#define LANES 16
#define VECTORS 4 // of a microkernel's row: 6 rows × 4 = 24 of 32 registers add up
#elif defined __AVX2__
#include <immintrin.h>
#define LANES 8
#define VECTORS 2 // 12 of 16
#else
#define LANES 4
#define VECTORS 4
#if defined __ARM_NEON
#include <arm_neon.h>
#else
#include <math.h>
#endif
#endif

#define INLINE static inline __attribute__((always_inline, unused))
#define HIDDEN __attribute__((visibility("hidden")))

typedef float vec __attribute__((vector_size(4 * LANES), may_alias));
typedef float vec_anywhere __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef int veci __attribute__((vector_size(4 * LANES), may_alias));
typedef float half_anywhere __attribute__((vector_size(2 * LANES), aligned(4), may_alias));
typedef double vecd __attribute__((vector_size(4 * LANES))); // of as many numbers as a half

INLINE i64 min_i64(i64 a, i64 b) { return a < b ? a : b; }
INLINE i64 max_i64(i64 a, i64 b) { return a > b ? a : b; }
INLINE i64 ceil_div(i64 a, i64 b) { return (a + b - 1) / b; }
INLINE i64 round_up(i64 a, i64 b) { return ceil_div(a, b) * b; }

INLINE vec load(const float *p) { return *(const vec_anywhere *)p; }
INLINE void store(float *p, vec v) { *(vec_anywhere *)p = v; }

#if LANES == 16
#define IOTA (veci){0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}
#elif LANES == 8
#define IOTA (veci){0, 1, 2, 3, 4, 5, 6, 7}
#else
#define IOTA (veci){0, 1, 2, 3}
#endif

INLINE vec splat(float x) {
#if LANES == 16
    return (vec)_mm512_set1_ps(x);
#elif LANES == 8
    return (vec)_mm256_set1_ps(x);
#else
    return (vec){x, x, x, x};
#endif
}

/* The first `left` lanes from or to memory (all of them when left >= LANES), which is neither read
 * nor written beyond; the other lanes are 0. left >= 0. */
INLINE vec load_n(const float *p, i64 left) {
    if (left >= LANES) return load(p);
#if LANES == 16
    return (vec)_mm512_maskz_loadu_ps((__mmask16)((1u << left) - 1), p);
#elif LANES == 8
    return (vec)_mm256_maskload_ps(p, (__m256i)(IOTA < (int)left));
#else
    vec v = splat(0);
    for (int i = 0; i < left; i++) v[i] = p[i];
    return v;
#endif
}

INLINE void store_n(float *p, vec v, i64 left) {
    if (left >= LANES) {
        store(p, v);
        return;
    }
#if LANES == 16
    _mm512_mask_storeu_ps(p, (__mmask16)((1u << left) - 1), (__m512)v);
#elif LANES == 8
    _mm256_maskstore_ps(p, (__m256i)(IOTA < (int)left), (__m256)v);
#else
    for (int i = 0; i < left; i++) p[i] = v[i];
#endif
}

/* store_n past the caches, where whole aligned vectors allow: memory that is overwritten is not
 * fetched first. stream_end, by the same thread, comes before anybody else reads it. */
INLINE void stream_n(float *p, vec v, i64 left) {
#if LANES == 16
    if (left >= LANES && (unsigned long)p % sizeof v == 0) _mm512_stream_ps(p, (__m512)v);
#elif LANES == 8
    if (left >= LANES && (unsigned long)p % sizeof v == 0) _mm256_stream_ps(p, (__m256)v);
#else
    if (0) return;
#endif
    else store_n(p, v, left);
}

INLINE void stream_end(void) {
#if LANES >= 8
    _mm_sfence();
#endif
}

/* b wherever either operand is NaN (x86; NEON returns NaN): keep a value that must show in b. */
INLINE vec vmax(vec a, vec b) {
#if LANES == 16
    return (vec)_mm512_max_ps((__m512)a, (__m512)b);
#elif LANES == 8
    return (vec)_mm256_max_ps((__m256)a, (__m256)b);
#else
    veci take = a > b;
    return (vec)((take & (veci)a) | (~take & (veci)b));
#endif
}

INLINE vec vmin(vec a, vec b) {
#if LANES == 16
    return (vec)_mm512_min_ps((__m512)a, (__m512)b);
#elif LANES == 8
    return (vec)_mm256_min_ps((__m256)a, (__m256)b);
#else
    veci take = a < b;
    return (vec)((take & (veci)a) | (~take & (veci)b));
#endif
}

INLINE vec vsqrt(vec a) {
#if LANES == 16
    return (vec)_mm512_sqrt_ps((__m512)a);
#elif LANES == 8
    return (vec)_mm256_sqrt_ps((__m256)a);
#elif defined __ARM_NEON
    return (vec)vsqrtq_f32((float32x4_t)a);
#else
    return (vec){sqrtf(a[0]), sqrtf(a[1]), sqrtf(a[2]), sqrtf(a[3])};
#endif
}

/* a with the lanes from `left` on replaced by b. */
INLINE vec keep_n(vec a, vec b, i64 left) {
    veci keep = IOTA < (int)min_i64(left, LANES);
    return (vec)((keep & (veci)a) | (~keep & (veci)b));
}

/* Over all lanes, as a fixed tree of halves. */
INLINE float sum(vec v) {
#if LANES == 16
    return _mm512_reduce_add_ps((__m512)v);
#else
    for (int h = LANES / 2; h; h /= 2)
        for (int i = 0; i < h; i++) v[i] += v[i + h];
    return v[0];
#endif
}

INLINE float max_lane(vec v) {
#if LANES == 16
    return _mm512_reduce_max_ps((__m512)v);
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
