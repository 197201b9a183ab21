/* Between the two types of number. */
#include "real.h"

void bf16_round(bf16 *out, const float *inp, i64 n) {
    for (i64 i = 0; i < n; i++) out[i] = bf16_nearest(inp[i]);
}

void bf16_widen(float *out, const bf16 *inp, i64 n) {
    for (i64 i = 0; i < n; i++) out[i] = bf16_value(inp[i]);
}
