/* Layer normalisation: rows are independent; the parameters' gradients are sums down the columns,
 * so that a strip of columns is a task. */
#include <math.h>

#include "column_sums.h"
#include "vecmath.h"

static void forward_row(real *out, float *mean, float *rstd, const real *x, const real *weight,
                        const real *bias, i64 C, float eps) {
    vec total = splat(0), squares = splat(0);
    for (i64 c = 0; c < C; c += LANES) total += load_n(x + c, C - c);
    const float m = sum(total) / (float)C;
    // Two passes: when |mean| is far above the deviation, E[x²] - E[x]² cancels to noise.
    for (i64 c = 0; c < C; c += LANES) {
        vec d = keep_n(load_n(x + c, C - c) - m, splat(0), C - c);
        squares += d * d;
    }
    const float r = 1.0f / sqrtf(sum(squares) / (float)C + eps);
    for (i64 c = 0; c < C; c += LANES) {
        vec n = (load_n(x + c, C - c) - m) * r;
        store_n(out + c, n * load_n(weight + c, C - c) + load_n(bias + c, C - c), C - c);
    }
    if (mean) *mean = m;
    if (rstd) *rstd = r;
}

void REAL(layernorm_forward)(real *out, float *mean, float *rstd, const real *inp,
                             const real *weight, const real *bias, int N, int C, float eps) {
#pragma omp parallel for schedule(static) if (N > 1)
    for (i64 n = 0; n < N; n++)
        forward_row(out + n * C, mean ? mean + n : NULL, rstd ? rstd + n : NULL, inp + n * C,
                    weight, bias, C, eps);
}

static void backward_row(real *dinp, const real *dout, const real *x, const real *weight,
                         float mean, float rstd, i64 C, int accumulate) {
    vec sum_g = splat(0), sum_gn = splat(0);
    for (i64 c = 0; c < C; c += LANES) {
        vec g = load_n(dout + c, C - c) * load_n(weight + c, C - c);
        vec n = keep_n((load_n(x + c, C - c) - mean) * rstd, splat(0), C - c);
        sum_g += g;
        sum_gn += g * n;
    }
    const float avg_g = sum(sum_g) / (float)C, avg_gn = sum(sum_gn) / (float)C;
    for (i64 c = 0; c < C; c += LANES) {
        vec g = load_n(dout + c, C - c) * load_n(weight + c, C - c);
        vec n = (load_n(x + c, C - c) - mean) * rstd;
        vec d = rstd * (g - avg_g - n * avg_gn);
        if (accumulate) d += load_n(dinp + c, C - c);
        store_n(dinp + c, d, C - c);
    }
}

static void backward_strip(float *dweight, float *dbias, const real *dout, const real *inp,
                           const float *mean, const float *rstd, i64 N, i64 C, i64 columns,
                           int accumulate) {
    vec weights[4], biases[4];
    for (int v = 0; v < 4; v++) weights[v] = biases[v] = splat(0);
    for (i64 n0 = 0; n0 < N; n0 += ROWS) {
        vec w[4], b[4];
        for (int v = 0; v < 4; v++) w[v] = b[v] = splat(0);
        for (i64 n = n0; n < min_i64(N, n0 + ROWS); n++)
            for (int v = 0; v < 4; v++) {
                const i64 left = max_i64(0, columns - v * LANES), at = n * C + v * LANES;
                vec d = load_n(dout + at, left);
                w[v] += d * ((load_n(inp + at, left) - mean[n]) * rstd[n]);
                b[v] += d;
            }
        for (int v = 0; v < 4; v++) {
            weights[v] += w[v];
            biases[v] += b[v];
        }
    }
    for (int v = 0; v * LANES < columns; v++) {
        const i64 at = v * LANES, left = columns - at;
        if (accumulate) {
            weights[v] += load_n(dweight + at, left);
            biases[v] += load_n(dbias + at, left);
        }
        store_n(dweight + at, weights[v], left);
        store_n(dbias + at, biases[v], left);
    }
}

void REAL(layernorm_backward)(real *dinp, float *dweight, float *dbias, float *sums,
                              const real *dout, const real *inp, const real *weight,
                              const float *mean, const float *rstd, int N, int C,
                              int accumulate_inp, int accumulate) {
#pragma omp parallel
    {
#pragma omp for schedule(static) nowait
        for (i64 n = 0; n < N; n++)
            backward_row(dinp + n * C, dout + n * C, inp + n * C, weight, mean[n], rstd[n], C,
                         accumulate_inp);
#pragma omp for schedule(dynamic)
        for (i64 c = 0; c < C; c += STRIP)
            backward_strip(dweight + c, dbias + c, dout + c, inp + c, mean, rstd, N, C,
                           min_i64(STRIP, C - c), accumulate);
    }
    if (sums) REAL(column_sums)(sums, dinp, N, C, accumulate);
}
