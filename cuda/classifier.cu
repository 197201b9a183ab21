/* Softmax and cross-entropy. A row of logits belongs to a block and is read from memory once, where
 * shared memory can keep it: its largest number and its sum of exponentials are found in one pass,
 * the gradient is made of what was kept, and where that was, the block's next row is copied. */
#include "elements.h"
#include "mma.h"

namespace {

constexpr int THREADS = 512, BLOCKS = 2; // of a multiprocessor, at least
// Where rows are kept; 1024 threads took 1.78 ms where 512 took 1.91, on an H200.
constexpr int KEPT_THREADS = 1024;
#if defined __CUDA_ARCH__ && __CUDA_ARCH__ == 890 // which runs 1536 a multiprocessor
constexpr int KEPT_BLOCKS = 1;
#else
constexpr int KEPT_BLOCKS = 2;
#endif
constexpr int MOST_BLOCKS = 264;         // where rows are kept: two for each of a Hopper's
constexpr int PARTS = 4;                 // of a row, whose copies are waited for one by one
constexpr int BATCH = 4;                 // loads in flight
constexpr int BOARDS = 2 * WARP;         // floats of shared memory before the row
constexpr int MOST_SHARED = 99 * 1024;   // bytes a block may have on sm_89, which has least
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

/* The sum of powers over 2^base so far, with the base so far. */
struct Powers {
    float base = LOWEST * LOG2E, sum = 0;
};

/* W numbers of a row more, from column v on, of which those before `end` count. */
template <int W> DEVICE void add(Powers &so_far, Floats<W> x, u32 v, u32 end) {
    if (v + W > end)
        for (int i = 0; i < W; i++)
            if (v + i >= end) x.at[i] = LOWEST;
    float largest = LOWEST;
#pragma unroll
    for (int i = 0; i < W; i++) largest = fmaxf(largest, x.at[i]); // a NaN shows in the sum
    const float before = so_far.base;
    so_far.base = fmaxf(before, largest * LOG2E);
    so_far.sum *= exp2_fast(before - so_far.base);
#pragma unroll
    for (int i = 0; i < W; i++) so_far.sum += power(x.at[i], so_far.base);
}

/* What the columns of a row need to know of it. */
struct Softmax {
    float base, factor, scale;
    u32 target, end;

    template <int W> __device__ __forceinline__ Floats<W> gradient(Floats<W> x, u32 v) const {
#pragma unroll
        for (int i = 0; i < W; i++) x.at[i] = power(x.at[i], base) * factor;
        if (target - v < W)
            for (int i = 0; i < W; i++)
                if (target == v + i) x.at[i] -= scale;
        if (v + W > end)
            for (int i = 0; i < W; i++)
                if (v + i >= end) x.at[i] = 0;
        return x;
    }
};

/* All the block's powers; row: the logits, which stay until all threads have been here. */
DEVICE Softmax meet(Powers own, float *boards, float *loss, const real *row, u32 target, u32 end,
                    float scale) {
    const float base = block_max(own.base, boards);
    const float at_target = loss && threadIdx.x == 0 ? widen(row[target]) : 0.f;
    const float total = block_sum(own.sum * exp2_fast(own.base - base), boards + WARP);
    if (loss && threadIdx.x == 0)
        *loss = (float)(base * (1 / (double)LOG2E) + logf(total) - at_target);
    return {base, scale / total, scale, target, end};
}

/* Rows of whole loads, which are kept in shared memory, each thread's part being the thread's own. */
KERNEL __launch_bounds__(KEPT_THREADS, KEPT_BLOCKS)
classify_kept(float *losses, real *dlogits, const real *logits, const int *targets, int N, int V,
              int Vp, float scale) {
    DYNAMIC_SHARED(float, boards);
    real *const kept = reinterpret_cast<real *>(boards + BOARDS);
    const u32 first = threadIdx.x * WIDE, stride = blockDim.x * WIDE, end = V, padded_end = Vp;
    const u32 part = (padded_end + PARTS * stride - 1) / (PARTS * stride) * stride;
    // From the last row on, of which the product before has left something in the L2 cache.
    int n = N - 1 - (int)blockIdx.x;
    const auto copy = [&](const real *row, u32 v) {
        if (v < end) copy_async(kept + v, row + v);
    };
#pragma unroll 1
    for (int p = 0; p < PARTS; p++) {
        for (u32 v = p * part + first; v < min((p + 1) * part, end); v += stride)
            copy(logits + (i64)n * Vp, v);
        commit_copies();
    }
    for (; n >= 0; n -= (int)gridDim.x) {
        const u32 target = targets[n];
        Powers own;
#pragma unroll 1
        for (int p = 0; p < PARTS; p++) {
            // One part more is there, and one group more committed: as many are still under way.
            wait_copies<PARTS - 1>();
            commit_copies();
#pragma unroll 2
            for (u32 v = p * part + first; v < min((p + 1) * part, end); v += stride)
                add<WIDE>(own, load<WIDE>(kept + v), v, end);
        }
        const Softmax softmax =
            meet(own, boards, losses ? losses + n : nullptr, kept, target, end, scale);
        real *const to = dlogits + (i64)n * Vp;
        const int next = n - (int)gridDim.x;
        const real *const next_row = logits + (i64)next * Vp;
#pragma unroll 1
        for (int p = 0; p < PARTS; p++) {
#pragma unroll 2
            for (u32 v = p * part + first; v < min((p + 1) * part, padded_end); v += stride) {
                Floats<WIDE> x = {};
                if (v < end) x = softmax.gradient(load<WIDE>(kept + v), v);
                if (next >= 0) copy(next_row, v);
                store(to + v, x);
            }
            commit_copies();
        }
    }
}

/* losses or dlogits may be NULL; dlogits may be logits itself. */
template <int W>
KERNEL __launch_bounds__(THREADS, BLOCKS)
classify(float *losses, real *dlogits, const real *logits, const int *targets, int V, int Vp,
         float scale) {
    __shared__ float boards[BOARDS];
    const i64 n = blockIdx.x;
    const real *const row = logits + n * Vp;
    const u32 first = threadIdx.x * W, stride = blockDim.x * W, end = V, padded_end = Vp;
    Powers own;
    for (u32 start = first; start < end; start += BATCH * stride) {
        Stored<real, W> batch[BATCH];
#pragma unroll
        for (int k = 0; k < BATCH; k++)
            if (start + k * stride < end) batch[k] = load_stored<W>(row + start + k * stride);
#pragma unroll
        for (int k = 0; k < BATCH; k++) {
            const u32 v = start + k * stride;
            if (v >= end) break;
            add<W>(own, widen(batch[k]), v, end);
        }
    }
    const Softmax softmax =
        meet(own, boards, losses ? losses + n : nullptr, row, targets[n], end, scale);
    if (!dlogits) return;
#pragma unroll 2
    for (u32 v = first; v < padded_end; v += stride) {
        Floats<W> x = {};
        if (v < end) x = softmax.gradient(load<W>(row + v), v);
        store(dlogits + n * Vp + v, x);
    }
}

void classify_rows(float *losses, real *dlogits, const real *logits, const int *targets, int N,
                   int V, int Vp, float scale) {
    const size_t boards = BOARDS * sizeof(float), both = boards + (size_t)Vp * sizeof(real);
    const auto threads_of = [=](int width, int most) {
        return dim3((u32)min(ceil_div(ceil_div(Vp, width), WARP) * WARP, (i64)most));
    };
    if (dlogits && Vp % WIDE == 0 && both <= MOST_SHARED)
        return launch(classify_kept, dim3(min(N, MOST_BLOCKS)), threads_of(WIDE, KEPT_THREADS), both,
                      losses, dlogits, logits, targets, N, V, Vp, scale);
    by_width(Vp, [=](auto width) {
        launch(classify<width.value>, dim3(N), threads_of(width.value, THREADS), 0, losses, dlogits, logits,
               targets, V, Vp, scale);
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
