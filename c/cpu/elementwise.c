/* One number in, one number out. */
#include "vecmath.h"

void REAL(gelu_forward)(real *out, const real *inp, i64 n) {
#pragma omp parallel for schedule(static)
    for (i64 i = 0; i < n; i += LANES) store_n(out + i, gelu(load_n(inp + i, n - i)), n - i);
}

void REAL(gelu_backward)(real *dinp, const real *dout, const real *inp, i64 n) {
#pragma omp parallel for schedule(static)
    for (i64 i = 0; i < n; i += LANES)
        store_n(dinp + i, load_n(dout + i, n - i) * gelu_gradient(load_n(inp + i, n - i)), n - i);
}

void REAL(add_forward)(real *out, const real *a, const real *b, i64 n) {
#pragma omp parallel for schedule(static)
    for (i64 i = 0; i < n; i += LANES)
        store_n(out + i, load_n(a + i, n - i) + load_n(b + i, n - i), n - i);
}
