/* GELU, the transformer's non-linearity: x times (nearly) the probability that a standard normal
 * number is below x. Large inputs pass, negative ones fade out, and the bend between is smooth. */
#include "activation.h"

#include "llm.h"

void gelu_forward(float *out, const float *inp, i64 n) {
    for (i64 i = 0; i < n; i++) out[i] = (float)gelu(inp[i]);
}

void gelu_backward(float *dinp, const float *dout, const float *inp, i64 n) {
    for (i64 i = 0; i < n; i++) dinp[i] = (float)(dout[i] * gelu_gradient(inp[i]));
}
