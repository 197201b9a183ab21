/* Sums of any length in double precision, in one launch: the blocks' sums meet in a fixed place,
 * and the block that is last to bring its own adds them up, in their order. */
#include "numbers.h"

namespace {

constexpr int THREADS = 256;
constexpr int MOST_BLOCKS = 1056; // eight for each of a Hopper's multiprocessors
constexpr int LOADS = 4;          // in flight, of sixteen bytes
constexpr int SIZE = Pack<float>::SIZE;

// One launch follows another on the stream, so one place serves all.
__device__ volatile double block_sums[MOST_BLOCKS];
__device__ u32 brought;

/* The sum over a block, for its first thread. */
DEVICE double block_total(double x) {
    __shared__ double board[THREADS / WARP];
    for (int distance = WARP / 2; distance > 0; distance /= 2)
        x += __shfl_xor_sync(ALL_LANES, x, distance);
    if (threadIdx.x % WARP == 0) board[threadIdx.x / WARP] = x;
    __syncthreads();
    double total = 0;
    for (int w = 0; w < THREADS / WARP; w++) total += board[w];
    __syncthreads();
    return total;
}

template <bool SQUARED> DEVICE double term(float x) { return SQUARED ? (double)x * x : x; }

/* out[0] = sum/divisor of inp, or of its squares. */
template <bool SQUARED, typename Out>
KERNEL __launch_bounds__(THREADS)
reduce(Out *out, const float *inp, i64 n, double divisor) {
    const i64 thread = (i64)blockIdx.x * THREADS + threadIdx.x, threads = (i64)gridDim.x * THREADS;
    const i64 packs = n / SIZE;
    double sums[LOADS] = {};
    for (i64 first = thread; first < packs; first += LOADS * threads) {
        Pack<float> batch[LOADS] = {};
#pragma unroll
        for (int k = 0; k < LOADS; k++)
            if (first + k * threads < packs)
                batch[k] = load_pack(inp + (first + k * threads) * SIZE);
#pragma unroll
        for (int k = 0; k < LOADS; k++)
#pragma unroll
            for (int i = 0; i < SIZE; i++) sums[k] += term<SQUARED>(batch[k].at[i]);
    }
    double sum = (sums[0] + sums[1]) + (sums[2] + sums[3]);
    if (thread < n % SIZE) sum += term<SQUARED>(inp[packs * SIZE + thread]);
    sum = block_total(sum);

    bool is_last = false;
    if (threadIdx.x == 0) {
        block_sums[blockIdx.x] = sum;
        __threadfence();
        is_last = atomicAdd(&brought, 1u) == gridDim.x - 1;
    }
    if (!__syncthreads_or(is_last)) return;
    __threadfence();
    double total = 0;
    for (int b = threadIdx.x; b < (int)gridDim.x; b += THREADS) total += block_sums[b];
    total = block_total(total);
    if (threadIdx.x > 0) return;
    *out = (Out)(total / divisor);
    brought = 0;
}

template <bool SQUARED, typename Out>
void reduce_all(Out *out, const float *inp, i64 n, double divisor) {
    const i64 blocks = min(ceil_div(n, THREADS * LOADS * SIZE), (i64)MOST_BLOCKS);
    launch(reduce<SQUARED, Out>, dim3((u32)blocks), THREADS, 0, out, inp, n, divisor);
}

} // namespace

void mean_forward(float *out, const float *inp, i64 n) {
    reduce_all<false>(out, inp, n, (double)n);
}

void squared_norm(double *out, const float *inp, i64 n) { reduce_all<true>(out, inp, n, 1.0); }
