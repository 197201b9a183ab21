/* AdamW: up to seven streams through memory and a little arithmetic, in one pass. */
#include "elements.h"

namespace {

struct Settings {
    float lr, beta1, beta2, eps, weight_decay, grad_scale;
    float m_scale, v_scale; // what takes out that both means started from 0

    Settings(float lr_, float beta1_, float beta2_, float eps_, float weight_decay_,
             float grad_scale_, int step)
        : lr(lr_), beta1(beta1_), beta2(beta2_), eps(eps_), weight_decay(weight_decay_),
          grad_scale(grad_scale_), m_scale((float)(1 / (1 - pow((double)beta1_, (double)step)))),
          v_scale((float)(1 / (1 - pow((double)beta2_, (double)step)))) {}
};

__host__ __device__ inline u32 hash(u32 x) {
    x = (x ^ x >> 16) * 0x7feb352du;
    x = (x ^ x >> 15) * 0x846ca68bu;
    return x ^ x >> 16;
}

/* What the new parameters are stored by: f32 as they are, bf16 to nearest or at random. */
struct Rounding {
    bool is_stochastic;
    u32 key; // of seed, step and stream
    __device__ float operator()(float x, i64, float) const { return x; }
    __device__ bf16 operator()(float x, i64 i, bf16) const {
        const u32 bits = __float_as_uint(x);
        if (!is_stochastic || (bits & 0x7f800000u) == 0x7f800000u) return narrow<bf16>(x);
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
        Stored<T, N> stored;
#pragma unroll
        for (int k = 0; k < N; k++) {
            const float g = grads.at[k] * s.grad_scale;
            ms.at[k] = s.beta1 * ms.at[k] + (1 - s.beta1) * g;
            vs.at[k] = s.beta2 * vs.at[k] + (1 - s.beta2) * (g * g);
            const float direction = ms.at[k] * s.m_scale / (sqrtf(vs.at[k] * s.v_scale) + s.eps);
            p.at[k] -= s.lr * (direction + s.weight_decay * p.at[k]);
            stored.at[k] = rounding(p.at[k], i + k, T());
        }
        store(m + i, ms);
        store(v + i, vs);
        if (master) store(master + i, p);
        store(param + i, stored);
    }
};

} // namespace

void adamw_update(float *param, float *m, float *v, const float *grad, i64 n, float lr, float beta1,
                  float beta2, float eps, float weight_decay, float grad_scale, int step) {
    const Settings settings(lr, beta1, beta2, eps, weight_decay, grad_scale, step);
    each<4>(n, Update<float>{param, nullptr, m, v, grad, settings, {}});
}

void adamw_update_bf16(bf16 *param, float *master, float *m, float *v, const float *grad, i64 n,
                       float lr, float beta1, float beta2, float eps, float weight_decay,
                       float grad_scale, int step, int stochastic, u32 seed, int stream) {
    const Settings settings(lr, beta1, beta2, eps, weight_decay, grad_scale, step);
    const u32 key = hash((u32)stream + hash((u32)step + hash(seed)));
    each<4>(n, Update<bf16>{param, master, m, v, grad, settings, {stochastic != 0, key}});
}
