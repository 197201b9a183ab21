/* Sums of any length in double precision. The number is cut into at most SLOTS chunks, whose size
 * depends on its length alone; chunks are summed by whoever is free, and added up as a tree. */
#include "simd.h"

#define SLOTS 1024
#define CHUNK 16384 // floats, at least: less is not worth a thread's attention

INLINE vecd widen(const float *p) {
#if defined __ARM_NEON // GCC 12 takes it apart
    return (vecd)vcvt_f64_f32(vld1_f32(p));
#else
    return __builtin_convertvector(*(const half_anywhere *)p, vecd);
#endif
}

INLINE double chunk_sum(const float *x, i64 n, const int squared) {
    vecd s[4] = {{0}, {0}, {0}, {0}};
    i64 i = 0;
    for (; i + 2 * LANES <= n; i += 2 * LANES)
        for (int u = 0; u < 4; u++) {
            vecd v = widen(x + i + u * (LANES / 2));
            s[u] += squared ? v * v : v;
        }
    double total = 0;
    for (; i < n; i++) total += squared ? (double)x[i] * x[i] : x[i];
    vecd all = (s[0] + s[1]) + (s[2] + s[3]);
    for (int l = 0; l < LANES / 2; l++) total += all[l];
    return total;
}

INLINE double tree_sum(const float *inp, i64 n, const int squared) {
    const i64 chunk = max_i64(CHUNK, round_up(ceil_div(n, SLOTS), CHUNK));
    const i64 chunks = ceil_div(n, chunk);
    double slots[SLOTS];
#pragma omp parallel for schedule(static)
    for (i64 i = 0; i < chunks; i++)
        slots[i] = chunk_sum(inp + i * chunk, min_i64(chunk, n - i * chunk), squared);
    for (i64 width = 1; width < chunks; width *= 2)
        for (i64 i = 0; i + width < chunks; i += 2 * width) slots[i] += slots[i + width];
    return slots[0];
}

void mean_forward(float *out, const float *inp, i64 n) {
    *out = (float)(tree_sum(inp, n, 0) / (double)n);
}

void squared_norm(double *out, const float *inp, i64 n) { *out = tree_sum(inp, n, 1); }
