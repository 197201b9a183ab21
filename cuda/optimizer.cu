/* AdamW: up to seven streams through memory and a little arithmetic, in one pass. */
#include "elements.h"

namespace {

KERNEL begin(double *update, double *norm, const double *controls, const double *squares,
             const float *loss, int count, float beta1, float beta2) {
    const double lr = controls[0], step = controls[1], clip = controls[2];
    double sum = 0;
    for (int i = 0; i < count; i++) sum += squares[i];
    const double all = sqrt(sum);
    *norm = all;
    update[0] = lr;
    update[1] = clip <= 0 || all <= clip ? 1 : clip / all;
    update[2] = 1 / (1 - pow((double)beta1, step));
    update[3] = 1 / (1 - pow((double)beta2, step));
    // x - x is 0, or NaN where x is not finite.
    update[4] = step + (all - all) + (*loss - *loss);
}

struct Settings {
    const double *update; // what update_begin has made
    float beta1, beta2, eps, weight_decay;
};

__host__ __device__ inline u32 hash(u32 x) {
    x = (x ^ x >> 16) * 0x7feb352du;
    x = (x ^ x >> 15) * 0x846ca68bu;
    return x ^ x >> 16;
}

/* What the new parameters are stored by: f32 as they are, bf16 to nearest or at random. */
struct Rounding {
    bool is_stochastic;
    u32 seed, stream; // the seed's hash
    __device__ float operator()(float x, i64, u32, float) const { return x; }
    __device__ bf16 operator()(float x, i64 i, u32 step, bf16) const {
        const u32 bits = __float_as_uint(x);
        if (!is_stochastic || (bits & 0x7f800000u) == 0x7f800000u) return narrow<bf16>(x);
        const u32 key = hash(stream + hash(step + seed));
        const u32 random = hash((u32)i + hash((u32)(i >> 32) + key));
        return (bf16)((bits + (random & 0xffffu)) >> 16);
    }
};

template <typename T> struct Update {
    T *param;
    float *master, *m, *v;
    const float *grad;
    Settings s;
    Rounding rounding;

    template <int N> __device__ void at(i64 i) const {
        const Floats<N> grads = load<N>(grad + i);
        Floats<N> ms = load<N>(m + i), vs = load<N>(v + i);
        Floats<N> p = master ? load<N>(master + i) : load<N>(param + i);
        const float lr = (float)s.update[0], grad_scale = (float)s.update[1];
        const float m_scale = (float)s.update[2], v_scale = (float)s.update[3];
        const double step = s.update[4];
        Stored<T, N> stored;
#pragma unroll
        for (int k = 0; k < N; k++) {
            const float g = grads.at[k] * grad_scale;
            ms.at[k] = s.beta1 * ms.at[k] + (1 - s.beta1) * g;
            vs.at[k] = s.beta2 * vs.at[k] + (1 - s.beta2) * (g * g);
            const float direction = ms.at[k] * m_scale / (sqrtf(vs.at[k] * v_scale) + s.eps);
            p.at[k] -= lr * (direction + s.weight_decay * p.at[k]);
            stored.at[k] = rounding(p.at[k], i + k, (u32)step, T());
        }
        if (!(step >= 1)) return; // here, as the loads need not wait for it
        store(m + i, ms);
        store(v + i, vs);
        if (master) store(master + i, p);
        store(param + i, stored);
    }
};

} // namespace

void update_begin(double *update, double *norm, const double *controls, const double *squares,
                  const float *loss, int count, float beta1, float beta2) {
    launch(begin, dim3(1), 1, 0, update, norm, controls, squares, loss, count, beta1, beta2);
}

void adamw_update(float *param, float *m, float *v, const float *grad, const double *update, i64 n,
                  float beta1, float beta2, float eps, float weight_decay) {
    const Settings settings{update, beta1, beta2, eps, weight_decay};
    each<4>(n, Update<float>{param, nullptr, m, v, grad, settings, {}});
}

void adamw_update_bf16(bf16 *param, float *master, float *m, float *v, const float *grad,
                       const double *update, i64 n, float beta1, float beta2, float eps,
                       float weight_decay, int stochastic, u32 seed, int stream) {
    const Settings settings{update, beta1, beta2, eps, weight_decay};
    const Rounding rounding{stochastic != 0, hash(seed), (u32)stream};
    each<4>(n, Update<bf16>{param, master, m, v, grad, settings, rounding});
}
