/* AdamW: seven streams through memory and a little arithmetic, in one pass. */
#include <math.h>

#include "simd.h"

void update_begin(double *update, double *norm, const double *controls, const double *squares,
                  const float *loss, int count, float beta1, float beta2) {
    const double lr = controls[0], step = controls[1], clip = controls[2];
    double sum = 0;
    for (int i = 0; i < count; i++) sum += squares[i];
    *norm = sqrt(sum);
    update[0] = lr;
    update[1] = clip <= 0 || *norm <= clip ? 1 : clip / *norm;
    update[2] = 1 / (1 - pow(beta1, step));
    update[3] = 1 / (1 - pow(beta2, step));
    update[4] = isfinite(*norm) && isfinite(*loss) ? step : NAN;
}

typedef struct {
    float lr, beta1, beta2, eps, weight_decay, grad_scale, m_scale, v_scale;
} AdamW;

INLINE AdamW adamw(const double *update, float beta1, float beta2, float eps, float weight_decay) {
    const float lr = (float)update[0], grad_scale = (float)update[1];
    const float m_scale = (float)update[2], v_scale = (float)update[3];
    return (AdamW){lr, beta1, beta2, eps, weight_decay, grad_scale, m_scale, v_scale};
}

/* The parameters p after the step; their moments are updated. */
INLINE vec stepped(vec p, float *m, float *v, const float *grad, i64 left, const AdamW *a) {
    const vec g = load_n(grad, left) * a->grad_scale;
    const vec m1 = a->beta1 * load_n(m, left) + (1 - a->beta1) * g;
    const vec v1 = a->beta2 * load_n(v, left) + (1 - a->beta2) * (g * g);
    const vec update = m1 * a->m_scale / (vsqrt(v1 * a->v_scale) + a->eps);
    store_n(m, m1, left);
    store_n(v, v1, left);
    return p - a->lr * (update + a->weight_decay * p);
}

void adamw_update(float *param, float *m, float *v, const float *grad, const double *update, i64 n,
                  float beta1, float beta2, float eps, float weight_decay) {
    if (!(update[4] >= 1)) return;
    const AdamW a = adamw(update, beta1, beta2, eps, weight_decay);
#pragma omp parallel for schedule(static)
    for (i64 i = 0; i < n; i += LANES) {
        const i64 left = n - i;
        const vec p = load_n(param + i, left);
        store_n(param + i, stepped(p, m + i, v + i, grad + i, left, &a), left);
    }
}

typedef u32 vecu __attribute__((vector_size(4 * LANES), may_alias));

INLINE u32 hash(u32 x) {
    x = (x ^ x >> 16) * 0x7feb352du;
    x = (x ^ x >> 15) * 0x846ca68bu;
    return x ^ x >> 16;
}

INLINE vecu hashes(vecu x) {
    x = (x ^ x >> 16) * 0x7feb352du;
    x = (x ^ x >> 15) * 0x846ca68bu;
    return x ^ x >> 16;
}

/* f32 that bf16 holds exactly: x, or its neighbour away from zero, by the lower halves of random. */
INLINE vec stochastic_bf16(vec x, vecu random) {
    const vecu bits = (vecu)x, special = (vecu)((bits & 0x7f800000u) == 0x7f800000u);
    const vecu moved = (bits + (random & 0xffffu)) & 0xffff0000u;
    return (vec)((special & bits) | (~special & moved));
}

void adamw_update_bf16(bf16 *param, float *master, float *m, float *v, const float *grad,
                       const double *update, i64 n, float beta1, float beta2, float eps,
                       float weight_decay, int stochastic, u32 seed, int stream) {
    if (!(update[4] >= 1)) return;
    const AdamW a = adamw(update, beta1, beta2, eps, weight_decay);
    const u32 key = hash((u32)stream + hash((u32)update[4] + hash(seed)));
#pragma omp parallel for schedule(static)
    for (i64 i = 0; i < n; i += LANES) {
        const i64 left = n - i;
        vec p = master ? load_n(master + i, left) : load_n(param + i, left);
        p = stepped(p, m + i, v + i, grad + i, left, &a);
        if (master) store_n(master + i, p, left);
        // LANES divides 2³², so that the upper half of the index is the same for all lanes.
        if (stochastic)
            p = stochastic_bf16(p, hashes((vecu)IOTA + ((u32)i + hash((u32)(i >> 32) + key))));
        store_n(param + i, p, left);
    }
}
