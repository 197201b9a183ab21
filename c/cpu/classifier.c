/* Softmax and cross-entropy, row by row: a row of logits comes from memory once, for its largest,
 * and stays in the second-level cache for the exponentials and the gradient. */
#include <math.h>

#include "vecmath.h"

// dlogits may be NULL (no gradient) or logits itself. Returns the loss.
static float row(float *dlogits, const float *logits, i64 target, i64 V, i64 Vp, float scale) {
    const float max = row_max(logits, V), at = logits[target];
    const float total = row_exp(dlogits, logits, max, V);
    if (dlogits) {
        const float factor = scale / total;
        for (i64 v = 0; v < V; v += LANES)
            store_n(dlogits + v, load_n(dlogits + v, V - v) * factor, V - v);
        dlogits[target] -= scale;
        for (i64 v = V; v < Vp; v++) dlogits[v] = 0;
    }
    return (float)(log(total) + max - at);
}

void classifier_forward(float *losses, const float *logits, const int *targets, int N, int V,
                        int Vp) {
#pragma omp parallel for schedule(dynamic)
    for (i64 n = 0; n < N; n++) losses[n] = row(NULL, logits + n * Vp, targets[n], V, Vp, 0);
}

void classifier_backward(float *dlogits, const float *logits, const int *targets, int N, int V,
                         int Vp, float scale) {
#pragma omp parallel for schedule(dynamic)
    for (i64 n = 0; n < N; n++) row(dlogits + n * Vp, logits + n * Vp, targets[n], V, Vp, scale);
}

void classifier_fused(float *losses, float *logits, const int *targets, int N, int V, int Vp,
                      float scale) {
#pragma omp parallel for schedule(dynamic)
    for (i64 n = 0; n < N; n++)
        losses[n] = row(logits + n * Vp, logits + n * Vp, targets[n], V, Vp, scale);
}
