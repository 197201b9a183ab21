/* The exponential function and GELU, a vector at a time (libm's work on one number), and what is
 * done to a row of numbers here and there. */
#ifndef LLM_VECMATH_H
#define LLM_VECMATH_H

#include "simd.h"

// exp(x) = 2^n · exp(r) with n = round(x/ln 2) and |r| <= ln(2)/2; ln 2 is taken off in two parts
// (Cody, Waite 1980), exp(r) = 1 + r + r²·P(r) with P from Cephes' expf (Moshier 1992).
// For |x| <= 87.3, where the result is a normal number, and for NaN, which stays NaN.
INLINE vec exp_normal(vec x) {
    const float shift = 0x1.8p23f; // adding it leaves the nearest integer in the low bits
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
    return p * (vec)(((veci)shifted + 127) << 23);
#endif
}

// For x <= 87.3, and NaN; 0 where the result is below the normal numbers.
INLINE vec vexp(vec x) { return (vec)((veci)exp_normal(x) & ~(x < splat(-87.3f))); }

// 2^x for x <= 127, and NaN; what is below the normal numbers becomes the least of them. The
// polynomial is that of the least relative error, 2e-9, on [-1/2, 1/2] (Remez 1934).
INLINE vec vexp2(vec x) {
    const float shift = 0x1.8p23f;
    x = vmax(splat(-126), x);
    vec shifted = x + shift, n = shifted - shift, r = x - n;
    vec p = splat(1.5345812e-4f);
    p = p * r + 1.3399931e-3f;
    p = p * r + 9.6184891e-3f;
    p = p * r + 5.5503288e-2f;
    p = p * r + 2.4022647e-1f;
    p = p * r + 6.9314720e-1f;
    p = p * r + 1.0f;
#if AVX512
    return (vec)_mm512_scalef_ps((__m512)p, (__m512)n);
#else
    return p * (vec)(((veci)shifted + 127) << 23);
#endif
}

// exp(-2y), with y = sqrt(2/pi)·(x + 0.044715·x³); |x| <= 10, where that is a normal number.
INLINE vec gelu_exp(vec x, vec square) {
    const float k = -2 * 0.7978845608028654f;
    return exp_normal(x * (k + (k * 0.044715f) * square));
}

// x·(1 + tanh(y))/2 = x/(1 + exp(-2y)), which does not cancel where tanh(y) nears -1.
// Beyond |x| = 10 the limit is reached: the divisor is 1, or what it makes of -10 is next to 0.
INLINE vec gelu(vec x) {
    vec above = vmax(splat(-10), x), inner = vmin(splat(10), above);
    return above / (1.0f + gelu_exp(inner, inner * inner));
}

// s + x·s' with e = exp(-2y), s = 1/(1 + e) and s' = 2y'·s·(1 - s), where 1 - s = e·s does not
// cancel. Beyond |x| = 10 the limit is reached.
INLINE vec gelu_gradient(vec x) {
    const float k = 2 * 0.7978845608028654f;
    x = vmin(splat(10), vmax(splat(-10), x));
    vec square = x * x, e = gelu_exp(x, square), s = 1.0f / (1.0f + e);
    return s + x * (k + (3 * k * 0.044715f) * square) * (e * s) * s;
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
