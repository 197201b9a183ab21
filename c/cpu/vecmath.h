/* The exponential function and GELU, a vector at a time (libm's work on one number), and what is
 * done to a row of numbers here and there. */
#ifndef LLM_VECMATH_H
#define LLM_VECMATH_H

#include "simd.h"

// exp(x) = 2^n · exp(r) with n = round(x/ln 2) and |r| <= ln(2)/2; ln 2 is taken off in two parts
// (Cody, Waite 1980), exp(r) = 1 + r + r²·P(r) with P from Cephes' expf (Moshier 1992).
// NaN stays NaN; beyond the ends of the range it gives 0 and infinity, between them subnormals too.
INLINE vec vexp(vec x) {
    const float shift = 0x1.8p23f; // adding it leaves the nearest integer in the low bits
    x = vmin(splat(89), vmax(splat(-104), x));
    vec shifted = x * 1.44269504088896341f + shift;
    vec n = shifted - shift;
    vec r = x - n * 0.693359375f;
    r = r - n * -2.12194440e-4f;
    vec p = splat(1.9875691500e-4f);
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * (r * r) + r + 1.0f;
#if AVX512
    return (vec)_mm512_scalef_ps((__m512)p, (__m512)n);
#else
    // Two factors: 2^n alone leaves the range of normal numbers at both ends.
    veci whole = (veci)shifted - (veci)splat(shift), part = whole >> 1;
    return p * (vec)((part + 127) << 23) * (vec)((whole - part + 127) << 23);
#endif
}

// exp(-2y), with y = sqrt(2/pi)·(x + 0.044715·x³).
INLINE vec gelu_exp(vec x) {
    return vexp(x * (-2 * 0.7978845608028654f) * (1.0f + 0.044715f * x * x));
}

// x·(1 + tanh(y))/2 = x/(1 + exp(-2y)), which does not cancel where tanh(y) nears -1.
// Beyond |x| = 16 the limit is reached, and x³ must not overflow to infinity times 0.
INLINE vec gelu(vec x) {
    return x * (1.0f / (1.0f + gelu_exp(vmin(splat(16), vmax(splat(-16), x)))));
}

// s + x·s' with e = exp(-2y), s = 1/(1 + e) and s' = 2y'·s·(1 - s), where 1 - s = e·s does not
// cancel. Beyond |x| = 10 the limit is reached, and up to there e is finite.
INLINE vec gelu_gradient(vec x) {
    x = vmin(splat(10), vmax(splat(-10), x));
    vec e = gelu_exp(x), s = 1.0f / (1.0f + e);
    vec dy2 = 2 * 0.7978845608028654f * (1.0f + 3 * 0.044715f * x * x);
    return s + x * dy2 * (e * s) * s;
}

INLINE float dot(const real *a, const real *b, i64 n) {
    vec s[2] = {splat(0), splat(0)};
    i64 i = 0;
    for (; i + 2 * LANES <= n; i += 2 * LANES)
        for (int u = 0; u < 2; u++) s[u] += load(a + i + u * LANES) * load(b + i + u * LANES);
    for (; i < n; i += LANES) s[0] += load_n(a + i, n - i) * load_n(b + i, n - i);
    return sum(s[0] + s[1]);
}

// y = y·keep + x·scale
INLINE void blend(float *y, float keep, const real *x, float scale, i64 n) {
    for (i64 i = 0; i < n; i += LANES)
        store_n(y + i, load_n(y + i, n - i) * keep + load_n(x + i, n - i) * scale, n - i);
}

INLINE float row_max(const real *x, i64 n) {
    vec m[4];
    for (int u = 0; u < 4; u++) m[u] = splat(-__builtin_inff());
    i64 i = 0;
    for (; i + 4 * LANES <= n; i += 4 * LANES)
        for (int u = 0; u < 4; u++) m[u] = vmax(m[u], load(x + i + u * LANES));
    for (; i < n; i += LANES) m[0] = vmax(m[0], keep_n(load_n(x + i, n - i), m[0], n - i));
    return max_lane(vmax(vmax(m[0], m[1]), vmax(m[2], m[3])));
}

// out = exp(x - shift), or nothing where out is NULL; returns the sum of these. out may be x.
INLINE float row_exp(real *out, const real *x, float shift, i64 n) {
    vec s[2] = {splat(0), splat(0)};
    i64 i = 0;
    for (; i + 2 * LANES <= n; i += 2 * LANES)
        for (int u = 0; u < 2; u++) {
            vec e = vexp(load(x + i + u * LANES) - shift);
            if (out) store(out + i + u * LANES, e);
            s[u] += e;
        }
    for (; i < n; i += LANES) {
        vec e = keep_n(vexp(load_n(x + i, n - i) - shift), splat(0), n - i);
        if (out) store_n(out + i, e, n - i);
        s[0] += e;
    }
    return sum(s[0] + s[1]);
}

#endif
