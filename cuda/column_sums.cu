/* Sums down the columns of a matrix: the gradient of a bias. One launch reads memory once: a block
 * sums some rows of a strip of columns, and the strip's last block to be done sums what all of them
 * found, in their order. */
#include "elements.h"
#include "product.h"

namespace {

constexpr int DEEP = 16;         // warps of a block, each with rows of its own
constexpr int IN_FLIGHT = 128;   // bytes that a thread loads before it adds them
constexpr int LEAST_ROWS = 64;   // of a block
constexpr int MOST_BLOCKS = 264; // two for each of a Hopper's multiprocessors
constexpr int MOST_STRIPS = MOST_BLOCKS;

// One launch follows another on the stream, so one place serves all.
__device__ u32 brought[MOST_STRIPS];

/* The sum of every parts-th DEEP rows of a strip, for column i of it in thread i. The last rows come
 * first: what ran before went forward, and left them in the L2 cache. */
template <int WIDTH, typename T>
DEVICE float sum_rows(float *board, const T *inp, int rows, int columns, int strip, int part,
                      int parts) {
    const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    const int column = strip + lane * WIDTH, step = parts * DEEP;
    constexpr int LOADS = WIDTH > 1 ? IN_FLIGHT / (WIDTH * (int)sizeof(T)) : 8;
    Floats<WIDTH> sum = {};
    if (column < columns)
        for (int row = rows - 1 - part * DEEP - warp; row >= 0; row -= LOADS * step) {
            const T *const at = inp + (i64)row * columns + column;
            Stored<T, WIDTH> batch[LOADS] = {};
#pragma unroll
            for (int k = 0; k < LOADS; k++)
                if (row >= k * step) batch[k] = load_stored<WIDTH>(at - (i64)k * step * columns);
#pragma unroll
            for (int k = 0; k < LOADS; k++) {
                const Floats<WIDTH> x = widen(batch[k]);
#pragma unroll
                for (int i = 0; i < WIDTH; i++) sum.at[i] += x.at[i];
            }
        }
    store(board + (warp * WARP + lane) * WIDTH, sum);
    __syncthreads();
    float total = 0;
    if (threadIdx.x < WARP * WIDTH)
        for (int w = 0; w < DEEP; w++) total += board[w * WARP * WIDTH + threadIdx.x];
    return total;
}

/* partial (gridDim.y,columns) where there is more than one block a strip. */
template <int WIDTH, typename T>
KERNEL __launch_bounds__(WARP *DEEP, 2)
sum_columns(float *out, float *partial, const T *inp, int rows, int columns, int accumulate) {
    __shared__ __align__(16) float board[DEEP * WARP * WIDTH];
    const int strip = blockIdx.x * WARP * WIDTH, part = blockIdx.y, parts = gridDim.y;
    const int column = strip + threadIdx.x;
    const bool is_there = threadIdx.x < WARP * WIDTH && column < columns;
    float total = sum_rows<WIDTH>(board, inp, rows, columns, strip, part, parts);
    if (parts > 1) {
        if (is_there) partial[(i64)part * columns + column] = total;
        __threadfence();
        __syncthreads();
        bool is_last = false;
        if (threadIdx.x == 0) {
            is_last = atomicAdd(&brought[blockIdx.x], 1u) == (u32)parts - 1;
            if (is_last) brought[blockIdx.x] = 0;
        }
        if (!__syncthreads_or(is_last)) return;
        __threadfence();
        total = sum_rows<WIDTH>(board, partial, parts, columns, strip, 0, 1);
    }
    if (is_there) out[column] = (accumulate ? out[column] : 0.f) + total;
}

template <int WIDTH, typename T>
void sum_strips(float *out, const T *inp, int rows, int columns, int accumulate) {
    const i64 strips = ceil_div(columns, WARP * WIDTH);
    const i64 fitting = (i64)(product_room.bytes / 2 / sizeof(float)) / columns;
    const i64 wanted = min(ceil_div(rows, LEAST_ROWS), MOST_BLOCKS / strips);
    const i64 parts = max(min(wanted, fitting), (i64)1);
    launch(sum_columns<WIDTH, T>, dim3((u32)strips, (u32)parts), WARP * DEEP, 0, out,
           (float *)product_room.at, inp, rows, columns, accumulate);
}

template <typename T>
void by_strips(float *out, const T *inp, int rows, int columns, int accumulate) {
    constexpr int WIDE_T = 16 / sizeof(T);
    if (columns % WIDE_T == 0) sum_strips<WIDE_T>(out, inp, rows, columns, accumulate);
    else sum_strips<1>(out, inp, rows, columns, accumulate);
}

} // namespace

void column_sums(float *out, const void *inp, int is_bf16, int rows, int columns, int accumulate) {
    if (is_bf16) by_strips(out, (const bf16 *)inp, rows, columns, accumulate);
    else by_strips(out, (const float *)inp, rows, columns, accumulate);
}
