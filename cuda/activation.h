/* The Gaussian error linear unit in its tanh form, and its derivative, of one number; and the end of a
 * linear layer, which applies it. As in gelu.c and matmul.c of the reference. */
#ifndef LLM_ACTIVATION_H
#define LLM_ACTIVATION_H

#include "mma.h"

constexpr float GELU_SLOPE = 0.7978845608028654f; // sqrt(2/pi)
constexpr float GELU_CUBIC = 0.044715f;

DEVICE float gelu(float x) {
    return 0.5f * x * (1 + tanhf(GELU_SLOPE * (x + GELU_CUBIC * x * x * x)));
}

// The product rule on x/2 and 1 + tanh(u(x)), with tanh' = 1 - tanh².
DEVICE float gelu_gradient(float x) {
    const float tanh_u = tanhf(GELU_SLOPE * (x + GELU_CUBIC * x * x * x));
    const float du = GELU_SLOPE * (1 + 3 * GELU_CUBIC * x * x);
    return 0.5f * (1 + tanh_u) + 0.5f * x * (1 - tanh_u * tanh_u) * du;
}

/* Both in a few instructions, off by some 2^-21 of themselves: the share of x that passes is
 * (1 + tanh(u))/2 = 1/(1 + exp(-2u)). */
DEVICE float gelu_share(float x) {
    constexpr float TO_POWER = -2 * LOG2E * GELU_SLOPE;
    return reciprocal_fast(1 + exp2_fast(x * fmaf(TO_POWER * GELU_CUBIC, x * x, TO_POWER)));
}
DEVICE float gelu_fast(float x) { return x * gelu_share(x); }
DEVICE float gelu_gradient_fast(float x) {
    const float share = gelu_share(x);
    const float twice_du = fmaf(6 * GELU_CUBIC * GELU_SLOPE, x * x, 2 * GELU_SLOPE);
    return fmaf(x * share * (1 - share), twice_du, share);
}

/* Stores an element of matmul_forward's results: `sum` is its product, `at` its place, `o` its
 * column. */
template <typename T>
DEVICE void store_forward(T *out, T *pre, const T *bias, const T *residual, i64 at, int o, float sum) {
    if (bias) sum += widen(bias[o]);
    if (pre) {
        pre[at] = narrow<T>(sum);
        sum = gelu(widen(pre[at]));
    }
    if (residual) sum += widen(residual[at]);
    out[at] = narrow<T>(sum);
}

#endif
