/* The linear layer for a sampler's few rows, where the time is that of reading the weights: once, for
 * all rows. A warp makes one column of out; what it adds up for a row, and in which order, depends on
 * nothing but C. */
#include "activation.h"
#include "product.h"

constexpr int WARPS = 4, AT_ONCE = 4; // warps in a block; packs of a weight on their way at once

/* sum[n] += x[n]·w, element by element, for as many elements of each row as w has. Rows from N on are
 * the last one again: no branch parts the loads. */
template <int ROWS>
DEVICE void multiply(float *sum, const Pack<real> &w, const real *x, int N, int C) {
#pragma unroll
    for (int n = 0; n < ROWS; n++) {
        const Pack<real> pack = load_pack(x + (i64)min(n, N - 1) * C);
#pragma unroll
        for (int i = 0; i < Pack<real>::SIZE; i++)
            sum[n] = fmaf(widen(pack.at[i]), widen(w.at[i]), sum[n]);
    }
}
template <int ROWS> DEVICE void multiply(float *sum, real w, const real *x, int N, int C) {
#pragma unroll
    for (int n = 0; n < ROWS; n++)
        sum[n] = fmaf(widen(x[(i64)min(n, N - 1) * C]), widen(w), sum[n]);
}

/* V: what is read at a time, a number or a pack of them. */
template <int ROWS, typename V>
KERNEL __launch_bounds__(WARPS *WARP, 1)
few_rows_kernel(real *out, real *pre, const real *inp, const real *weight, const real *bias,
                const real *residual, int N, int C, int OC) {
    const int lane = threadIdx.x % WARP, o = blockIdx.x * WARPS + threadIdx.x / WARP;
    if (o >= OC) return;
    const real *const row = weight + (i64)o * C;

    constexpr int WIDTH = sizeof(V) / sizeof(real), STEP = WARP * WIDTH;
    float sum[ROWS] = {};
    for (int c = lane * WIDTH; c < C; c += AT_ONCE * STEP) {
        V w[AT_ONCE];
#pragma unroll
        for (int k = 0; k < AT_ONCE; k++)
            if (c + k * STEP < C) w[k] = *reinterpret_cast<const V *>(row + c + k * STEP);
#pragma unroll
        for (int k = 0; k < AT_ONCE; k++)
            if (c + k * STEP < C) multiply<ROWS>(sum, w[k], inp + c + k * STEP, N, C);
    }

    float mine = 0;
#pragma unroll
    for (int n = 0; n < ROWS; n++) {
        const float total = warp_sum(sum[n]);
        if (lane == n) mine = total;
    }
    if (lane < N) store_forward(out, pre, bias, residual, (i64)lane * OC + o, o, mine);
}

void REAL(few_rows)(real *out, real *pre, const real *inp, const real *weight, const real *bias,
                    const real *residual, int N, int C, int OC) {
    auto kernel = few_rows_kernel<LLM_FEW_ROWS, real>;
    if (C % Pack<real>::SIZE == 0) {
        kernel = N == 1   ? few_rows_kernel<1, Pack<real>>
                 : N <= 4 ? few_rows_kernel<4, Pack<real>>
                 : N <= 8 ? few_rows_kernel<8, Pack<real>>
                          : few_rows_kernel<LLM_FEW_ROWS, Pack<real>>;
    }
    launch(kernel, (u32)ceil_div(OC, WARPS), WARPS * WARP, 0, out, pre, inp, weight, bias, residual, N,
           C, OC);
}
