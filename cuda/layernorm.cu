/* Layer normalisation. A row belongs to a warp, or to some where it is long, and stays in registers from
 * one pass over it to the next, while the rows to come are on their way into shared memory; a row too
 * long for that, or one whose numbers cannot be loaded sixteen bytes at a time, is read again. Rows
 * are taken from the last to the first: what a product wrote last is still in the L2 cache, and so are,
 * for the product that follows, the rows with which it begins. */
#include <stdlib.h> // getenv: until measured

#include "elements.h"
#include "mma.h"
#include "product.h"

namespace {

constexpr int HELD = 3;           // loads of sixteen bytes, at most, that a thread holds of a row
constexpr int MOST_THREADS = 512; // of a row that is held
constexpr int ANY_THREADS = 256;  // of a row that is read again, and of a block of shorter ones
constexpr int SHORT = WARP * HELD * WIDE; // columns of the longest row of a warp
// Of rows, each a block's: two for each of a Hopper's multiprocessors.
constexpr int MOST_SLICES = 264;
constexpr int GRADIENTS = 3; // dout, inp, dinp: one row of each

/* How a row is shared out: loads of W numbers, K of them a thread, by THREADS threads, or by as many as
 * a block is wide. Where K is 0, as many as it takes. */
template <int W_, int K_, int THREADS> struct Share {
    static constexpr int W = W_, K = K_, KEPT = K_ ? K_ : 1;
    static __device__ __forceinline__ int threads() { return THREADS ? THREADS : blockDim.x; }

    /* f(k, c) for each column c that this thread has of a row, W at a time: the k-th of K. Where K
     * is 0, all columns are visited as the first. */
    template <typename F> static __device__ __forceinline__ void over_row(int C, F f) {
        if constexpr (K > 0) {
#pragma unroll
            for (int k = 0; k < K; k++) {
                const int c = (k * threads() + threadIdx.x) * W;
                if (c < C) f(k, c);
            }
        } else {
            for (int c = threadIdx.x * W; c < C; c += threads() * W) f(0, c);
        }
    }

    /* The sum over a row's threads. A board is free again after the next sum on another. */
    static __device__ __forceinline__ float sum(float x, float *board) {
        x = warp_sum(x);
        if constexpr (THREADS == WARP) return x;
        const int warps = threads() / WARP, lane = threadIdx.x % WARP;
        float *const row = board + threadIdx.y * warps;
        if (lane == 0) row[threadIdx.x / WARP] = x;
        __syncthreads();
        return warp_sum(lane < warps ? row[lane] : 0.f);
    }
};

/* Each thread's own places in shared memory for what it has of ROWS rows. An odd number of loads, so that
 * neighbours' lie in other banks. */
template <typename S, int ROWS> struct Places {
    static constexpr int LOADS = ROWS * S::K | 1;
    typedef Stored<real, S::W> Load;
    Load *at;
    __device__ __forceinline__ explicit Places(Load *shared)
        : at(shared + (threadIdx.y * S::threads() + threadIdx.x) * LOADS) {}
    __device__ __forceinline__ const Load &operator()(int row, int k) const {
        return at[row * S::K + k];
    }
    /* Has row n of rows copied there, if n is one. */
    __device__ __forceinline__ void fetch(int row, const real *rows, int n, int C) const {
        const real *const from = rows + (i64)n * C;
        if (n >= 0)
            S::over_row(C, [&](int k, int c) { copy_async(at + row * S::K + k, from + c); });
    }
};

template <typename S, int AHEAD>
KERNEL __launch_bounds__(MOST_THREADS)
forward(real *out, float *mean, float *rstd, const real *inp, const real *weight, const real *bias,
        int N, int C, float eps) {
    constexpr int W = S::W, K = S::K;
    typedef Stored<real, W> Load;
    DYNAMIC_SHARED(Load, shared);
    __shared__ float boards[2][WARP];
    const Places<S, AHEAD> places(shared);
    const int stride = gridDim.x * blockDim.y;
    int n = N - 1 - (int)(blockIdx.x * blockDim.y + threadIdx.y);
    const auto fetch = [&](int place, int row) {
        places.fetch(place, inp, row, C);
        commit_copies();
    };
    Load w[S::KEPT], b[S::KEPT];
    const auto load_weights = [&](int k, int c) {
        w[k] = load_stored<W>(weight + c);
        b[k] = load_stored<W>(bias + c);
    };
    if constexpr (K > 0) {
        for (int place = 0; place < AHEAD; place++) fetch(place, n - place * stride);
        S::over_row(C, load_weights);
    }
    int place = 0;
    for (int i = blockIdx.x * blockDim.y; i < N; i += stride, n -= stride) {
        const real *const row = inp + (i64)n * C;
        Floats<W> held[S::KEPT] = {};
        if constexpr (K > 0) {
            wait_copies<AHEAD - 1>();
            if (n >= 0) S::over_row(C, [&](int k, int) { held[k] = widen(places(place, k)); });
            fetch(place, n - AHEAD * stride);
            place = place + 1 < AHEAD ? place + 1 : 0;
        }
        const auto at = [&](int k, int c) { return K > 0 ? held[k] : load<W>(row + c); };

        float sum = 0;
        S::over_row(C, [&](int k, int c) {
            const Floats<W> x = at(k, c);
#pragma unroll
            for (int j = 0; j < W; j++) sum += x.at[j];
        });
        const float m = S::sum(sum, boards[0]) / (float)C;

        // A second pass: when |mean| is far above the deviation, E[x²] - mean² cancels to noise.
        float squares = 0;
        S::over_row(C, [&](int k, int c) {
            const Floats<W> x = at(k, c);
#pragma unroll
            for (int j = 0; j < W; j++) squares += (x.at[j] - m) * (x.at[j] - m);
        });
        const float r = 1 / sqrtf(S::sum(squares, boards[1]) / (float)C + eps);

        if (n < 0) continue;
        real *const to = out + (i64)n * C;
        S::over_row(C, [&](int k, int c) {
            if constexpr (K == 0) load_weights(k, c);
            Floats<W> x = at(k, c);
            const Floats<W> ws = widen(w[k]), bs = widen(b[k]);
#pragma unroll
            for (int j = 0; j < W; j++) x.at[j] = (x.at[j] - m) * r * ws.at[j] + bs.at[j];
            store(to + c, x);
        });
        if (threadIdx.x > 0) continue;
        if (mean) mean[n] = m;
        if (rstd) rstd[n] = r;
    }
}

/* dinp; and, where rows are held, slices (gridDim.x,2,C): each block's rows' share of dweight and
 * of dbias. */
template <typename S>
KERNEL __launch_bounds__(MOST_THREADS)
backward(real *dinp, float *slices, const real *dout, const real *inp, const real *weight,
         const float *mean, const float *rstd, int N, int C, int accumulate) {
    constexpr int W = S::W, K = S::K;
    typedef Stored<real, W> Load;
    enum { DOUT, INP, OLD };
    DYNAMIC_SHARED(Load, shared);
    __shared__ float boards[2][WARP];
    const Places<S, GRADIENTS> places(shared);
    const int stride = gridDim.x * blockDim.y;
    int n = N - 1 - (int)(blockIdx.x * blockDim.y + threadIdx.y);
    // A place is free as soon as its row has been read: what follows goes there.
    const auto fetch = [&](int row) {
        places.fetch(DOUT, dout, row, C);
        places.fetch(INP, inp, row, C);
        commit_copies();
    };
    const auto fetch_old = [&](int row) {
        if (accumulate) places.fetch(OLD, dinp, row, C);
        commit_copies();
    };
    if constexpr (K > 0) {
        fetch(n);
        fetch_old(n);
    }
    float next_m = n >= 0 ? mean[n] : 0.f, next_r = n >= 0 ? rstd[n] : 0.f;
    Floats<W> dw[S::KEPT] = {}, db[S::KEPT] = {}, g[S::KEPT];
    Load x[S::KEPT];
    for (int i = blockIdx.x * blockDim.y; i < N; i += stride, n -= stride) {
        const int next = n - stride;
        const float m = next_m, r = next_r;
        if (next >= 0) {
            next_m = mean[next];
            next_r = rstd[next];
        }
        const i64 row = (i64)n * C;
        const auto make = [&](int k, int c) {
            const Floats<W> w = load<W>(weight + c);
            const Floats<W> d = K > 0 ? widen(places(DOUT, k)) : load<W>(dout + row + c);
            x[k] = K > 0 ? places(INP, k) : load_stored<W>(inp + row + c);
#pragma unroll
            for (int j = 0; j < W; j++) g[k].at[j] = d.at[j] * w.at[j];
            return d;
        };
        const auto norms = [&](int k) {
            Floats<W> norm = widen(x[k]);
#pragma unroll
            for (int j = 0; j < W; j++) norm.at[j] = (norm.at[j] - m) * r;
            return norm;
        };
        if constexpr (K > 0) wait_copies<1>();
        float sum_g = 0, sum_gn = 0;
        if (n >= 0)
            S::over_row(C, [&](int k, int c) {
                const Floats<W> d = make(k, c), norm = norms(k);
#pragma unroll
                for (int j = 0; j < W; j++) {
                    sum_g += g[k].at[j];
                    sum_gn += g[k].at[j] * norm.at[j];
                    dw[k].at[j] += d.at[j] * norm.at[j];
                    db[k].at[j] += d.at[j];
                }
            });
        if constexpr (K > 0) fetch(next);
        const float avg_g = S::sum(sum_g, boards[0]) / (float)C;
        const float avg_gn = S::sum(sum_gn, boards[1]) / (float)C;
        if constexpr (K > 0) wait_copies<1>();
        if (n >= 0)
            S::over_row(C, [&](int k, int c) {
                if constexpr (K == 0) make(k, c);
                const Floats<W> norm = norms(k);
                Floats<W> dx = {};
                if (accumulate) dx = K > 0 ? widen(places(OLD, k)) : load<W>(dinp + row + c);
#pragma unroll
                for (int j = 0; j < W; j++)
                    dx.at[j] += r * (g[k].at[j] - avg_g - norm.at[j] * avg_gn);
                store(dinp + row + c, dx);
            });
        if constexpr (K > 0) fetch_old(next);
    }
    if constexpr (K > 0) {
        float *const sums = reinterpret_cast<float *>(shared); // (blockDim.y,C), in the places
        const int threads = blockDim.x * blockDim.y;
        for (int which = 0; which < 2; which++) {
            __syncthreads();
            S::over_row(C, [&](int k, int c) {
                store(sums + threadIdx.y * C + c, which == 0 ? dw[k] : db[k]);
            });
            __syncthreads();
            for (int c = threadIdx.y * blockDim.x + threadIdx.x; c < C; c += threads) {
                float total = 0;
                for (int y = 0; y < (int)blockDim.y; y++) total += sums[y * C + c];
                slices[((i64)blockIdx.x * 2 + which) * C + c] = total;
            }
        }
    }
}

/* slices (gridDim.y,2,columns) where rows are not held: a strip of columns, of rows of C. */
KERNEL backward_columns(float *slices, const real *dout, const real *inp, const float *mean,
                        const float *rstd, int N, int C, int columns) {
    __shared__ float boards[2][WARP][WARP];
    const int c = blockIdx.x * WARP + threadIdx.x, y = threadIdx.y;
    float dw = 0, db = 0;
    if (c < columns)
        for (i64 n = blockIdx.y * blockDim.y + y; n < N; n += gridDim.y * blockDim.y) {
            const float d = widen(dout[n * C + c]);
            dw += d * ((widen(inp[n * C + c]) - mean[n]) * rstd[n]);
            db += d;
        }
    boards[0][y][threadIdx.x] = dw;
    boards[1][y][threadIdx.x] = db;
    __syncthreads();
    if (y > 1 || c >= columns) return;
    float total = 0;
    for (int i = 0; i < (int)blockDim.y; i++) total += boards[y][i][threadIdx.x];
    slices[((i64)blockIdx.y * 2 + y) * columns + c] = total;
}

/* dweight, dbias (C) = the sums over slices (count,2,C), in their order. */
KERNEL sum_slices(float *dweight, float *dbias, const float *slices, int count, int C,
                  int accumulate) {
    __shared__ float board[WARP][WARP];
    const int i = blockIdx.x * WARP + threadIdx.x;
    float batch[(MOST_SLICES + WARP - 1) / WARP] = {}, sum = 0;
    int slice = threadIdx.y;
    for (float &x : batch) {
        if (i < 2 * C && slice < count) x = slices[(i64)slice * 2 * C + i];
        slice += WARP;
    }
    for (const float x : batch) sum += x;
    board[threadIdx.y][threadIdx.x] = sum;
    __syncthreads();
    if (threadIdx.y > 0 || i >= 2 * C) return;
    float *const to = i < C ? dweight + i : dbias + i - C;
    float total = accumulate ? *to : 0.f;
    for (int y = 0; y < (int)blockDim.y; y++) total += board[y][threadIdx.x];
    *to = total;
}

/* f(Share, the block: a row's threads, and rows). */
template <typename F> void by_row(int C, F f) {
    const int loads = (int)ceil_div(C, WIDE);
    const int threads = (int)ceil_div(loads, HELD * WARP) * WARP;
    if (C % WIDE || threads > MOST_THREADS) return f(Share<1, 0, 0>(), dim3(ANY_THREADS));
    const dim3 block(threads, max(1, ANY_THREADS / threads));
    const int held = (int)ceil_div(loads, threads);
    if (threads > WARP)
        return held < HELD ? f(Share<WIDE, 2, 0>(), block) : f(Share<WIDE, HELD, 0>(), block);
    switch (held) {
    case 1: return f(Share<WIDE, 1, WARP>(), block);
    case 2: return f(Share<WIDE, 2, WARP>(), block);
    default: return f(Share<WIDE, HELD, WARP>(), block);
    }
}

/* Bytes of shared memory for the places of so many rows. */
template <typename S, int ROWS> size_t room(dim3 block) {
    return S::K > 0 ? (size_t)block.x * block.y * Places<S, ROWS>::LOADS * 16 : 0;
}

/* As many slices of rows as there is room for, of these many columns. */
int slices_of(i64 most, i64 columns) {
    const i64 fitting = (i64)(product_room.bytes / sizeof(float)) / (2 * columns);
    return (int)min(min(most, (i64)MOST_SLICES), fitting);
}

} // namespace

void REAL(layernorm_forward)(real *out, float *mean, float *rstd, const real *inp,
                             const real *weight, const real *bias, int N, int C, float eps) {
    by_row(C, [=](auto share, dim3 block) {
        using S = decltype(share);
        const i64 blocks = min(ceil_div(N, block.y), (i64)(S::K > 0 ? MOST_SLICES : N));
        // Rows on their way.
        static const char *const tried = getenv("LLM_TRY_FORWARD");
        const int ahead = tried ? atoi(tried) : 2;
        if (ahead == 3)
            launch(forward<S, 3>, dim3((u32)blocks), block, room<S, 3>(block), out, mean, rstd, inp,
                   weight, bias, N, C, eps);
        else if (ahead == 1)
            launch(forward<S, 1>, dim3((u32)blocks), block, room<S, 1>(block), out, mean, rstd, inp,
                   weight, bias, N, C, eps);
        else
            launch(forward<S, 2>, dim3((u32)blocks), block, room<S, 2>(block), out, mean, rstd, inp,
                   weight, bias, N, C, eps);
    });
}

void REAL(layernorm_backward)(real *dinp, float *dweight, float *dbias, const real *dout,
                              const real *inp, const real *weight, const float *mean,
                              const float *rstd, int N, int C, int accumulate_inp, int accumulate) {
    float *const slices = (float *)product_room.at;
    by_row(C, [=](auto share, dim3 block) {
        using S = decltype(share);
        constexpr bool IS_HELD = S::K > 0;
        const int width = IS_HELD ? C : min(C, SHORT);
        const int count = slices_of(ceil_div(N, IS_HELD ? block.y : WARP), width);
        launch(backward<S>, dim3(IS_HELD ? count : N), block, room<S, GRADIENTS>(block), dinp,
               slices, dout, inp, weight, mean, rstd, N, C, accumulate_inp);
        for (int first = 0; first < C; first += width) {
            const int columns = min(width, C - first);
            const dim3 lines(WARP, WARP);
            if (!IS_HELD)
                launch(backward_columns, dim3((u32)ceil_div(columns, WARP), count), lines, 0,
                       slices, dout + first, inp + first, mean, rstd, N, C, columns);
            launch(sum_slices, dim3((u32)ceil_div(2 * columns, WARP)), lines, 0, dweight + first,
                   dbias + first, slices, count, columns, accumulate);
        }
    });
}
