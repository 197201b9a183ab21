/* A strip of columns is a task, which goes down all rows. */
#include "column_sums.h"

static void sum_strip(float *sums, const real *inp, i64 N, i64 C, i64 columns, int accumulate) {
    vec totals[4];
    for (int v = 0; v < 4; v++) totals[v] = splat(0);
    for (i64 n0 = 0; n0 < N; n0 += ROWS) {
        vec some[4];
        for (int v = 0; v < 4; v++) some[v] = splat(0);
        for (i64 n = n0; n < min_i64(N, n0 + ROWS); n++)
            for (int v = 0; v < 4; v++)
                some[v] += load_n(inp + n * C + v * LANES, max_i64(0, columns - v * LANES));
        for (int v = 0; v < 4; v++) totals[v] += some[v];
    }
    for (int v = 0; v * LANES < columns; v++) {
        const i64 at = v * LANES, left = columns - at;
        if (accumulate) totals[v] += load_n(sums + at, left);
        store_n(sums + at, totals[v], left);
    }
}

void REAL(column_sums)(float *sums, const real *inp, i64 N, i64 C, int accumulate) {
#pragma omp parallel for schedule(dynamic)
    for (i64 c = 0; c < C; c += STRIP)
        sum_strip(sums + c, inp + c, N, C, min_i64(STRIP, C - c), accumulate);
}
