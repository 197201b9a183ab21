/* Between the two types of number. */
#include "simd.h"

void bf16_round(bf16 *out, const float *inp, i64 n) {
#pragma omp parallel for schedule(static)
    for (i64 i = 0; i < n; i += LANES) store_n(out + i, load_n(inp + i, n - i), n - i);
}

void bf16_widen(float *out, const bf16 *inp, i64 n) {
#pragma omp parallel for schedule(static)
    for (i64 i = 0; i < n; i += LANES) store_n(out + i, load_n(inp + i, n - i), n - i);
}
