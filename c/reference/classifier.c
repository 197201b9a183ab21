/* The model's exit: softmax turns a row of logits into probabilities, and cross-entropy says, in
 * nats, how surprised they are by the token that really came next. */
#include "libm.h"
#include "real.h"

// The log of what the softmax divides by. Exponentials are taken relative to the largest logit:
// then the largest is 1, and none overflows.
static double log_sum_exp(const real *logits, int V) {
    double max = value(logits[0]), sum = 0;
    for (int v = 1; v < V; v++)
        if (value(logits[v]) > max) max = value(logits[v]);
    for (int v = 0; v < V; v++) sum += exp(value(logits[v]) - max);
    return max + log(sum);
}

// The gradient is what was predicted minus what came true: it takes from every token the
// probability it got, and gives the right one what was missing to 1.
static void logits_gradient(real *dlogits, const real *logits, double lse, int target, int V,
                            int Vp, double scale) {
    for (int v = 0; v < V; v++) {
        double probability = exp(value(logits[v]) - lse);
        dlogits[v] = rounded((probability - (v == target)) * scale);
    }
    for (int v = V; v < Vp; v++) dlogits[v] = 0;
}

void REAL(classifier_forward)(float *losses, const real *logits, const int *targets, int N, int V,
                              int Vp) {
    for (int n = 0; n < N; n++) {
        const real *row = logits + (i64)n * Vp;
        losses[n] = (float)(log_sum_exp(row, V) - value(row[targets[n]]));
    }
}

void REAL(classifier_backward)(real *dlogits, const real *logits, const int *targets, int N, int V,
                               int Vp, float scale) {
    for (int n = 0; n < N; n++) {
        const real *row = logits + (i64)n * Vp;
        logits_gradient(dlogits + (i64)n * Vp, row, log_sum_exp(row, V), targets[n], V, Vp, scale);
    }
}

void REAL(classifier_fused)(float *losses, real *logits, const int *targets, int N, int V, int Vp,
                            float scale) {
    for (int n = 0; n < N; n++) {
        real *row = logits + (i64)n * Vp;
        double lse = log_sum_exp(row, V);
        losses[n] = (float)(lse - value(row[targets[n]]));
        logits_gradient(row, row, lse, targets[n], V, Vp, scale);
    }
}
