/* Softmax and cross-entropy. A row of logits belongs to a block and is read from memory once, where
 * shared memory can keep it: its largest number and its sum of exponentials are found in one pass, the
 * gradient is made of what was kept. */
#include "elements.h"
#include "mma.h"

namespace {

constexpr int THREADS = 512, BLOCKS = 2; // of a multiprocessor, at least
constexpr int BATCH = 4;                 // loads in flight
constexpr int BOARDS = 2 * WARP;         // floats of shared memory before the row
constexpr int MOST_SHARED = 99 * 1024;   // bytes a block may have on sm_89, which has least
constexpr float LOWEST = -3.402823466e38f; // finite: -inf - -inf is NaN
constexpr float LOG2E = 1.4426950408889634f;

/* e^(x - max). The difference comes first: it is exact, or nearly. */
DEVICE float power(float x, float max) { return exp2_fast((x - max) * LOG2E); }

DEVICE float block_max(float x, float *board) {
    const int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
    x = warp_max(x);
    if (lane == 0) board[warp] = x;
    __syncthreads();
    return warp_max(lane < (int)blockDim.x / WARP ? board[lane] : LOWEST);
}

/* losses or dlogits may be NULL; dlogits may be logits itself. KEEPS: whether the row stays in shared
 * memory, each thread's part of it being the thread's own. */
template <int W, bool KEEPS>
KERNEL __launch_bounds__(THREADS, BLOCKS)
classify(float *losses, real *dlogits, const real *logits, const int *targets, int V, int Vp,
         float scale) {
    DYNAMIC_SHARED(float, boards);
    real *const kept = reinterpret_cast<real *>(boards + BOARDS);
    const i64 n = blockIdx.x;
    const real *const row = logits + n * Vp;
    const int target = targets[n], first = threadIdx.x * W, stride = blockDim.x * W;
    const float at_target = widen(row[target]); // before the gradient overwrites it

    // A sum so far is relative to the largest number so far.
    float max = LOWEST, sum = 0;
    for (i64 start = first; start < V; start += (i64)BATCH * stride) {
        Stored<real, W> batch[BATCH];
#pragma unroll
        for (int k = 0; k < BATCH; k++)
            if (start + k * stride < V) batch[k] = load_stored<W>(row + start + k * stride);
#pragma unroll
        for (int k = 0; k < BATCH; k++) {
            const i64 v = start + k * stride;
            if (v >= V) break;
            if (KEEPS) store(kept + v, batch[k]);
            Floats<W> x = widen(batch[k]);
            if (v + W > V)
                for (int i = 0; i < W; i++)
                    if (v + i >= V) x.at[i] = LOWEST;
            float largest = max;
#pragma unroll
            for (int i = 0; i < W; i++) largest = fmaxf(largest, x.at[i]); // a NaN shows in the sum
            sum *= power(max, largest);
            max = largest;
#pragma unroll
            for (int i = 0; i < W; i++) sum += power(x.at[i], max);
        }
    }
    const float all_max = block_max(max, boards);
    const float total = block_sum(sum * power(max, all_max), boards + WARP);
    if (losses && threadIdx.x == 0) losses[n] = logf(total) + (all_max - at_target);
    if (!dlogits) return;

    const float factor = scale / total;
#pragma unroll 2
    for (i64 v = first; v < Vp; v += stride) {
        Floats<W> x = {};
        if (v < V) {
            x = load<W>(KEEPS ? kept + v : row + v);
#pragma unroll
            for (int i = 0; i < W; i++) x.at[i] = power(x.at[i], all_max) * factor;
            if (target >= v && target < v + W)
                for (int i = 0; i < W; i++)
                    if (target == v + i) x.at[i] -= scale;
            if (v + W > V)
                for (int i = 0; i < W; i++)
                    if (v + i >= V) x.at[i] = 0;
        }
        store(dlogits + n * Vp + v, x);
    }
}

void classify_rows(float *losses, real *dlogits, const real *logits, const int *targets, int N, int V,
                   int Vp, float scale) {
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
