/* Sums down the columns of a matrix: the gradient of a bias. Memory is read once; the sums are made in
 * two levels, of which each has its fixed order. */
#include "numbers.h"
#include "product.h"

// A block takes a strip of columns, WIDTH a lane, and a chunk of rows, every DEEPth a warp.
constexpr int DEEP = 16, CHUNKS = 256, CHUNK_ROWS = 64;

/* out (chunks,columns) = sum over each chunk of `chunk` rows. */
template <int WIDTH, typename T>
KERNEL __launch_bounds__(WARP *DEEP)
sum_chunks(float *out, const T *inp, int rows, int columns, int chunk, int accumulate) {
    __shared__ float board[DEEP][WARP * WIDTH];
    const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    const int strip = blockIdx.x * WARP * WIDTH, column = strip + lane * WIDTH;
    const int end = min(rows, (int)(blockIdx.y + 1) * chunk);

    float sum[WIDTH] = {};
    if (column < columns) {
#pragma unroll 4
        for (int row = blockIdx.y * chunk + warp; row < end; row += DEEP) {
            const T *const at = inp + (i64)row * columns + column;
            if constexpr (WIDTH > 1) {
                const Pack<T> pack = load_pack(at);
                for (int i = 0; i < WIDTH; i++) sum[i] += widen(pack.at[i]);
            } else {
                sum[0] += widen(*at);
            }
        }
    }
    for (int i = 0; i < WIDTH; i++) board[warp][lane * WIDTH + i] = sum[i];
    __syncthreads();

    const int i = threadIdx.x;
    if (i >= WARP * WIDTH || strip + i >= columns) return;
    float *const to = out + (i64)blockIdx.y * columns + strip + i;
    float total = accumulate ? *to : 0.f;
    for (int w = 0; w < DEEP; w++) total += board[w][i];
    *to = total;
}

template <typename T>
static void sum_level(float *out, const T *inp, int rows, int columns, int chunk, int accumulate) {
    constexpr int WIDE = Pack<T>::SIZE;
    const bool is_wide = columns % WIDE == 0;
    const dim3 grid((u32)ceil_div(columns, WARP * (is_wide ? WIDE : 1)), (u32)ceil_div(rows, chunk));
    launch(is_wide ? sum_chunks<WIDE, T> : sum_chunks<1, T>, grid, WARP * DEEP, 0, out, inp, rows,
           columns, chunk, accumulate);
}

template <typename T>
static void sum_columns(float *out, const T *inp, int rows, int columns, int accumulate) {
    const i64 fitting = (i64)(product_room.bytes / sizeof(float)) / columns;
    const i64 chunks = min(min(ceil_div(rows, CHUNK_ROWS), (i64)CHUNKS), fitting);
    if (chunks < 2) return sum_level(out, inp, rows, columns, rows, accumulate);
    const int chunk = (int)ceil_div(rows, chunks);
    float *const partial = (float *)product_room.at;
    sum_level(partial, inp, rows, columns, chunk, 0);
    const int made = (int)ceil_div(rows, chunk);
    sum_level(out, partial, made, columns, made, accumulate);
}

void column_sums(float *out, const void *inp, int is_bf16, int rows, int columns, int accumulate) {
    if (is_bf16) sum_columns(out, (const bf16 *)inp, rows, columns, accumulate);
    else sum_columns(out, (const float *)inp, rows, columns, accumulate);
}
