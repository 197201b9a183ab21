/* The model's exit: softmax turns a row of logits into probabilities, and cross-entropy says, in
 * nats, how surprised they are by the token that really came next. */
#include "libm.h"
#include "llm.h"

// The log of what the softmax divides by. Exponentials are taken relative to the largest logit:
// then the largest is 1, and none overflows.
static double log_sum_exp(const float *logits, int V) {
    double max = logits[0], sum = 0;
    for (int v = 1; v < V; v++)
        if (logits[v] > max) max = logits[v];
    for (int v = 0; v < V; v++) sum += exp(logits[v] - max);
    return max + log(sum);
}

// The gradient is what was predicted minus what came true: it takes from every token the
// probability it got, and gives the right one what was missing to 1.
static void logits_gradient(float *dlogits, const float *logits, double lse, int target, int V,
                            int Vp, double scale) {
    for (int v = 0; v < V; v++) {
        double probability = exp(logits[v] - lse);
        dlogits[v] = (float)((probability - (v == target)) * scale);
    }
    for (int v = V; v < Vp; v++) dlogits[v] = 0;
}

void classifier_forward(float *losses, const float *logits, const int *targets, int N, int V,
                        int Vp) {
    for (int n = 0; n < N; n++) {
        const float *row = logits + (i64)n * Vp;
        losses[n] = (float)(log_sum_exp(row, V) - row[targets[n]]);
    }
}

void classifier_backward(float *dlogits, const float *logits, const int *targets, int N, int V,
                         int Vp, float scale) {
    for (int n = 0; n < N; n++) {
        const float *row = logits + (i64)n * Vp;
        logits_gradient(dlogits + (i64)n * Vp, row, log_sum_exp(row, V), targets[n], V, Vp, scale);
    }
}

void classifier_fused(float *losses, float *logits, const int *targets, int N, int V, int Vp,
                      float scale) {
    for (int n = 0; n < N; n++) {
        float *row = logits + (i64)n * Vp;
        double lse = log_sum_exp(row, V);
        losses[n] = (float)(lse - row[targets[n]]);
        logits_gradient(row, row, lse, targets[n], V, Vp, scale);
    }
}
