/* What the three matrix products share. A block of the result is a tile of MR-row strips by
 * NR-column panels; both stay where they are while K passes by:
 *
 *     tile[i][j] (+)= sum over k of row_i[k] · panel[k][j]
 *
 * One operand is broadcast, number by number, from rows that are contiguous along k; the other is
 * a panel of NR columns, row after row of k, read as vectors. forward reads weight as rows (each is
 * needed only a few times) and packs inp; backward_input reads dout as rows and packs weight;
 * backward_weight transposes dout into rows and packs inp. */
#ifndef LLM_PRODUCT_H
#define LLM_PRODUCT_H

#include "simd.h"

#if AMX && defined LLM_BF16
#define MR 32
#define NR 32
#else
#define MR 6
#define NR (VECTORS * LANES)
#endif
#define KC 384 // k's in one go: its sums are then added to the tile, which also bounds rounding

#define LINE (64 / (i64)sizeof(real)) // numbers of a cache line

/* A panel holds 32-bit units: one f32, or two bf16 of neighbouring k's, whose products one
 * instruction adds up. An odd K ends with half a unit. */
#define PER (4 / (i64)sizeof(real)) // numbers of a unit
#define UNITS(k) (((k) + PER - 1) / PER)

/* (rows, columns) that will be needed when a product is done, and then what `then` says: fetched into
 * the second-level cache while it runs, because the units that load have time to spare then. */
typedef struct Next {
    const real *at;
    i64 stride, rows, columns, done; // columns done of the rows now being fetched
    struct Next *then;
} Next;

/* The product of rows (rows,K), `stride` apart, and panels of `columns` columns, `panel_stride`
 * units apart. tile, rows of ldt, is overwritten, or added to when `add`; it has room for whole strips
 * and whole vectors, and what is past the ends is undefined. next is advanced, or NULL. */
HIDDEN void REAL(block_product)(float *tile, i64 ldt, const real *first, i64 stride, i64 rows,
                                const float *panels, i64 panel_stride, i64 columns, int K, int add,
                                Next *next);

/* Fills a panel from (rows, columns) at `first`: panel[k][j] = row k, column j for pack_columns
 * (columns up to NR are taken), and row j, column k for pack_rows (rows up to NR are taken). */
HIDDEN void REAL(pack_columns)(float *panel, const real *first, i64 stride, i64 rows, i64 columns);
HIDDEN void REAL(pack_rows)(float *panel, const real *first, i64 stride, i64 rows, i64 columns);

/* This thread's own memory, never freed, 64-byte aligned: WORKSPACE floats. */
#define WORKSPACE (256 * 1024)
HIDDEN float *workspace(void);

/* Threads that the next parallel region will have; it may shape tasks, never a sum. */
HIDDEN int team_size(void);

/* How many columns a task takes: at most `widest`, a multiple of NR; less if a thread had none. */
INLINE i64 block_columns(i64 columns, i64 other_tasks, i64 widest) {
    i64 width = widest;
    while (width > NR && other_tasks * ceil_div(columns, width) < 2 * team_size()) width -= NR;
    return width;
}

#endif
