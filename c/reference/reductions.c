/* Many numbers become one: a batch's loss is the mean of its tokens' losses, and the norm of the
 * gradient, by which it is clipped, is the root of its sum of squares. */
#include "llm.h"

void mean_forward(float *out, const float *inp, i64 n) {
    double sum = 0;
    for (i64 i = 0; i < n; i++) sum += inp[i];
    out[0] = (float)(sum / n);
}

void squared_norm(double *out, const float *inp, i64 n) {
    double sum = 0;
    for (i64 i = 0; i < n; i++) sum += (double)inp[i] * inp[i];
    out[0] = sum;
}
