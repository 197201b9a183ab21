/* One number in, one number out. */
#include "vecmath.h"

void gelu_forward(float *out, const float *inp, i64 n) {
#pragma omp parallel for schedule(static)
    for (i64 i = 0; i < n; i += LANES) store_n(out + i, gelu(load_n(inp + i, n - i)), n - i);
}

void gelu_backward(float *dinp, const float *dout, const float *inp, i64 n) {
#pragma omp parallel for schedule(static)
    for (i64 i = 0; i < n; i += LANES)
        store_n(dinp + i, load_n(dout + i, n - i) * gelu_gradient(load_n(inp + i, n - i)), n - i);
}

void add_forward(float *out, const float *a, const float *b, i64 n) {
#pragma omp parallel for schedule(static)
    for (i64 i = 0; i < n; i += LANES)
        store_n(out + i, load_n(a + i, n - i) + load_n(b + i, n - i), n - i);
}
