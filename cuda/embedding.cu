/* Rows in, rows out. On the way back each token has a short list of its rows, made in any order and
 * then sorted, which a warp adds up. A token of more rows has a block: each warp looks through a part of
 * all tokens and adds what it finds, in order. No atomic sums, whose order changes. */
#include "elements.h"
#include "product.h"

namespace {

constexpr int WARPS = 8, THREADS = WARPS * WARP;
constexpr int BATCH = 6;         // rows loaded before they are added
constexpr int MOST_LISTED = 32;  // rows of a token: a lane each
constexpr int SEARCHED = 512;    // tokens that a warp looks through before it adds what it found
constexpr int SEARCHING = 264;   // blocks for the tokens of many rows: two a multiprocessor of Hopper's
constexpr int PLACE_THREADS = 128;

template <int W>
KERNEL forward(real *__restrict__ out, const int *tokens, const real *wte, const real *wpe,
               const int *positions, i64 rows, int T, int C) {
    const i64 row = (i64)blockIdx.x * blockDim.y + threadIdx.y;
    if (row >= rows) return;
    const int b = (int)(row / T), t = (int)(row % T);
    const real *const token = wte + (i64)tokens[row] * C;
    const real *const place = wpe + ((positions ? (i64)positions[b] : 0) + t) * C;
#pragma unroll 4
    for (i64 c = threadIdx.x * W; c < C; c += WARP * W) {
        Floats<W> x = load<W>(token + c);
        const Floats<W> y = load<W>(place + c);
#pragma unroll
        for (int i = 0; i < W; i++) x.at[i] += y.at[i];
        store(out + row * C + c, x);
    }
}

template <int W> DEVICE void add(Floats<W> &sum, const Stored<real, W> &stored) {
    const Floats<W> x = widen(stored);
#pragma unroll
    for (int i = 0; i < W; i++) sum.at[i] += x.at[i];
}

/* sum += those rows of dout, which is that at the lane's channels. */
template <int W>
DEVICE void add_rows(Floats<W> &sum, const real *dout, const u32 *rows, int count, int C) {
    for (int i = 0; i < count; i += BATCH) {
        Stored<real, W> batch[BATCH];
#pragma unroll
        for (int k = 0; k < BATCH; k++)
            if (i + k < count) batch[k] = load_stored<W>(dout + (i64)rows[i + k] * C);
#pragma unroll
        for (int k = 0; k < BATCH; k++)
            if (i + k < count) add(sum, batch[k]);
    }
}

/* Where the tokens' rows are: counts (Vp); rows (Vp,listed), in any order, of tokens that have no more;
 * searched: the others, in any order, as many as the count before counts says. */
struct Rows {
    u32 *counts, *rows, *searched;
    int listed;

    static constexpr int HEAD = 4; // words before counts
    /* In so many words of room, with lists as long as fit, up to MOST_LISTED. */
    Rows(void *room, i64 words, i64 Vp)
        : counts((u32 *)room + HEAD), rows(counts + 2 * Vp), searched(counts + Vp),
          listed((int)min((words - HEAD) / Vp - 2, (i64)MOST_LISTED)) {}
    __host__ __device__ u32 *searched_count() const { return counts - HEAD; }
};

struct ListRows {
    Rows found;
    const int *tokens;
    template <int> __device__ void at(i64 row) const {
        const int token = tokens[row];
        const u32 before = atomicAdd(&found.counts[token], 1u), listed = (u32)found.listed;
        if (before < listed) found.rows[(i64)token * listed + before] = (u32)row;
        if (before == listed) found.searched[atomicAdd(found.searched_count(), 1u)] = token;
    }
};

/* dwte's row of a token whose rows are listed, by a warp. `sorted`: room for the list. */
template <int W>
DEVICE void add_listed(float *dwte, const real *dout, const u32 *rows, int count, int C, u32 *sorted) {
    const int lane = threadIdx.x % WARP;
    const u32 own = lane < count ? rows[lane] : ~0u;
    int rank = 0;
    for (int i = 0; i < count; i++) rank += __shfl_sync(ALL_LANES, own, i) < own;
    if (lane < count) sorted[rank] = own;
    __syncwarp();
    for (int c = lane * W; c < C; c += WARP * W) {
        Floats<W> sum = load<W>(dwte + c);
        add_rows(sum, dout + c, sorted, count, C);
        store(dwte + c, sum);
    }
}

/* The part of dwte's row of a token that lies in a strip of channels, by a block: of a warp's part of the
 * tokens, those that are the same. `sums`: (WARPS,strip). */
template <int W>
DEVICE void add_searched(float *dwte, const real *dout, const int *tokens, int token, u32 rows,
                         int strip, int C, u32 *list, float *sums) {
    const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, c = strip + lane * W;
    const u32 part = (rows + WARPS - 1) / WARPS, end = min((warp + 1) * part, rows);
    Floats<W> sum = {};
    for (u32 first = warp * part; first < end; first += SEARCHED) {
        int count = 0;
#pragma unroll 8
        for (u32 at = 0; at < SEARCHED; at += WARP) {
            const u32 row = first + at + lane;
            const bool is = row < end && tokens[row] == token;
            const u32 bits = __ballot_sync(ALL_LANES, is);
            if (is) list[count + __popc(bits & ((1u << lane) - 1))] = row;
            count += __popc(bits);
        }
        __syncwarp();
        if (c < C) add_rows(sum, dout + c, list, count, C);
        __syncwarp();
    }
    store(sums + (warp * WARP + lane) * W, sum);
    __syncthreads();
    const int i = threadIdx.x;
    if (i < WARP * W && strip + i < C) {
        float total = 0;
        for (int w = 0; w < WARPS; w++) total += sums[w * WARP * W + i];
        dwte[strip + i] += total;
    }
    __syncthreads();
}

/* The first blocks have the tokens of many rows, which take longest; the others a token a warp. */
template <int W>
KERNEL __launch_bounds__(THREADS, 4)
add_tokens(float *dwte, const real *dout, const int *tokens, Rows found, u32 rows, int C, int Vp) {
    __shared__ u32 lists[WARPS][SEARCHED];
    __shared__ __align__(16) float sums[THREADS * W];
    u32 *const list = lists[threadIdx.x / WARP];
    if (blockIdx.x < SEARCHING) {
        const u32 strips = (C + WARP * W - 1) / (WARP * W), parts = *found.searched_count() * strips;
        for (u32 i = blockIdx.x; i < parts; i += SEARCHING) {
            const int token = (int)found.searched[i / strips], strip = (int)(i % strips) * WARP * W;
            add_searched<W>(dwte + (i64)token * C, dout, tokens, token, rows, strip, C, list, sums);
        }
        return;
    }
    const i64 token = (i64)(blockIdx.x - SEARCHING) * WARPS + threadIdx.x / WARP;
    const int count = token < Vp ? (int)found.counts[token] : 0;
    if (count > 0 && count <= found.listed)
        add_listed<W>(dwte + token * C, dout, found.rows + token * found.listed, count, C, list);
}

/* A block a place and strip of channels. */
template <int W>
KERNEL __launch_bounds__(PLACE_THREADS)
add_places(float *dwpe, const real *dout, int B, int T, int C, int accumulate) {
    const i64 t = blockIdx.x, c = ((i64)blockIdx.y * PLACE_THREADS + threadIdx.x) * W;
    if (c >= C || (t >= T && accumulate)) return;
    Floats<W> sum = {};
    if (accumulate) sum = load<W>(dwpe + t * C + c);
    if (t < T)
#pragma unroll 8
        for (i64 b = 0; b < B; b++) add(sum, load_stored<W>(dout + (b * T + t) * C + c));
    store(dwpe + t * C + c, sum);
}

struct Clear {
    float *x;
    template <int N> __device__ void at(i64 i) const { store(x + i, Floats<N>{}); }
};

} // namespace

void REAL(embedding_forward)(real *out, const int *tokens, const real *wte, const real *wpe,
                             const int *positions, int B, int T, int C) {
    const i64 rows = (i64)B * T;
    by_width(C, [=](auto width) {
        launch(forward<width.value>, dim3((u32)ceil_div(rows, 4)), dim3(WARP, 4), 0, out, tokens,
               wte, wpe, positions, rows, T, C);
    });
}

void REAL(embedding_backward)(float *dwte, float *dwpe, const real *dout, const int *tokens, int B,
                              int T, int C, int Vp, int maxT, int accumulate_wte,
                              int accumulate_wpe) {
    const i64 rows = (i64)B * T;
    const Rows found(product_room.at, (i64)(product_room.bytes / sizeof(u32)), Vp);
    if (found.listed < 0) return keep_error(cudaErrorMemoryAllocation);
    each<4>(Rows::HEAD + (i64)Vp, Clear{(float *)product_room.at});
    each<1>(rows, ListRows{found, tokens});
    if (!accumulate_wte) each<4>((i64)Vp * C, Clear{dwte});
    by_width(C, [=](auto width) {
        constexpr int W = width.value;
        launch(add_tokens<W>, dim3((u32)(SEARCHING + ceil_div(Vp, WARPS))), THREADS, 0, dwte, dout,
               tokens, found, (u32)rows, C, Vp);
        launch(add_places<W>, dim3(maxT, (u32)ceil_div(C, PLACE_THREADS * W)), PLACE_THREADS, 0, dwpe,
               dout, B, T, C, accumulate_wpe);
    });
}
