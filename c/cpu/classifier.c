/* Softmax and cross-entropy, row by row: a row of logits comes from memory once, for its largest,
 * and stays in the second-level cache for the exponentials and the gradient. */
#include <math.h>

#include "vecmath.h"

#define KEEPS_EXP (sizeof(real) == sizeof(float))

// dlogits = (exp(logits - max)/total - onehot)·scale; it may be logits itself, and holds the
// exponentials already where KEEPS_EXP. `at` is the target's logit.
static void gradient(real *dlogits, const real *logits, i64 target, float at, i64 V, i64 Vp,
                     float max, float total, float scale) {
    const float factor = scale / total;
    for (i64 v = 0; v < V; v += LANES) {
        // bf16 would round the exponentials before they are scaled.
        vec e = load_n((KEEPS_EXP ? dlogits : logits) + v, V - v);
        if (!KEEPS_EXP) e = vexp(e - max);
        store_n(dlogits + v, e * factor, V - v);
    }
    store_n(dlogits + target, vexp(splat(at - max)) * factor - scale, 1);
    for (i64 v = V; v < Vp; v++) dlogits[v] = 0;
}

// dlogits may be NULL (no gradient) or logits itself. Returns the loss.
static float row(real *dlogits, const real *logits, i64 target, i64 V, i64 Vp, float scale) {
    const float max = row_max(logits, V), at = load_n(logits + target, 1)[0];
    const float total = row_exp(KEEPS_EXP ? dlogits : NULL, logits, max, V);
    if (dlogits) gradient(dlogits, logits, target, at, V, Vp, max, total, scale);
    return (float)(log(total) + max - at);
}

void REAL(classifier_forward)(float *losses, const real *logits, const int *targets, int N, int V,
                              int Vp) {
#pragma omp parallel for schedule(dynamic)
    for (i64 n = 0; n < N; n++) losses[n] = row(NULL, logits + n * Vp, targets[n], V, Vp, 0);
}

void REAL(classifier_backward)(real *dlogits, const real *logits, const int *targets, int N, int V,
                               int Vp, float scale) {
#pragma omp parallel for schedule(dynamic)
    for (i64 n = 0; n < N; n++) row(dlogits + n * Vp, logits + n * Vp, targets[n], V, Vp, scale);
}

void REAL(classifier_fused)(float *losses, real *logits, const int *targets, int N, int V, int Vp,
                            float scale) {
#pragma omp parallel for schedule(dynamic)
    for (i64 n = 0; n < N; n++)
        losses[n] = row(logits + n * Vp, logits + n * Vp, targets[n], V, Vp, scale);
}
