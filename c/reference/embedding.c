/* The model's entrance: a token becomes the vector that stands for it (a row of wte) plus the one
 * that stands for its place in the text (a row of wpe). */
#include "real.h"

void REAL(embedding_forward)(real *out, const int *tokens, const real *wte, const real *wpe,
                             const int *positions, int B, int T, int C) {
    for (int b = 0; b < B; b++) {
        i64 first = positions ? positions[b] : 0;
        for (int t = 0; t < T; t++) {
            i64 row = (i64)b * T + t;
            const real *token = wte + (i64)tokens[row] * C;
            const real *place = wpe + (first + t) * C;
            real *o = out + row * C;
            for (int c = 0; c < C; c++) o[c] = rounded(value(token[c]) + value(place[c]));
        }
    }
}

// A row that was looked up many times gets the sum of all the gradients that came back to it; a
// row that nobody asked for gets none.
void REAL(embedding_backward)(float *dwte, float *dwpe, const real *dout, const int *tokens, int B,
                              int T, int C, int Vp, int maxT, int accumulate_wte,
                              int accumulate_wpe) {
    if (!accumulate_wte)
        for (i64 i = 0; i < (i64)Vp * C; i++) dwte[i] = 0;
    if (!accumulate_wpe)
        for (i64 i = 0; i < (i64)maxT * C; i++) dwpe[i] = 0;
    for (int b = 0; b < B; b++) {
        for (int t = 0; t < T; t++) {
            i64 row = (i64)b * T + t;
            const real *d = dout + row * C;
            float *dtoken = dwte + (i64)tokens[row] * C;
            float *dplace = dwpe + (i64)t * C;
            for (int c = 0; c < C; c++) {
                dtoken[c] += value(d[c]);
                dplace[c] += value(d[c]);
            }
        }
    }
}
