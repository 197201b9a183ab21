/* How fast the GPU can go: multiply-adds on registers alone; of bf16 on the tensor cores. */
#include "mma.h"

namespace {

constexpr int THREADS = 256, BLOCKS = 4; // of a multiprocessor
constexpr int CHAINS = 8; // so that none waits for its own last result
constexpr int DEPTH = 16; // links of each between one look at the loop's end and the next
#ifdef LLM_BF16
constexpr int STEP = CHAINS * DEPTH * 16 * 8 * 16 / WARP; // multiply-adds of a thread
#else
constexpr int STEP = CHAINS * DEPTH;
#endif

/* `never` is not written to; but no compiler knows, so that the work is done. */
KERNEL __launch_bounds__(THREADS) burn(float *never, float factor, i64 rounds) {
    float total = 0;
#ifdef LLM_BF16
    const u32 pair = narrow_pair(factor, -factor);
    const u32 a[4] = {pair, pair, pair, pair};
    float sums[CHAINS][4] = {};
    for (i64 r = 0; r < rounds; r++)
#pragma unroll
        for (int i = 0; i < CHAINS * DEPTH; i++) multiply_add(sums[i % CHAINS], a, pair, pair);
#pragma unroll
    for (int i = 0; i < CHAINS; i++) total += sums[i][0];
#else
    float sums[CHAINS];
#pragma unroll
    for (int i = 0; i < CHAINS; i++) sums[i] = (float)i;
    for (i64 r = 0; r < rounds; r++)
#pragma unroll
        for (int i = 0; i < CHAINS * DEPTH; i++) // tends to 1
            sums[i % CHAINS] = fmaf(sums[i % CHAINS], factor, 0.5f);
#pragma unroll
    for (int i = 0; i < CHAINS; i++) total += sums[i];
#endif
    if (total == -1) *never = total;
}

} // namespace

double REAL(llm_peak)(i64 work) {
    int device = 0, processors = 1;
    keep_error(cudaGetDevice(&device));
    keep_error(cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, device));
    const i64 rounds = ceil_div(work, STEP);
    const int blocks = processors * BLOCKS;
    launch(burn, dim3(blocks), THREADS, 0, nullptr, 0.5f, rounds);
    keep_error(cudaStreamSynchronize(stream));
    return 2.0 * STEP * (double)rounds * THREADS * blocks;
}
