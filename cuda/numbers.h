/* Numbers as they are stored (f32, bf16) and as they are computed with (f32); sixteen bytes of them at
 * a time; sums over a warp and a block in a fixed order. */
#ifndef LLM_NUMBERS_H
#define LLM_NUMBERS_H

#include "launch.h"

DEVICE float widen(float x) { return x; }
DEVICE float widen(bf16 x) { return __uint_as_float((u32)x << 16); }

/* Of two bf16 side by side, the first in the lower half. */
DEVICE float first_of(u32 pair) { return __uint_as_float(pair << 16); }
DEVICE float second_of(u32 pair) { return __uint_as_float(pair & 0xffff0000); }

/* x as T stores it, rounded to nearest even; a NaN stays one. */
template <typename T> DEVICE T narrow(float x) {
    if constexpr (sizeof(T) == sizeof(float)) {
        return x;
    } else {
#ifdef LLM_EMULATED
        const u32 bits = __float_as_uint(x);
        return (T)(x != x ? bits >> 16 | 0x40 : (bits + 0x7fff + (bits >> 16 & 1)) >> 16);
#else
        T half;
        asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(half) : "f"(x));
        return half;
#endif
    }
}

/* Sixteen bytes of memory, moved by one instruction. */
template <typename T> struct alignas(16) Pack {
    static constexpr int SIZE = 16 / sizeof(T);
    T at[SIZE];
};
template <typename T> DEVICE Pack<T> load_pack(const T *p) {
    return *reinterpret_cast<const Pack<T> *>(p);
}
template <typename T> DEVICE void store_pack(T *p, Pack<T> pack) {
    *reinterpret_cast<Pack<T> *>(p) = pack;
}

constexpr float LOG2E = 1.44269504f;

constexpr int WARP = 32;
constexpr u32 ALL_LANES = 0xffffffffu;

/* The sum over a warp, the same bits in every lane: each adds the same pairs. */
DEVICE float warp_sum(float x) {
    for (int distance = WARP / 2; distance > 0; distance /= 2)
        x += __shfl_xor_sync(ALL_LANES, x, distance);
    return x;
}

DEVICE float warp_max(float x) {
    for (int distance = WARP / 2; distance > 0; distance /= 2) {
        const float other = __shfl_xor_sync(ALL_LANES, x, distance);
        x = x >= other || x != x ? x : other; // NaN wins
    }
    return x;
}

/* The sum over a block of whole warps, at most 1024 threads, the same bits in every thread. `board`:
 * 32 floats of shared memory, free again after the next barrier. */
DEVICE float block_sum(float x, float *board) {
    const int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
    x = warp_sum(x);
    if (lane == 0) board[warp] = x;
    __syncthreads();
    return warp_sum(lane < (int)blockDim.x / WARP ? board[lane] : 0.f);
}

#endif
