/* The weights of a new model: the reference's numbers, bit for bit (it says where each comes from).
 * The generator is sequential, but it makes 624 words at once, in loops that become vectors; the
 * transform to normal numbers runs eight pairs in a vector and its groups in parallel. */
#include <math.h>

#include "simd.h"

#define WORDS 624 // words of the state; the one after them counts those that are used up
#define SHIFT 397 // from a word to the one that it is joined with
#define GROUP 16 // numbers that are made normal together: u1 in the first half, u2 in the second
#define BLOCK (4096 * GROUP) // numbers between one parallel loop and the next: they stay in cache

// Eight on every machine, as a group has eight pairs.
typedef float vec8 __attribute__((vector_size(32), may_alias));
typedef float vec8_anywhere __attribute__((vector_size(32), aligned(4), may_alias));
typedef int veci8 __attribute__((vector_size(32), may_alias));

INLINE vec8 splat8(float x) { return (vec8){x, x, x, x, x, x, x, x}; }

// Written out, as the roundings must not depend on what a compiler fuses.
INLINE vec8 fused(vec8 a, vec8 b, vec8 c) {
#if AVX512 || AVX2
    return (vec8)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
#else
    for (int i = 0; i < 8; i++) c[i] = fmaf(a[i], b[i], c[i]);
    return c;
#endif
}

INLINE vec8 root(vec8 a) {
#if AVX512 || AVX2
    return (vec8)_mm256_sqrt_ps((__m256)a);
#else
    for (int i = 0; i < 8; i++) a[i] = sqrtf(a[i]);
    return a;
#endif
}

INLINE vec8 choose(veci8 which, vec8 yes, vec8 no) {
    return (vec8)((which & (veci8)yes) | (~which & (veci8)no));
}

INLINE vec8 log_unit(vec8 x) {
    veci8 bits = (veci8)x;
    vec8 half = (vec8)((bits & 0x7fffff) | 0x3f000000);
    veci8 low = half < 0.707106781186547524f; // -1 where true
    vec8 e = __builtin_convertvector((bits >> 23) - 126 + low, vec8);
    vec8 m = half - 1.0f + (vec8)(low & (veci8)half);
    vec8 square = m * m;
    vec8 p = splat8(7.0376836292e-2f);
    p = fused(p, m, splat8(-1.1514610310e-1f));
    p = fused(p, m, splat8(1.1676998740e-1f));
    p = fused(p, m, splat8(-1.2420140846e-1f));
    p = fused(p, m, splat8(1.4249322787e-1f));
    p = fused(p, m, splat8(-1.6668057665e-1f));
    p = fused(p, m, splat8(2.0000714765e-1f));
    p = fused(p, m, splat8(-2.4999993993e-1f));
    p = fused(p, m, splat8(3.3333331174e-1f));
    p = fused(p * m, square, e * -2.12194440e-4f);
    p = fused(square, splat8(-0.5f), p);
    return fused(e, splat8(0.693359375f), m + p);
}

INLINE void sine_cosine(vec8 *sine, vec8 *cosine, vec8 x) {
    veci8 octant = (__builtin_convertvector(x * 1.27323954473516f, veci8) + 1) & ~1;
    vec8 turn = __builtin_convertvector(octant, vec8);
    x = fused(turn, splat8(-0.78515625f), x);
    x = fused(turn, splat8(-2.4187564849853515625e-4f), x);
    x = fused(turn, splat8(-3.77489497744594108e-8f), x);
    vec8 square = x * x;

    vec8 c = splat8(2.443315711809948e-5f);
    c = fused(c, square, splat8(-1.388731625493765e-3f));
    c = fused(c, square, splat8(4.166664568298827e-2f));
    c = fused(c * square, square, square * -0.5f) + 1.0f;

    vec8 s = splat8(-1.9515295891e-4f);
    s = fused(s, square, splat8(8.3321608736e-3f));
    s = fused(s, square, splat8(-1.6666654611e-1f));
    s = fused(s * square, x, x);

    veci8 odd = (octant & 2) != 0;
    *sine = (vec8)((veci8)choose(odd, c, s) ^ (octant << 29 & (int)0x80000000));
    *cosine = (vec8)((veci8)choose(odd, s, c) ^ ((octant + 2) << 29 & (int)0x80000000));
}

INLINE void box_muller(float *group, float mean, float std) {
    vec8_anywhere *u1 = (vec8_anywhere *)group, *u2 = u1 + 1;
    vec8 radius = root(-2.0f * log_unit(1.0f - *u1));
    vec8 sine, cosine;
    sine_cosine(&sine, &cosine, 6.28318530717958648f * *u2);
    *u1 = fused(radius * cosine, splat8(std), splat8(mean));
    *u2 = fused(radius * sine, splat8(std), splat8(mean));
}

void rng_seed(u32 *state, u32 seed) {
    state[0] = seed;
    for (u32 i = 1; i < WORDS; i++)
        state[i] = 1812433253u * (state[i - 1] ^ (state[i - 1] >> 30)) + i;
    state[WORDS] = WORDS;
}

INLINE u32 renewed(u32 word, u32 next, u32 partner) {
    u32 joined = (word & 0x80000000u) | (next & 0x7fffffffu);
    return partner ^ (joined >> 1) ^ (0x9908b0dfu & -(joined & 1));
}

static void renew(u32 *state) {
    int i = 0;
    for (; i < WORDS - SHIFT; i++) state[i] = renewed(state[i], state[i + 1], state[i + SHIFT]);
    for (; i < WORDS - 1; i++) state[i] = renewed(state[i], state[i + 1], state[i + SHIFT - WORDS]);
    state[WORDS - 1] = renewed(state[WORDS - 1], state[0], state[SHIFT - 1]);
    state[WORDS] = 0;
}

INLINE u32 tempered(u32 word) {
    word ^= word >> 11;
    word ^= (word << 7) & 0x9d2c5680u;
    word ^= (word << 15) & 0xefc60000u;
    return word ^ (word >> 18);
}

static void fill_uniform(float *out, u32 *state, i64 n) {
    while (n > 0) {
        if (state[WORDS] >= WORDS) renew(state);
        const int some = (int)min_i64(n, WORDS - state[WORDS]);
        const u32 *words = state + state[WORDS];
        for (int i = 0; i < some; i++)
            out[i] = (float)(int)(tempered(words[i]) & 0xffffffu) * 0x1p-24f;
        state[WORDS] += (u32)some;
        out += some;
        n -= some;
    }
}

static u32 next_word(u32 *state) {
    if (state[WORDS] >= WORDS) renew(state);
    return tempered(state[state[WORDS]++]);
}

static double uniform_double(u32 *state) {
    u32 high = next_word(state) & 0x1fffffu, low = next_word(state);
    return ((double)high * 0x1p32 + (double)low) * 0x1p-53;
}

static void fill_few(float *out, u32 *state, i64 n, float mean, float std) {
    for (i64 i = 0; i < n; i += 2) {
        double angle = 2 * 3.14159265358979323846 * uniform_double(state);
        double radius = sqrt(-2 * log1p(-uniform_double(state)));
        out[i] = (float)fma(radius * cos(angle), std, mean);
        if (i + 1 < n) out[i + 1] = (float)fma(radius * sin(angle), std, mean);
    }
}

void normal_fill(float *out, u32 *state, i64 n, float mean, float std) {
    if (n < GROUP) {
        fill_few(out, state, n, mean, std);
        return;
    }
    for (i64 block = 0; block < n; block += BLOCK) {
        const i64 count = min_i64(BLOCK, n - block);
        fill_uniform(out + block, state, count);
#pragma omp parallel for schedule(static)
        for (i64 i = 0; i < count / GROUP; i++) box_muller(out + block + i * GROUP, mean, std);
    }
    if (n % GROUP == 0) return;
    fill_uniform(out + n - GROUP, state, GROUP);
    box_muller(out + n - GROUP, mean, std);
}
