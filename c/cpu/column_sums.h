/* Sums down the columns of a matrix: the gradient of a bias, where no product makes it. */
#ifndef LLM_COLUMN_SUMS_H
#define LLM_COLUMN_SUMS_H

#include "simd.h"

#define STRIP (4 * LANES) // columns whose sums stay in registers: a task
#define ROWS 64           // added up before they join the total, which bounds rounding

/* sums (C) = the sum over rows of inp (N,C); overwritten, or added to by accumulate. */
HIDDEN void REAL(column_sums)(float *sums, const real *inp, i64 N, i64 C, int accumulate);

#endif
