/* AdamW: seven streams through memory and a little arithmetic, in one pass. */
#include <math.h>

#include "simd.h"

void adamw_update(float *param, float *m, float *v, const float *grad, i64 n, float lr, float beta1,
                  float beta2, float eps, float weight_decay, float grad_scale, int step) {
    const float m_scale = (float)(1 / (1 - pow(beta1, step)));
    const float v_scale = (float)(1 / (1 - pow(beta2, step)));
#pragma omp parallel for schedule(static)
    for (i64 i = 0; i < n; i += LANES) {
        const i64 left = n - i;
        const vec g = load_n(grad + i, left) * grad_scale, p = load_n(param + i, left);
        const vec m1 = beta1 * load_n(m + i, left) + (1 - beta1) * g;
        const vec v1 = beta2 * load_n(v + i, left) + (1 - beta2) * (g * g);
        const vec update = m1 * m_scale / (vsqrt(v1 * v_scale) + eps);
        store_n(m + i, m1, left);
        store_n(v + i, v1, left);
        store_n(param + i, p - lr * (update + weight_decay * p), left);
    }
}
