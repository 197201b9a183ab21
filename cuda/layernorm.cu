/* Layer normalisation. A row belongs to a warp, or to a block where it is long, and stays in
 * registers from one pass over it to the next; a row too long for that, or one whose numbers cannot
 * be loaded sixteen bytes at a time, is read again. */
#include "elements.h"
#include "product.h"

namespace {

constexpr int HELD = 3; // loads of sixteen bytes, at most, that a thread holds of a row
constexpr int FORWARD_THREADS = 1024, BACKWARD_THREADS = 512; // of a row, at most
constexpr int ANY_THREADS = 256;                              // of a row that is read again
constexpr int SHORT = WARP * HELD * WIDE; // columns of the longest row of a warp
// Of rows, whose columns are summed: two for each of a Hopper's multiprocessors.
constexpr int MOST_SLICES = 264;
constexpr int SUMS = 3; // of a column: for the gradients of weight and bias, and of dinp

/* f(k, c) for each column c that this thread has of a row, W at a time: the k-th of K. Where K is
 * 0, all columns are visited as the first. */
template <int W, int K, typename F> DEVICE void over_row(int C, F f) {
    if constexpr (K > 0) {
#pragma unroll
        for (int k = 0; k < K; k++) {
            const int c = (k * blockDim.x + threadIdx.x) * W;
            if (c < C) f(k, (i64)c);
        }
    } else {
        for (i64 c = threadIdx.x * W; c < C; c += blockDim.x * W) f(0, c);
    }
}

/* What this thread has of a row, loaded at once; where K is 0, whenever it is asked for. */
template <int W, int K> struct Row {
    const real *p;
    Stored<real, W> held[K ? K : 1];
    __device__ __forceinline__ Row(const real *row, int C) : p(row) {
        if constexpr (K > 0)
            over_row<W, K>(C, [&](int k, i64 c) { held[k] = load_stored<W>(p + c); });
    }
    __device__ __forceinline__ Floats<W> at(int k, i64 c) const {
        return K > 0 ? widen(held[k]) : load<W>(p + c);
    }
};

DEVICE float row_sum(float x, float *board) {
    return blockDim.x == WARP ? warp_sum(x) : block_sum(x, board);
}

template <int W, int K>
KERNEL __launch_bounds__(FORWARD_THREADS)
forward(real *out, float *mean, float *rstd, const real *inp, const real *weight, const real *bias,
        int N, int C, float eps) {
    __shared__ float boards[2][WARP];
    const i64 n = (i64)blockIdx.x * blockDim.y + threadIdx.y;
    if (n >= N) return;
    const Row<W, K> row(inp + n * C, C);

    float sum = 0;
    over_row<W, K>(C, [&](int k, i64 c) {
        const Floats<W> x = row.at(k, c);
#pragma unroll
        for (int i = 0; i < W; i++) sum += x.at[i];
    });
    const float m = row_sum(sum, boards[0]) / (float)C;

    // A second pass: when |mean| is far above the deviation, E[x²] - mean² cancels to noise.
    float squares = 0;
    over_row<W, K>(C, [&](int k, i64 c) {
        const Floats<W> x = row.at(k, c);
#pragma unroll
        for (int i = 0; i < W; i++) squares += (x.at[i] - m) * (x.at[i] - m);
    });
    const float r = 1 / sqrtf(row_sum(squares, boards[1]) / (float)C + eps);

    over_row<W, K>(C, [&](int k, i64 c) {
        Floats<W> x = row.at(k, c);
        const Floats<W> w = load<W>(weight + c), b = load<W>(bias + c);
#pragma unroll
        for (int i = 0; i < W; i++) x.at[i] = (x.at[i] - m) * r * w.at[i] + b.at[i];
        store(out + n * C + c, x);
    });
    if (threadIdx.x > 0) return;
    if (mean) mean[n] = m;
    if (rstd) rstd[n] = r;
}

/* A thread's own sums in shared memory, W of each load: where the j-th four of the k-th are. */
template <int W> DEVICE float *own_sums(float *shared, int k, int j) {
    const int thread = threadIdx.y * blockDim.x + threadIdx.x;
    return shared + ((k * (W / 4) + j) * blockDim.x * blockDim.y + thread) * 4;
}
template <int W> DEVICE void add_to_own(float *shared, int k, const Floats<W> &x) {
#pragma unroll
    for (int j = 0; j < W / 4; j++) {
        Floats<4> sum = load<4>(own_sums<W>(shared, k, j));
#pragma unroll
        for (int i = 0; i < 4; i++) sum.at[i] += x.at[j * 4 + i];
        store(own_sums<W>(shared, k, j), sum);
    }
}

/* dinp; and, where rows are held, slices (gridDim.x,SUMS,C): each block's rows' share of dweight,
 * dbias and sums. */
template <int W, int K>
KERNEL __launch_bounds__(BACKWARD_THREADS)
backward(real *dinp, float *slices, const real *dout, const real *inp, const real *weight,
         const float *mean, const float *rstd, int N, int C, int accumulate) {
    __shared__ float boards[2][WARP], board[SUMS * SHORT];
    DYNAMIC_SHARED(float, dinp_sums); // while rows pass: registers are left for the two others
    Floats<W> sums[SUMS][K ? K : 1] = {};
    if constexpr (K > 0)
        over_row<W, K>(C, [&](int k, i64) {
            for (int j = 0; j < W / 4; j++) store(own_sums<W>(dinp_sums, k, j), Floats<4>{});
        });
    const i64 stride = (i64)gridDim.x * blockDim.y;
    for (i64 n = (i64)blockIdx.x * blockDim.y + threadIdx.y; n < N; n += stride) {
        const Row<W, K> douts(dout + n * C, C), inps(inp + n * C, C);
        const Row<W, K> old(dinp + n * C, accumulate ? C : 0);
        const float m = mean[n], r = rstd[n];
        float sum_g = 0, sum_gn = 0;
        over_row<W, K>(C, [&](int k, i64 c) {
            const Floats<W> d = douts.at(k, c), x = inps.at(k, c), w = load<W>(weight + c);
#pragma unroll
            for (int i = 0; i < W; i++) {
                const float norm = (x.at[i] - m) * r, g = d.at[i] * w.at[i];
                sum_g += g;
                sum_gn += g * norm;
                sums[0][k].at[i] += d.at[i] * norm;
                sums[1][k].at[i] += d.at[i];
            }
        });
        const float avg_g = row_sum(sum_g, boards[0]) / (float)C;
        const float avg_gn = row_sum(sum_gn, boards[1]) / (float)C;
        over_row<W, K>(C, [&](int k, i64 c) {
            const Floats<W> d = douts.at(k, c), x = inps.at(k, c), w = load<W>(weight + c);
            Floats<W> dx = accumulate ? old.at(k, c) : Floats<W>{};
#pragma unroll
            for (int i = 0; i < W; i++) {
                const float norm = (x.at[i] - m) * r, g = d.at[i] * w.at[i];
                dx.at[i] += r * (g - avg_g - norm * avg_gn);
            }
            store(dinp + n * C + c, dx);
            add_to_own(dinp_sums, k, dx);
        });
    }
    if constexpr (K > 0) {
        over_row<W, K>(C, [&](int k, i64) {
#pragma unroll
            for (int i = 0; i < W; i++)
                sums[2][k].at[i] = own_sums<W>(dinp_sums, k, i / 4)[i % 4];
        });
        // The block's warps add their rows in turn.
        float *const slice = slices + (i64)blockIdx.x * SUMS * C;
        float *const to = blockDim.y > 1 ? board : slice;
        for (int y = 0; y < (int)blockDim.y; y++) {
            if ((int)threadIdx.y == y)
                over_row<W, K>(C, [&](int k, i64 c) {
#pragma unroll
                    for (int s = 0; s < SUMS; s++)
#pragma unroll
                        for (int i = 0; i < W; i++) {
                            float &sum = to[s * C + c + i];
                            sum = (y > 0 ? sum : 0.f) + sums[s][k].at[i];
                        }
                });
            __syncthreads();
        }
        const int threads = blockDim.x * blockDim.y;
        if (to == board)
            for (int i = threadIdx.y * blockDim.x + threadIdx.x; i < SUMS * C; i += threads)
                slice[i] = board[i];
    }
}

/* slices (gridDim.y,SUMS,columns) where rows are not held: a strip of columns, of rows of C. */
KERNEL backward_columns(float *slices, const real *dinp, const real *dout, const real *inp,
                        const float *mean, const float *rstd, int N, int C, int columns) {
    __shared__ float boards[SUMS][WARP][WARP];
    const int c = blockIdx.x * WARP + threadIdx.x, y = threadIdx.y;
    float dw = 0, db = 0, sum = 0;
    if (c < columns)
        for (i64 n = blockIdx.y * blockDim.y + y; n < N; n += gridDim.y * blockDim.y) {
            const float d = widen(dout[n * C + c]);
            dw += d * ((widen(inp[n * C + c]) - mean[n]) * rstd[n]);
            db += d;
            sum += widen(dinp[n * C + c]);
        }
    boards[0][y][threadIdx.x] = dw;
    boards[1][y][threadIdx.x] = db;
    boards[2][y][threadIdx.x] = sum;
    __syncthreads();
    if (y >= SUMS || c >= columns) return;
    float total = 0;
    for (int i = 0; i < (int)blockDim.y; i++) total += boards[y][i][threadIdx.x];
    slices[((i64)blockIdx.y * SUMS + y) * columns + c] = total;
}

/* dweight, dbias, and sums where there is one, (C) = the sums over slices (count,SUMS,C), in their
 * order. */
KERNEL sum_slices(float *dweight, float *dbias, float *sums, const float *slices, int count, int C,
                  int accumulate) {
    __shared__ float board[WARP][WARP];
    const int i = blockIdx.x * WARP + threadIdx.x, end = (sums ? SUMS : SUMS - 1) * C;
    float sum = 0;
    if (i < end)
#pragma unroll 8
        for (int s = threadIdx.y; s < count; s += blockDim.y) sum += slices[(i64)s * SUMS * C + i];
    board[threadIdx.y][threadIdx.x] = sum;
    __syncthreads();
    if (threadIdx.y > 0 || i >= end) return;
    float *const to = i < C ? dweight + i : i < 2 * C ? dbias + i - C : sums + i - 2 * C;
    float total = accumulate ? *to : 0.f;
    for (int y = 0; y < (int)blockDim.y; y++) total += board[y][threadIdx.x];
    *to = total;
}

/* How a row is shared out: f(Count<W>, Count<K>, the block of threads), with `y` warps in a block
 * where a row is a warp's. */
template <typename F> void by_row(int C, int most_threads, int y, F f) {
    const int loads = (int)ceil_div(C, WIDE);
    const int threads = (int)ceil_div(loads, HELD * WARP) * WARP;
    if (C % WIDE || threads > most_threads) return f(Count<1>(), Count<0>(), dim3(ANY_THREADS));
    const dim3 block(threads, threads == WARP ? y : 1);
    switch (ceil_div(loads, threads)) {
    case 1: return f(Count<WIDE>(), Count<1>(), block);
    case 2: return f(Count<WIDE>(), Count<2>(), block);
    default: return f(Count<WIDE>(), Count<HELD>(), block);
    }
}

/* As many slices of rows as there is room for, of these many columns. */
int slices_of(i64 most, i64 columns) {
    const i64 fitting = (i64)(product_room.bytes / sizeof(float)) / (SUMS * columns);
    return (int)min(min(most, (i64)MOST_SLICES), fitting);
}

} // namespace

void REAL(layernorm_forward)(real *out, float *mean, float *rstd, const real *inp,
                             const real *weight, const real *bias, int N, int C, float eps) {
    by_row(C, FORWARD_THREADS, 4, [=](auto w, auto k, dim3 block) {
        launch(forward<w.value, k.value>, dim3((u32)ceil_div(N, block.y)), block, 0, out, mean,
               rstd, inp, weight, bias, N, C, eps);
    });
}

void REAL(layernorm_backward)(real *dinp, float *dweight, float *dbias, float *sums,
                              const real *dout, const real *inp, const real *weight,
                              const float *mean, const float *rstd, int N, int C,
                              int accumulate_inp, int accumulate) {
    float *const slices = (float *)product_room.at;
    by_row(C, BACKWARD_THREADS, 8, [=](auto w, auto k, dim3 block) {
        constexpr bool IS_HELD = k.value > 0;
        const int width = IS_HELD ? C : min(C, SHORT);
        const int count = slices_of(ceil_div(N, IS_HELD ? block.y : WARP), width);
        const int lines = sums ? SUMS : SUMS - 1;
        const size_t shared = block.x * block.y * k.value * w.value * sizeof(float);
        launch(backward<w.value, k.value>, dim3(IS_HELD ? count : N), block, shared, dinp, slices,
               dout, inp, weight, mean, rstd, N, C, accumulate_inp);
        for (int first = 0; first < C; first += width) {
            const int columns = min(width, C - first);
            const dim3 square(WARP, WARP);
            if (!IS_HELD)
                launch(backward_columns, dim3((u32)ceil_div(columns, WARP), count), square, 0,
                       slices, dinp + first, dout + first, inp + first, mean, rstd, N, C, columns);
            launch(sum_slices, dim3((u32)ceil_div(lines * columns, WARP)), square, 0,
                   dweight + first, dbias + first, sums ? sums + first : nullptr, slices, count,
                   columns, accumulate);
        }
    });
}
