/* The microkernel: MR × VECTORS accumulators that live in registers for the whole of K. */
#include "product.h"

#define PREFETCH_EVERY 8 // k's

INLINE void micro(float *tile, i64 ldt, const float *const rows[MR], const float *panel, int K,
                  const int vectors, int add, const float *next, i64 next_stride) {
    vec acc[MR][VECTORS];
    const float *a[MR];
#pragma GCC unroll 8
    for (int i = 0; i < MR; i++) {
        a[i] = rows[i];
#pragma GCC unroll 4
        for (int v = 0; v < vectors; v++) acc[i][v] = splat(0);
    }
    for (i64 k = 0; k < K; next += next_stride) {
        __builtin_prefetch(next, 0, 2);
        for (const i64 end = min_i64(K, k + PREFETCH_EVERY); k < end; k++) {
            vec b[VECTORS];
#pragma GCC unroll 4
            for (int v = 0; v < vectors; v++) b[v] = *(const vec *)(panel + k * NR + v * LANES);
#pragma GCC unroll 8
            for (int i = 0; i < MR; i++) {
                vec x = splat(a[i][k]);
#pragma GCC unroll 4
                for (int v = 0; v < vectors; v++) acc[i][v] += x * b[v];
            }
        }
    }
#pragma GCC unroll 8
    for (int i = 0; i < MR; i++)
#pragma GCC unroll 4
        for (int v = 0; v < vectors; v++) {
            float *t = tile + i * ldt + v * LANES;
            if (add) acc[i][v] += load(t);
            store(t, acc[i][v]);
        }
}

static void micro_product(float *tile, i64 ldt, const float *const rows[MR], const float *panel,
                          int K, i64 columns, int add, const float *next, i64 next_stride) {
    switch (ceil_div(columns, LANES)) {
    case 1: micro(tile, ldt, rows, panel, K, 1, add, next, next_stride); break;
#if VECTORS == 4
    case 2: micro(tile, ldt, rows, panel, K, 2, add, next, next_stride); break;
    case 3: micro(tile, ldt, rows, panel, K, 3, add, next, next_stride); break;
#endif
    default: micro(tile, ldt, rows, panel, K, VECTORS, add, next, next_stride);
    }
}

void block_product(float *tile, i64 ldt, const float *first, i64 stride, i64 rows,
                   const float *panels, i64 panel_stride, i64 columns, int K, int add, Next *next) {
    const i64 step = ceil_div(K, PREFETCH_EVERY);
    for (i64 i = 0; i < rows; i += MR) {
        const float *strip[MR]; // past the last row it is the last one again, and nobody looks
        for (int r = 0; r < MR; r++) strip[r] = first + min_i64(i + r, rows - 1) * stride;
        for (i64 j = 0; j < columns; j += NR) {
            const int some = next && next->rows > 0;
            micro_product(tile + i * ldt + j, ldt, strip, panels + j / NR * panel_stride, K,
                          columns - j, add, some ? next->at + next->done : panels,
                          some ? next->stride : 0);
            // A call has fetched `step` rows of one column of lines.
            if (some && (next->done += LINE) >= next->columns) {
                next->done = 0;
                next->at += step * next->stride;
                next->rows -= step;
            }
        }
    }
}

i64 block_columns(i64 columns, i64 other_tasks, i64 widest) {
    i64 width = widest;
    while (width > NR && other_tasks * ceil_div(columns, width) < 2 * team_size()) width -= NR;
    return width;
}

void pack_columns(float *panel, const float *first, i64 stride, i64 rows, i64 columns) {
    for (i64 k = 0; k < rows; k++)
        for (i64 v = 0; v < NR && v < columns; v += LANES)
            *(vec *)(panel + k * NR + v) = load_n(first + k * stride + v, columns - v);
}

void pack_rows(float *panel, const float *first, i64 stride, i64 rows, i64 columns) {
    for (i64 v = 0; v < NR && v < rows; v += LANES)
        for (i64 k = 0; k < columns; k += LANES) {
            vec r[LANES];
#pragma GCC unroll 16
            for (int i = 0; i < LANES; i++)
                r[i] = v + i < rows ? load_n(first + (v + i) * stride + k, columns - k) : splat(0);
            transpose(r);
            if (k + LANES <= columns) {
#pragma GCC unroll 16
                for (int i = 0; i < LANES; i++) *(vec *)(panel + (k + i) * NR + v) = r[i];
            } else
                for (int i = 0; i < columns - k; i++) *(vec *)(panel + (k + i) * NR + v) = r[i];
        }
}
