/* The weights of a new model, drawn as PyTorch draws them on a CPU, so that a seed names the same
 * model here and there: uniform numbers from mt19937 (Matsumoto, Nishimura 1998), made normal in
 * pairs by the transform of Box and Muller (1958).
 *
 * The same bits need the same roundings. PyTorch with AVX2 or AVX-512 takes the logarithm, sine and
 * cosine from Cephes' single-precision polynomials (Moshier 1992), fused: so every fmaf here rounds
 * once, and every * and + beside them rounds on its own. */
#include "libm.h"
#include "llm.h"

#define WORDS 624 // words of the state; the one after them counts those that are used up
#define GROUP 16 // numbers that are made normal together: u1 in the first half, u2 in the second

void rng_seed(u32 *state, u32 seed) {
    state[0] = seed;
    for (u32 i = 1; i < WORDS; i++)
        state[i] = 1812433253u * (state[i - 1] ^ (state[i - 1] >> 30)) + i;
    state[WORDS] = WORDS;
}

static void renew(u32 *state) {
    for (int i = 0; i < WORDS; i++) {
        u32 joined = (state[i] & 0x80000000u) | (state[(i + 1) % WORDS] & 0x7fffffffu);
        u32 twist = joined & 1 ? 0x9908b0dfu : 0;
        state[i] = state[(i + 397) % WORDS] ^ (joined >> 1) ^ twist;
    }
    state[WORDS] = 0;
}

static u32 next_word(u32 *state) {
    if (state[WORDS] >= WORDS) renew(state);
    u32 word = state[state[WORDS]++];
    word ^= word >> 11;
    word ^= (word << 7) & 0x9d2c5680u;
    word ^= (word << 15) & 0xefc60000u;
    return word ^ (word >> 18);
}

// [0, 1) in as many steps as the type's mantissa has.
static float uniform(u32 *state) { return (float)(next_word(state) & 0xffffffu) * 0x1p-24f; }

static double uniform_double(u32 *state) {
    u32 high = next_word(state) & 0x1fffffu, low = next_word(state);
    return ((double)high * 0x1p32 + (double)low) * 0x1p-53;
}

// x in [2⁻²⁴, 1]. x = 2^e·m with m in [√½, √2); log x = e·ln 2 + log m, the larger part of ln 2
// having few bits and the smaller one the rest.
static float log_unit(float x) {
    union {
        float value;
        u32 bits;
    } mantissa = {x};
    float e = (float)((int)(mantissa.bits >> 23) - 126);
    mantissa.bits = (mantissa.bits & 0x7fffffu) | 0x3f000000u; // [½, 1)
    float m = mantissa.value - 1;
    if (mantissa.value < 0.707106781186547524f) {
        e -= 1;
        m += mantissa.value;
    }
    float square = m * m;
    float p = 7.0376836292e-2f;
    p = fmaf(p, m, -1.1514610310e-1f);
    p = fmaf(p, m, 1.1676998740e-1f);
    p = fmaf(p, m, -1.2420140846e-1f);
    p = fmaf(p, m, 1.4249322787e-1f);
    p = fmaf(p, m, -1.6668057665e-1f);
    p = fmaf(p, m, 2.0000714765e-1f);
    p = fmaf(p, m, -2.4999993993e-1f);
    p = fmaf(p, m, 3.3333331174e-1f);
    p = fmaf(p * m, square, e * -2.12194440e-4f);
    p = fmaf(square, -0.5f, p);
    return fmaf(e, 0.693359375f, m + p);
}

// x in [0, 2π). The nearest even multiple of π/4, `octant`, is taken off in three parts.
static void sine_cosine(float *sine, float *cosine, float x) {
    int octant = ((int)(x * 1.27323954473516f) + 1) & ~1;
    float turn = (float)octant;
    x = fmaf(turn, -0.78515625f, x);
    x = fmaf(turn, -2.4187564849853515625e-4f, x);
    x = fmaf(turn, -3.77489497744594108e-8f, x);
    float square = x * x;

    float c = 2.443315711809948e-5f;
    c = fmaf(c, square, -1.388731625493765e-3f);
    c = fmaf(c, square, 4.166664568298827e-2f);
    c = fmaf(c * square, square, square * -0.5f) + 1;

    float s = -1.9515295891e-4f;
    s = fmaf(s, square, 8.3321608736e-3f);
    s = fmaf(s, square, -1.6666654611e-1f);
    s = fmaf(s * square, x, x);

    // A quarter turn changes their roles, a half turn their signs.
    *sine = octant & 2 ? c : s;
    *cosine = octant & 2 ? s : c;
    if (octant & 4) *sine = -*sine;
    if ((octant + 2) & 4) *cosine = -*cosine;
}

static void box_muller(float *group, float mean, float std) {
    for (int i = 0; i < GROUP / 2; i++) {
        float radius = sqrtf(-2 * log_unit(1 - group[i]));
        float sine, cosine;
        sine_cosine(&sine, &cosine, 6.28318530717958648f * group[i + GROUP / 2]);
        group[i] = fmaf(radius * cosine, std, mean);
        group[i + GROUP / 2] = fmaf(radius * sine, std, mean);
    }
}

// Below one group PyTorch goes another way: in double precision, a pair after the other. (It keeps
// what is left of an odd count for its next such call; here it is dropped.)
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
    for (i64 i = 0; i < n; i++) out[i] = uniform(state);
    for (i64 i = 0; i + GROUP <= n; i += GROUP) box_muller(out + i, mean, std);
    if (n % GROUP == 0) return;

    // The end: a whole group again, over numbers that are done already.
    float *last = out + n - GROUP;
    for (int i = 0; i < GROUP; i++) last[i] = uniform(state);
    box_muller(last, mean, std);
}
