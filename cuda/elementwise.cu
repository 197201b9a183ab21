/* Kernels that go along arrays once: the GELU, the sum of two. */
#include "activation.h"
#include "elements.h"

namespace {
constexpr bool IS_SHORT = sizeof(real) < sizeof(float); // and rounded by more than a fast GELU is off

struct Gelu {
    real *out;
    const real *inp;
    template <int N> __device__ void at(i64 i) const {
        Floats<N> x = load<N>(inp + i);
#pragma unroll
        for (int k = 0; k < N; k++) x.at[k] = IS_SHORT ? gelu_fast(x.at[k]) : gelu(x.at[k]);
        store(out + i, x);
    }
};

struct GeluGradient {
    real *dinp;
    const real *dout, *inp;
    template <int N> __device__ void at(i64 i) const {
        Floats<N> d = load<N>(dout + i);
        const Floats<N> x = load<N>(inp + i);
#pragma unroll
        for (int k = 0; k < N; k++) d.at[k] *= IS_SHORT ? gelu_gradient_fast(x.at[k]) : gelu_gradient(x.at[k]);
        store(dinp + i, d);
    }
};

struct Sum {
    real *out;
    const real *a, *b;
    template <int N> __device__ void at(i64 i) const {
        Floats<N> x = load<N>(a + i);
        const Floats<N> y = load<N>(b + i);
#pragma unroll
        for (int k = 0; k < N; k++) x.at[k] += y.at[k];
        store(out + i, x);
    }
};
} // namespace

void REAL(gelu_forward)(real *out, const real *inp, i64 n) { each<WIDE>(n, Gelu{out, inp}); }

void REAL(gelu_backward)(real *dinp, const real *dout, const real *inp, i64 n) {
    each<WIDE>(n, GeluGradient{dinp, dout, inp});
}

void REAL(add_forward)(real *out, const real *a, const real *b, i64 n) {
    each<WIDE>(n, Sum{out, a, b});
}
