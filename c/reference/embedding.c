/* The model's entrance: a token becomes the vector that stands for it (a row of wte) plus the one
 * that stands for its place in the text (a row of wpe). */
#include "llm.h"

void embedding_forward(float *out, const int *tokens, const float *wte, const float *wpe,
                       const int *position, int B, int T, int C) {
    i64 first = position ? *position : 0;
    for (int b = 0; b < B; b++) {
        for (int t = 0; t < T; t++) {
            i64 row = (i64)b * T + t;
            const float *token = wte + (i64)tokens[row] * C;
            const float *place = wpe + (first + t) * C;
            float *o = out + row * C;
            for (int c = 0; c < C; c++) o[c] = token[c] + place[c];
        }
    }
}

// A row that was looked up many times gets the sum of all the gradients that came back to it; a
// row that nobody asked for gets none.
void embedding_backward(float *dwte, float *dwpe, const float *dout, const int *tokens, int B,
                        int T, int C, int Vp, int maxT, int accumulate_wte, int accumulate_wpe) {
    if (!accumulate_wte)
        for (i64 i = 0; i < (i64)Vp * C; i++) dwte[i] = 0;
    if (!accumulate_wpe)
        for (i64 i = 0; i < (i64)maxT * C; i++) dwpe[i] = 0;
    for (int b = 0; b < B; b++) {
        for (int t = 0; t < T; t++) {
            i64 row = (i64)b * T + t;
            const float *d = dout + row * C;
            float *dtoken = dwte + (i64)tokens[row] * C;
            float *dplace = dwpe + (i64)t * C;
            for (int c = 0; c < C; c++) {
                dtoken[c] += d[c];
                dplace[c] += d[c];
            }
        }
    }
}
