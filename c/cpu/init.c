/* The weights of a new model: the reference's numbers, bit for bit (it says where each comes from).
 * The generator is sequential, but it makes 624 words at once, in loops that become vectors; the
 * transform to normal numbers runs up to eight pairs in a vector and its groups in parallel. */
#include <math.h>

#include "simd.h"

#define WORDS 624 // words of the state; the one after them counts those that are used up
#define SHIFT 397 // from a word to the one that it is joined with
#define GROUP 16 // numbers that are made normal together: u1 in the first half, u2 in the second
#define BLOCK (4096 * GROUP) // numbers between one parallel loop and the next: they stay in cache

#define PAIRS (LANES < 8 ? LANES : 8) // of numbers, in a vector: a group has eight

typedef float vecp __attribute__((vector_size(4 * PAIRS), may_alias));
typedef float vecp_anywhere __attribute__((vector_size(4 * PAIRS), aligned(4), may_alias));
typedef int vecip __attribute__((vector_size(4 * PAIRS), may_alias));

INLINE vecp splatp(float x) { return x - (vecp){0}; }

// Written out, as the roundings must not depend on what a compiler fuses.
INLINE vecp fused(vecp a, vecp b, vecp c) {
#if AVX512 || AVX2
    return (vecp)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
#elif defined __ARM_NEON
    return (vecp)vfmaq_f32((float32x4_t)c, (float32x4_t)a, (float32x4_t)b);
#else
    for (int i = 0; i < PAIRS; i++) c[i] = fmaf(a[i], b[i], c[i]);
    return c;
#endif
}

INLINE vecp root(vecp a) {
#if AVX512 || AVX2
    return (vecp)_mm256_sqrt_ps((__m256)a);
#elif defined __ARM_NEON
    return (vecp)vsqrtq_f32((float32x4_t)a);
#else
    for (int i = 0; i < PAIRS; i++) a[i] = sqrtf(a[i]);
    return a;
#endif
}

INLINE vecp choose(vecip which, vecp yes, vecp no) {
    return (vecp)((which & (vecip)yes) | (~which & (vecip)no));
}

INLINE vecp log_unit(vecp x) {
    vecip bits = (vecip)x;
    vecp half = (vecp)((bits & 0x7fffff) | 0x3f000000);
    vecip low = half < 0.707106781186547524f; // -1 where true
    vecp e = __builtin_convertvector((bits >> 23) - 126 + low, vecp);
    vecp m = half - 1.0f + (vecp)(low & (vecip)half);
    vecp square = m * m;
    vecp p = splatp(7.0376836292e-2f);
    p = fused(p, m, splatp(-1.1514610310e-1f));
    p = fused(p, m, splatp(1.1676998740e-1f));
    p = fused(p, m, splatp(-1.2420140846e-1f));
    p = fused(p, m, splatp(1.4249322787e-1f));
    p = fused(p, m, splatp(-1.6668057665e-1f));
    p = fused(p, m, splatp(2.0000714765e-1f));
    p = fused(p, m, splatp(-2.4999993993e-1f));
    p = fused(p, m, splatp(3.3333331174e-1f));
    p = fused(p * m, square, e * -2.12194440e-4f);
    p = fused(square, splatp(-0.5f), p);
    return fused(e, splatp(0.693359375f), m + p);
}

INLINE void sine_cosine(vecp *sine, vecp *cosine, vecp x) {
    vecip octant = (__builtin_convertvector(x * 1.27323954473516f, vecip) + 1) & ~1;
    vecp turn = __builtin_convertvector(octant, vecp);
    x = fused(turn, splatp(-0.78515625f), x);
    x = fused(turn, splatp(-2.4187564849853515625e-4f), x);
    x = fused(turn, splatp(-3.77489497744594108e-8f), x);
    vecp square = x * x;

    vecp c = splatp(2.443315711809948e-5f);
    c = fused(c, square, splatp(-1.388731625493765e-3f));
    c = fused(c, square, splatp(4.166664568298827e-2f));
    c = fused(c * square, square, square * -0.5f) + 1.0f;

    vecp s = splatp(-1.9515295891e-4f);
    s = fused(s, square, splatp(8.3321608736e-3f));
    s = fused(s, square, splatp(-1.6666654611e-1f));
    s = fused(s * square, x, x);

    vecip odd = (octant & 2) != 0;
    *sine = (vecp)((vecip)choose(odd, c, s) ^ (octant << 29 & (int)0x80000000));
    *cosine = (vecp)((vecip)choose(odd, s, c) ^ ((octant + 2) << 29 & (int)0x80000000));
}

INLINE void box_muller(float *group, float mean, float std) {
    for (int i = 0; i < GROUP / 2; i += PAIRS) {
        vecp_anywhere *u1 = (vecp_anywhere *)(group + i);
        vecp_anywhere *u2 = (vecp_anywhere *)(group + i + GROUP / 2);
        vecp radius = root(-2.0f * log_unit(1.0f - *u1));
        vecp sine, cosine;
        sine_cosine(&sine, &cosine, 6.28318530717958648f * *u2);
        *u1 = fused(radius * cosine, splatp(std), splatp(mean));
        *u2 = fused(radius * sine, splatp(std), splatp(mean));
    }
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
