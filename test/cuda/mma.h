/* What cuda/mma.h does by one instruction each, lane by lane. */
#ifndef LLM_EMULATED_MMA_H
#define LLM_EMULATED_MMA_H

DEVICE float half_of(u32 pair, int i) { return widen((bf16)(pair >> 16 * i)); }

DEVICE void multiply_add(float (&out)[4], const u32 (&a)[4], u32 b0, u32 b1) {
    struct Operands {
        u32 a[4], b[2];
    };
    const Operands *of = warp_gather(Operands{{a[0], a[1], a[2], a[3]}, {b0, b1}});
    const int g = threadIdx.x % WARP / 4, c = threadIdx.x % 4 * 2;
    for (int i = 0; i < 4; i++) {
        // Of row g + i/2·8, column c + i%2: the terms lie with the four lanes of that row of a, and
        // with the four lanes of that column of b.
        double sum = out[i];
        for (int k = 0; k < 16; k++) {
            const u32 left = of[g * 4 + k % 8 / 2].a[i / 2 + k / 8 * 2];
            const u32 right = of[(c + i % 2) * 4 + k % 8 / 2].b[k / 8];
            sum += (double)half_of(left, k % 2) * half_of(right, k % 2);
        }
        out[i] = (float)sum;
    }
}

DEVICE void load_matrices(u32 (&to)[4], const bf16 *row) {
    if ((uintptr_t)row % 16) emulated::fail("a matrix's row is not on 16 bytes");
    const bf16 *const *rows = warp_gather(row);
    const int lane = threadIdx.x % WARP;
    for (int i = 0; i < 4; i++) {
        const bf16 *pair = rows[i * 8 + lane / 4] + lane % 4 * 2;
        to[i] = pair[0] | (u32)pair[1] << 16;
    }
}

DEVICE void load_matrices_transposed(u32 (&to)[4], const bf16 *row) {
    if ((uintptr_t)row % 16) emulated::fail("a matrix's row is not on 16 bytes");
    const bf16 *const *rows = warp_gather(row);
    const int lane = threadIdx.x % WARP;
    for (int i = 0; i < 4; i++) {
        const bf16 *const *pair = rows + i * 8 + lane % 4 * 2;
        to[i] = pair[0][lane / 4] | (u32)pair[1][lane / 4] << 16;
    }
}

DEVICE void copy_async(void *shared, const void *global, bool present) {
    emulated_async_copy(shared, global, 16, present ? 16 : 0);
}
DEVICE void copy_async(void *shared, const void *global) {
    emulated_async_copy(shared, global, 16);
}
DEVICE void commit_copies() { emulated_async_commit(); }
template <int N> DEVICE void wait_copies() { emulated_async_wait(N); }

DEVICE u32 narrow_pair(float first, float second) {
    return narrow<bf16>(first) | (u32)narrow<bf16>(second) << 16;
}

DEVICE float exp2_fast(float x) { return x < -126 ? 0 : exp2f(x); }
DEVICE float reciprocal_fast(float x) { return fabsf(x) > 0x1p126f ? 0 : 1 / x; }
template <typename T> DEVICE void not_before(T &) {}

#endif
