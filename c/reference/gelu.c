/* GELU, the transformer's non-linearity: x times (nearly) the probability that a standard normal
 * number is below x. Large inputs pass, negative ones fade out, and the bend between is smooth. */
#include "activation.h"

#include "real.h"

void REAL(gelu_forward)(real *out, const real *inp, i64 n) {
    for (i64 i = 0; i < n; i++) out[i] = rounded(gelu(value(inp[i])));
}

void REAL(gelu_backward)(real *dinp, const real *dout, const real *inp, i64 n) {
    for (i64 i = 0; i < n; i++) dinp[i] = rounded(value(dout[i]) * gelu_gradient(value(inp[i])));
}
