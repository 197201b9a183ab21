/* Several numbers at a time, as f32, whatever they are stored in; and kernels that go along arrays.
 * How many at a time is chosen here: as many as sixteen bytes hold where every row begins on
 * sixteen, and one elsewhere. */
#ifndef LLM_ELEMENTS_H
#define LLM_ELEMENTS_H

#include "numbers.h"

/* N numbers as they lie in memory: the address must be a multiple of their size, up to 16 bytes. */
template <typename T, int N> struct alignas(N * sizeof(T) < 16 ? N * sizeof(T) : 16) Stored {
    T at[N];
};
template <int N> struct Floats {
    float at[N];
};

template <int N, typename T> DEVICE Stored<T, N> load_stored(const T *p) {
    return *reinterpret_cast<const Stored<T, N> *>(p);
}
template <typename T, int N> DEVICE void store(T *p, const Stored<T, N> &x) {
    *reinterpret_cast<Stored<T, N> *>(p) = x;
}

template <typename T, int N> DEVICE Floats<N> widen(const Stored<T, N> &x) {
    Floats<N> wide;
    if constexpr (sizeof(T) == 2 && N % 2 == 0) {
        // Of two bf16 in a word, each takes one instruction.
#pragma unroll
        for (int i = 0; i < N; i += 2) {
            u32 pair;
            memcpy(&pair, x.at + i, sizeof pair);
            wide.at[i] = __uint_as_float(pair << 16);
            wide.at[i + 1] = __uint_as_float(pair & 0xffff0000u);
        }
    } else {
#pragma unroll
        for (int i = 0; i < N; i++) wide.at[i] = widen(x.at[i]);
    }
    return wide;
}

template <int N, typename T> DEVICE Floats<N> load(const T *p) { return widen(load_stored<N>(p)); }
template <typename T, int N> DEVICE void store(T *p, const Floats<N> &x) {
    Stored<T, N> stored;
#pragma unroll
    for (int i = 0; i < N; i++) stored.at[i] = narrow<T>(x.at[i]);
    store(p, stored);
}

/* Sixteen bytes of the file's kind of number. */
constexpr int WIDE = 16 / sizeof(real);

template <int N> struct Count {
    static constexpr int value = N;
};

/* Calls f with how many of C numbers a row are loaded at a time. */
template <typename F> static inline void by_width(i64 C, F f) {
    if (C % WIDE == 0)
        f(Count<WIDE>());
    else
        f(Count<1>());
}

/* f.at<N>(i), for every N-th i, does what is to be done with elements i to i + N. */
template <int N, typename F> KERNEL each_kernel(F f, i64 n) {
    i64 i = ((i64)blockIdx.x * blockDim.x + threadIdx.x) * N;
    if (i + N <= n)
        f.template at<N>(i);
    else
        for (; i < n; i++) f.template at<1>(i);
}

template <int N, typename F> static inline void each(i64 n, F f) {
    const int threads = 256;
    launch(each_kernel<N, F>, dim3((u32)ceil_div(n, N * threads)), threads, 0, f, n);
}

#endif
