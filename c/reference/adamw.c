/* AdamW. Each parameter steps against the running mean of its gradient (m), divided by the running
 * size of it (the root of v): about lr a step, however large its gradients are. */
#include "libm.h"
#include "llm.h"

void adamw_update(float *param, float *m, float *v, const float *grad, i64 n, float lr, float beta1,
                  float beta2, float eps, float weight_decay, float grad_scale, int step) {
    // Both means start from 0, which is no gradient that was ever seen; dividing by the weight that
    // the seen ones have together takes the bias out.
    double seen1 = 1 - pow(beta1, step);
    double seen2 = 1 - pow(beta2, step);
    for (i64 i = 0; i < n; i++) {
        double g = (double)grad[i] * grad_scale;
        double mean = beta1 * (double)m[i] + (1 - (double)beta1) * g;
        double square = beta2 * (double)v[i] + (1 - (double)beta2) * g * g;
        m[i] = (float)mean;
        v[i] = (float)square;

        // The decay is a term of its own, so the size of the gradients does not weaken it.
        double direction = (mean / seen1) / (sqrt(square / seen2) + eps);
        param[i] = (float)(param[i] - lr * (direction + (double)weight_decay * param[i]));
    }
}
