/* The microkernel on AMX's tiles: 2 × 2 of them hold sums, two more a strip of rows and two a panel's
 * columns. Panels have the layout that the tiles want: a row of a tile is a unit of 16 columns. */
#include "product.h"

#if AMX && defined LLM_BF16
#include "amx.h"

#define UNIT_STEP TILE_ROWS          // units of k that a tile holds
#define STEP (UNIT_STEP * PER)       // and how many numbers that is
#define ROW_BYTES (MR * (i64)sizeof(real))
#define FETCH 4 // lines that a step asks for

_Static_assert(MR == 2 * TILE_ROWS && NR == 2 * TILE_BYTES / 4, "a strip and a panel are two tiles");

/* Of one step of k: two tiles of rows, `row_bytes` apart, by one or two of columns, NR units apart. */
INLINE void step(const real *rows, i64 row_bytes, const float *panel, int both) {
    tile_load(4, rows, row_bytes);
    tile_load(5, (const char *)rows + TILE_ROWS * row_bytes, row_bytes);
    tile_load(6, panel, NR * 4);
    tile_multiply_add(0, 4, 6);
    tile_multiply_add(1, 5, 6);
    if (!both) return;
    tile_load(7, panel + TILE_BYTES / 4, NR * 4);
    tile_multiply_add(2, 4, 7);
    tile_multiply_add(3, 5, 7);
}

INLINE void begin(const float *tile, i64 ldt, int both, int add) {
    if (!add) {
        tiles_zero();
        return;
    }
    tile_load(0, tile, ldt * 4);
    tile_load(1, tile + TILE_ROWS * ldt, ldt * 4);
    if (!both) return;
    tile_load(2, tile + TILE_ROWS, ldt * 4);
    tile_load(3, tile + TILE_ROWS * ldt + TILE_ROWS, ldt * 4);
}

INLINE void end(float *tile, i64 ldt, int both) {
    tile_store(0, tile, ldt * 4);
    tile_store(1, tile + TILE_ROWS * ldt, ldt * 4);
    if (!both) return;
    tile_store(2, tile + TILE_ROWS, ldt * 4);
    tile_store(3, tile + TILE_ROWS * ldt + TILE_ROWS, ldt * 4);
}

// Along rows: lines that follow one another wake the hardware's own prefetchers.
static void fetch(Next *next) {
    while (next && next->rows <= 0) next = next->then;
    for (int line = 0; next && next->rows > 0 && line < FETCH; line++) {
        __builtin_prefetch(next->at + next->done, 0, 2);
        if ((next->done += LINE) < next->columns) continue;
        next->done = 0;
        next->at += next->stride;
        next->rows--;
    }
}

/* Numbers [k, k + STEP) of a strip's rows, with zeros where there are none. */
static void copy_rows(real *to, const real *from, i64 stride, i64 rows, i64 numbers) {
    __builtin_memset(to, 0, MR * STEP * sizeof(real));
    for (i64 i = 0; i < rows; i++)
        __builtin_memcpy(to + i * STEP, from + i * stride, (unsigned long)numbers * sizeof(real));
}

void REAL(block_product)(float *tile, i64 ldt, const real *first, i64 stride, i64 rows,
                         const float *panels, i64 panel_stride, i64 columns, int K, int add,
                         Next *next) {
    real strip[MR * STEP] __attribute__((aligned(64)));
    float last[UNIT_STEP * NR] __attribute__((aligned(64)));
    const i64 whole = K / STEP * STEP, left = K - whole;
    tiles_configure();
    for (i64 i = 0; i < rows; i += MR)
        for (i64 j = 0; j < columns; j += NR) {
            const real *row = first + i * stride;
            const float *panel = panels + j / NR * panel_stride;
            const i64 some = min_i64(MR, rows - i);
            const int both = columns - j > TILE_BYTES / 4;
            float *at = tile + i * ldt + j;
            begin(at, ldt, both, add);
            for (i64 k = 0; k < whole; k += STEP) {
                fetch(next);
                if (some == MR) {
                    step(row + k, stride * (i64)sizeof(real), panel + k / PER * NR, both);
                    continue;
                }
                copy_rows(strip, row + k, stride, some, STEP);
                step(strip, ROW_BYTES, panel + k / PER * NR, both);
            }
            if (left > 0) {
                // Past the panel's end there may be anything, even NaN, which zero does not erase.
                __builtin_memset(last, 0, sizeof last);
                __builtin_memcpy(last, panel + whole / PER * NR,
                                 (unsigned long)(UNITS(left) * NR) * sizeof(float));
                copy_rows(strip, row + whole, stride, some, left);
                step(strip, ROW_BYTES, last, both);
            }
            end(at, ldt, both);
        }
}
#endif
