/* AdamW. Each parameter steps against the running mean of its gradient (m), divided by the running
 * size of it (the root of v): about lr a step, however large its gradients are. */
#include "libm.h"
#include "real.h"

void update_begin(double *update, double *norm, const double *controls, const double *squares,
                  const float *loss, int count, float beta1, float beta2) {
    double lr = controls[0], step = controls[1], clip = controls[2], sum = 0;
    for (int i = 0; i < count; i++) sum += squares[i];
    *norm = sqrt(sum);
    update[0] = lr;
    update[1] = clip <= 0 || *norm <= clip ? 1 : clip / *norm;
    // Both means start from 0, which is no gradient that was ever seen; dividing by the weight that
    // the seen ones have together takes the bias out.
    update[2] = 1 / (1 - pow(beta1, step));
    update[3] = 1 / (1 - pow(beta2, step));
    // x - x is 0, or NaN where x is not finite.
    update[4] = step + (*norm - *norm) + (*loss - *loss);
}

typedef struct {
    float lr, beta1, beta2, eps, weight_decay, grad_scale;
    double m_scale, v_scale;
} AdamW;

static AdamW adamw(const double *update, float beta1, float beta2, float eps, float weight_decay) {
    float lr = (float)update[0], grad_scale = (float)update[1];
    return (AdamW){lr, beta1, beta2, eps, weight_decay, grad_scale, update[2], update[3]};
}

static float stepped(float param, float *m, float *v, float grad, const AdamW *a) {
    double g = (double)grad * a->grad_scale;
    double mean = a->beta1 * (double)*m + (1 - (double)a->beta1) * g;
    double square = a->beta2 * (double)*v + (1 - (double)a->beta2) * g * g;
    *m = (float)mean;
    *v = (float)square;

    // The decay is a term of its own, so the size of the gradients does not weaken it.
    double direction = mean * a->m_scale / (sqrt(square * a->v_scale) + a->eps);
    return (float)(param - a->lr * (direction + (double)a->weight_decay * param));
}

void adamw_update(float *param, float *m, float *v, const float *grad, const double *update, i64 n,
                  float beta1, float beta2, float eps, float weight_decay) {
    if (!(update[4] >= 1)) return;
    AdamW a = adamw(update, beta1, beta2, eps, weight_decay);
    for (i64 i = 0; i < n; i++) param[i] = stepped(param[i], m + i, v + i, grad[i], &a);
}

static u32 hash(u32 x) {
    x = (x ^ x >> 16) * 0x7feb352du;
    x = (x ^ x >> 15) * 0x846ca68bu;
    return x ^ x >> 16;
}

// Rounding to nearest would forget every step that is less than half of what the last bit is worth.
// At random, small steps change the parameter as often as their size deserves.
static bf16 bf16_stochastic(float x, u32 random) {
    f32_bits wide = {.number = x};
    if ((wide.bits & 0x7f800000u) == 0x7f800000u) return bf16_nearest(x);
    return (bf16)((wide.bits + (random & 0xffffu)) >> 16);
}

void adamw_update_bf16(bf16 *param, float *master, float *m, float *v, const float *grad,
                       const double *update, i64 n, float beta1, float beta2, float eps,
                       float weight_decay, int stochastic, u32 seed, int stream) {
    if (!(update[4] >= 1)) return;
    AdamW a = adamw(update, beta1, beta2, eps, weight_decay);
    u32 key = hash((u32)stream + hash((u32)update[4] + hash(seed)));
    for (i64 i = 0; i < n; i++) {
        float before = master ? master[i] : bf16_value(param[i]);
        float after = stepped(before, m + i, v + i, grad[i], &a);
        if (master) master[i] = after;
        u32 random = hash((u32)i + hash((u32)(i >> 32) + key));
        param[i] = stochastic ? bf16_stochastic(after, random) : bf16_nearest(after);
    }
}
