/* Rows in, rows out. On the way back the block of a token's first row looks at the tokens up to its
 * last one and adds up the rows of those that are the same, in their order: no sorting, and no
 * atomic sums, whose order changes. */
#include "elements.h"
#include "product.h"

namespace {

constexpr int THREADS = 128;
constexpr int CHUNK = WARP * WARP; // tokens between barriers: a bit each in one word a lane
constexpr int BATCH = 12;          // rows loaded before they are added
constexpr int ROWS = 8;            // of a block, any of which may be its token's first

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

/* Where a token is found first and last. Both begin as 0: the largest number wins. */
struct Span {
    u32 rows_from_first, rows_to_last;
};

struct FindSpans {
    Span *spans;
    const int *tokens;
    i64 rows;
    template <int> __device__ void at(i64 row) const {
        Span &span = spans[tokens[row]];
        atomicMax(&span.rows_from_first, (u32)(rows - row));
        atomicMax(&span.rows_to_last, (u32)(row + 1));
    }
};

/* Lists the chunk's rows, counted from `first`, that have this token, and returns how many. */
DEVICE int list_rows(int *list, const int *tokens, i64 first, i64 rows, int token) {
    __shared__ u32 found[WARP];
    __shared__ int count;
    const int lane = threadIdx.x % WARP;
    bool is_here = false;
#pragma unroll
    for (int k = threadIdx.x; k < CHUNK; k += THREADS) {
        const bool is = first + k < rows && tokens[first + k] == token;
        const u32 bits = __ballot_sync(ALL_LANES, is);
        if (lane == 0) found[k / WARP] = bits;
        is_here |= is;
    }
    if (!__syncthreads_or(is_here)) return 0;
    if (threadIdx.x < WARP) {
        u32 bits = found[lane];
        int end = __popc(bits);
        for (int distance = 1; distance < WARP; distance *= 2) {
            const int before = __shfl_up_sync(ALL_LANES, end, distance);
            if (lane >= distance) end += before;
        }
        if (lane == WARP - 1) count = end;
        for (int at = end - __popc(bits); bits; bits &= bits - 1)
            list[at++] = lane * WARP + __ffs((int)bits) - 1;
    }
    __syncthreads();
    return count;
}

/* dwte's row of the token whose first row this is. The block has a strip of channels. */
template <int W>
DEVICE void add_token(float *dwte, const real *dout, const int *tokens, i64 row, i64 end, int C,
                      int *list) {
    const i64 c = ((i64)blockIdx.y * THREADS + threadIdx.x) * W;
    const int token = tokens[row];
    float *const to = dwte + (i64)token * C + c;
    Floats<W> sum = {};
    if (c < C) sum = load<W>(to);
    for (i64 first = row; first < end; first += CHUNK) {
        const int count = list_rows(list, tokens, first, end, token);
        if (c >= C) continue;
        for (int i = 0; i < count; i += BATCH) {
            Stored<real, W> batch[BATCH];
#pragma unroll
            for (int k = 0; k < BATCH; k++)
                if (i + k < count) batch[k] = load_stored<W>(dout + (first + list[i + k]) * C + c);
#pragma unroll
            for (int k = 0; k < BATCH; k++)
                if (i + k < count) add(sum, batch[k]);
        }
    }
    if (c < C) store(to, sum);
}

/* A block has some rows, far apart, as a text's first rows are those of its commonest tokens. */
template <int W>
KERNEL __launch_bounds__(THREADS, 4)
add_tokens(float *dwte, const real *dout, const int *tokens, const Span *spans, i64 rows, int C) {
    __shared__ int list[CHUNK];
    const int lane = threadIdx.x % WARP;
    const i64 own = blockIdx.x + (i64)lane * gridDim.x;
    const bool is_there = lane < ROWS && own < rows;
    const Span span = is_there ? spans[tokens[own]] : Span{};
    const bool is_first = is_there && span.rows_from_first == rows - own;
    for (u32 left = __ballot_sync(ALL_LANES, is_first); left; left &= left - 1) {
        const int source = __ffs((int)left) - 1;
        const i64 end = __shfl_sync(ALL_LANES, span.rows_to_last, source);
        add_token<W>(dwte, dout, tokens, blockIdx.x + (i64)source * gridDim.x, end, C, list);
    }
}

/* A block a place and strip of channels. */
template <int W>
KERNEL __launch_bounds__(THREADS)
add_places(float *dwpe, const real *dout, int B, int T, int C, int accumulate) {
    const i64 t = blockIdx.x, c = ((i64)blockIdx.y * THREADS + threadIdx.x) * W;
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
    const i64 rows = (i64)B * T, span_words = (i64)Vp * (sizeof(Span) / sizeof(float));
    Span *const spans = (Span *)product_room.at;
    if (span_words * sizeof(float) > product_room.bytes)
        return keep_error(cudaErrorMemoryAllocation);
    each<4>(span_words, Clear{(float *)product_room.at});
    each<1>(rows, FindSpans{spans, tokens, rows});
    if (!accumulate_wte) each<4>((i64)Vp * C, Clear{dwte});
    by_width(C, [=](auto width) {
        const u32 strips = (u32)ceil_div(C, THREADS * width.value);
        launch(add_tokens<width.value>, dim3((u32)ceil_div(rows, ROWS), strips), THREADS, 0, dwte,
               dout, tokens, spans, rows, C);
        launch(add_places<width.value>, dim3(maxT, strips), THREADS, 0, dwpe, dout, B, T, C,
               accumulate_wpe);
    });
}
