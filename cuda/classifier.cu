/* Softmax and cross-entropy. A row of logits belongs to a block and is read from memory once, where
 * shared memory can keep it: its largest number and its sum of exponentials are found in one pass,
 * the gradient is made of what was kept. */
#include "elements.h"
#include "mma.h"

namespace {

constexpr int THREADS = 512, BLOCKS = 2; // of a multiprocessor, at least
constexpr int BATCH = 4;                 // loads in flight
constexpr int BOARDS = 2 * WARP;         // floats of shared memory before the row
constexpr int MOST_SHARED = 99 * 1024;   // bytes a block may have on sm_89, which has least
constexpr float LOG2E = 1.4426950408889634f;
constexpr float LOWEST = -2e38f; // finite, times LOG2E too: -inf - -inf is NaN

/* e^x over 2^base. With base near the row's largest x·LOG2E, whose rounding then does not matter,
 * the power is off by what its exponent is rounded by. */
DEVICE float power(float x, float base) { return exp2_fast(fmaf(x, LOG2E, -base)); }

DEVICE float block_max(float x, float *board) {
    const int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
    x = warp_max(x);
    if (lane == 0) board[warp] = x;
    __syncthreads();
    return warp_max(lane < (int)blockDim.x / WARP ? board[lane] : LOWEST);
}

/* losses or dlogits may be NULL; dlogits may be logits itself. KEEPS: whether the row stays in
 * shared memory, each thread's part of it being the thread's own. */
template <int W, bool KEEPS>
KERNEL __launch_bounds__(THREADS, BLOCKS)
classify(float *losses, real *dlogits, const real *logits, const int *targets, int V, int Vp,
         float scale) {
    DYNAMIC_SHARED(float, boards);
    real *const kept = reinterpret_cast<real *>(boards + BOARDS);
    const i64 n = blockIdx.x;
    const real *const row = logits + n * Vp;
    const u32 target = targets[n], first = threadIdx.x * W, stride = blockDim.x * W;
    const u32 end = V, padded_end = Vp;
    const float at_target = widen(row[target]); // before the gradient overwrites it

    // The sum so far is of powers over 2^base, with the base so far.
    float base = LOWEST * LOG2E, sum = 0;
    for (u32 start = first; start < end; start += BATCH * stride) {
        Stored<real, W> batch[BATCH];
#pragma unroll
        for (int k = 0; k < BATCH; k++)
            if (start + k * stride < end) batch[k] = load_stored<W>(row + start + k * stride);
#pragma unroll
        for (int k = 0; k < BATCH; k++) {
            const u32 v = start + k * stride;
            if (v >= end) break;
            if (KEEPS) store(kept + v, batch[k]);
            Floats<W> x = widen(batch[k]);
            if (v + W > end)
                for (int i = 0; i < W; i++)
                    if (v + i >= end) x.at[i] = LOWEST;
            float largest = LOWEST;
#pragma unroll
            for (int i = 0; i < W; i++) largest = fmaxf(largest, x.at[i]); // a NaN shows in the sum
            const float before = base;
            base = fmaxf(base, largest * LOG2E);
            sum *= exp2_fast(before - base);
#pragma unroll
            for (int i = 0; i < W; i++) sum += power(x.at[i], base);
        }
    }
    const float row_base = block_max(base, boards);
    const float total = block_sum(sum * exp2_fast(base - row_base), boards + WARP);
    if (losses && threadIdx.x == 0)
        losses[n] = (float)(row_base * (1 / (double)LOG2E) + logf(total) - at_target);
    if (!dlogits) return;

    const float factor = scale / total;
#pragma unroll 2
    for (u32 v = first; v < padded_end; v += stride) {
        Floats<W> x = {};
        if (v < end) {
            x = load<W>(KEEPS ? kept + v : row + v);
#pragma unroll
            for (int i = 0; i < W; i++) x.at[i] = power(x.at[i], row_base) * factor;
            if (target - v < W)
                for (int i = 0; i < W; i++)
                    if (target == v + i) x.at[i] -= scale;
            if (v + W > end)
                for (int i = 0; i < W; i++)
                    if (v + i >= end) x.at[i] = 0;
        }
        store(dlogits + n * Vp + v, x);
    }
}

void classify_rows(float *losses, real *dlogits, const real *logits, const int *targets, int N,
                   int V, int Vp, float scale) {
    const size_t boards = BOARDS * sizeof(float), both = boards + (size_t)Vp * sizeof(real);
    by_width(Vp, [=](auto width) {
        constexpr int W = width.value;
        const i64 threads = min(ceil_div(ceil_div(Vp, W), WARP) * WARP, (i64)THREADS);
        const bool keeps = dlogits && both <= MOST_SHARED;
        launch(keeps ? classify<W, true> : classify<W, false>, dim3(N), dim3((u32)threads),
               keeps ? both : boards, losses, dlogits, logits, targets, V, Vp, scale);
    });
}

} // namespace

void REAL(classifier_forward)(float *losses, const real *logits, const int *targets, int N, int V,
                              int Vp) {
    classify_rows(losses, nullptr, logits, targets, N, V, Vp, 0);
}

void REAL(classifier_backward)(real *dlogits, const real *logits, const int *targets, int N, int V,
                               int Vp, float scale) {
    classify_rows(nullptr, dlogits, logits, targets, N, V, Vp, scale);
}

void REAL(classifier_fused)(float *losses, real *logits, const int *targets, int N, int V, int Vp,
                            float scale) {
    classify_rows(losses, logits, logits, targets, N, V, Vp, scale);
}
