/* The microkernel: MR × VECTORS accumulators that live in registers for the whole of K. */
#include "product.h"
#include "unit.h"

#define UNROLL (8 / VECTORS) // units

#if !(AMX && defined LLM_BF16) // whose microkernel is in product_amx.c
// One unit of k, or the half that an odd K ends with. A row's number is loaded just before its use:
// numbers loaded ahead would push sums out of the registers.
INLINE void micro_step(vec acc[MR][VECTORS], const real *const rows[MR], i64 unit,
                       const float *panel, const int vectors, const int half) {
    vec b[VECTORS];
#pragma GCC unroll 4
    for (int v = 0; v < vectors; v++) b[v] = *(const vec *)(panel + unit * NR + v * LANES);
#pragma GCC unroll 8
    for (int i = 0; i < MR; i++) {
        const real *at = rows[i] + unit * PER;
        const vec x = half ? splat_half(at) : splat_unit(at);
#pragma GCC unroll 4
        for (int v = 0; v < vectors; v++) acc[i][v] = multiply_add(acc[i][v], x, b[v]);
    }
}

INLINE void micro(float *tile, i64 ldt, const real *const rows[MR], const float *panel, int K,
                  const int vectors, int add, const real *next, i64 next_stride) {
    vec acc[MR][VECTORS];
    const real *a[MR];
#pragma GCC unroll 8
    for (int i = 0; i < MR; i++) {
        a[i] = rows[i];
#pragma GCC unroll 4
        for (int v = 0; v < vectors; v++) acc[i][v] = splat(0);
    }
    const i64 whole = K / PER;
    i64 k = 0;
    for (; k + UNROLL <= whole; k += UNROLL, next += next_stride) {
        __builtin_prefetch(next, 0, 2);
#pragma GCC unroll 4
        for (int u = 0; u < UNROLL; u++) micro_step(acc, a, k + u, panel, vectors, 0);
    }
    for (; k < whole; k++) micro_step(acc, a, k, panel, vectors, 0);
    if (K % PER) micro_step(acc, a, whole, panel, vectors, 1);
#pragma GCC unroll 8
    for (int i = 0; i < MR; i++)
#pragma GCC unroll 4
        for (int v = 0; v < vectors; v++) {
            float *t = tile + i * ldt + v * LANES;
            if (add) acc[i][v] += load(t);
            store(t, acc[i][v]);
        }
}

// The last panel may have fewer vectors.
static void micro_edge(float *tile, i64 ldt, const real *const rows[MR], const float *panel, int K,
                       i64 vectors, int add, const real *next, i64 next_stride) {
    if (vectors == 1) micro(tile, ldt, rows, panel, K, 1, add, next, next_stride);
#if VECTORS == 4
    if (vectors == 2) micro(tile, ldt, rows, panel, K, 2, add, next, next_stride);
    if (vectors == 3) micro(tile, ldt, rows, panel, K, 3, add, next, next_stride);
#endif
}

void REAL(block_product)(float *tile, i64 ldt, const real *first, i64 stride, i64 rows,
                         const float *panels, i64 panel_stride, i64 columns, int K, int add,
                         Next *next) {
    const i64 step = K / PER / UNROLL;
    for (i64 i = 0; i < rows; i += MR) {
        const real *strip[MR]; // past the last row it is the last one again, and nobody looks
        for (int r = 0; r < MR; r++) strip[r] = first + min_i64(i + r, rows - 1) * stride;
        for (i64 j = 0; j < columns; j += NR) {
            while (next && next->rows <= 0) next = next->then;
            float *t = tile + i * ldt + j;
            const float *panel = panels + j / NR * panel_stride;
            const real *ahead = next ? next->at + next->done : first;
            const i64 ahead_stride = next ? next->stride : 0, vectors = ceil_div(columns - j, LANES);
            if (vectors >= VECTORS)
                micro(t, ldt, strip, panel, K, VECTORS, add, ahead, ahead_stride);
            else micro_edge(t, ldt, strip, panel, K, vectors, add, ahead, ahead_stride);
            // A call has fetched `step` rows of one column of lines.
            if (next && (next->done += LINE) >= next->columns) {
                next->done = 0;
                next->at += step * next->stride;
                next->rows -= step;
            }
        }
    }
}
#endif

void REAL(pack_columns)(float *panel, const real *first, i64 stride, i64 rows, i64 columns) {
    for (i64 k = 0; k < rows; k += PER)
        for (i64 v = 0; v < NR && v < columns; v += LANES)
            *(vec *)(panel + k / PER * NR + v) =
                load_pairs(first + k * stride + v, stride, rows - k, columns - v);
}

void REAL(pack_rows)(float *panel, const real *first, i64 stride, i64 rows, i64 columns) {
    const i64 units = UNITS(columns);
    for (i64 v = 0; v < NR && v < rows; v += LANES)
        for (i64 k = 0; k < units; k += LANES) {
            const real *at = first + v * stride + k * PER;
            const i64 left = columns - k * PER;
            vec r[LANES];
#pragma GCC unroll 16
            for (int i = 0; i < LANES; i++)
                r[i] = load_units(at + i * stride, v + i < rows ? left : 0);
            transpose(r);
            if (k + LANES <= units) {
#pragma GCC unroll 16
                for (int i = 0; i < LANES; i++) *(vec *)(panel + (k + i) * NR + v) = r[i];
            } else
                for (int i = 0; i < units - k; i++) *(vec *)(panel + (k + i) * NR + v) = r[i];
        }
}
