/* Attention without tensor cores, by tiles in f32: for f32, and for heads too wide for registers.
 * Of heads wider than a tile, a block makes one tile of channels, from all of the scores again. */
#include "attention.h"

constexpr int TILE = 64, DEPTH = 32;  // rows of a tile; channels of it at a time in a dot product
constexpr int PART = 4, THREADS = TILE / PART * (TILE / PART); // a thread makes PART·PART of a tile
constexpr int ROW = TILE + 4;         // numbers from a row to the next, on 16 bytes

/* What a block keeps in shared memory: operands with the rows of the product side by side. */
struct Board {
    union {
        float operands[2][DEPTH][ROW]; // of a dot product, channel by channel
        float rows[TILE][ROW];         // to be summed, row by row
    };
    float weights[TILE][ROW]; // of those rows: one line for each of them
};
typedef float Part[PART][PART];

/* The thread's rows and columns of a tile begin at row_of_part and column_of_part; those that share
 * its rows are the 16 lanes of its half of a warp. */
DEVICE int row_of_part() { return threadIdx.x / (TILE / PART) * PART; }
DEVICE int column_of_part() { return threadIdx.x % (TILE / PART) * PART; }

DEVICE float sum_of_row(float x) {
    for (int distance = TILE / PART / 2; distance > 0; distance /= 2)
        x += __shfl_xor_sync(ALL_LANES, x, distance);
    return x;
}
DEVICE float max_of_row(float x) {
    for (int distance = TILE / PART / 2; distance > 0; distance /= 2)
        x = fmaxf(x, __shfl_xor_sync(ALL_LANES, x, distance));
    return x;
}

/* sums += leftᵀ·right, `depth` lines of each. */
DEVICE void add_products(Part &sums, const float (*left)[ROW], const float (*right)[ROW],
                         int depth) {
#pragma unroll 2
    for (int d = 0; d < depth; d++) {
        const Pack<float> a = load_pack(left[d] + row_of_part());
        const Pack<float> b = load_pack(right[d] + column_of_part());
#pragma unroll
        for (int i = 0; i < PART; i++)
#pragma unroll
            for (int j = 0; j < PART; j++) sums[i][j] = fmaf(a.at[i], b.at[j], sums[i][j]);
    }
}

/* Rows of a head, of which `count` exist. */
struct Some {
    const real *first;
    int stride, count;
};

DEVICE float number(const Some &rows, int row, int d, int HS) {
    return row < rows.count && d < HS ? widen(rows.first[row * rows.stride + d]) : 0.f;
}

/* dots = left·rightᵀ over all channels. */
DEVICE void dot_rows(Part &dots, Board &board, const Some &left, const Some &right, int HS) {
    for (int i = 0; i < PART * PART; i++) dots[i / PART][i % PART] = 0;
    for (int d0 = 0; d0 < HS; d0 += DEPTH) {
        __syncthreads();
        // A warp takes 4 rows of 8 channels: whole sectors of memory, and 32 banks.
#pragma unroll 2
        for (int i = threadIdx.x; i < TILE * DEPTH; i += THREADS) {
            const int piece = i / WARP, d = piece % (DEPTH / 8) * 8 + i % 8;
            const int row = piece / (DEPTH / 8) * 4 + i / 8 % 4;
            board.operands[0][d][row] = number(left, row, d0 + d, HS);
            board.operands[1][d][row] = number(right, row, d0 + d, HS);
        }
        __syncthreads();
        add_products(dots, board.operands[0], board.operands[1], min(DEPTH, HS - d0));
    }
}

/* sums += weights·rows, of TILE channels from `channel` on; every thread brings its weights. */
DEVICE void add_rows(Part &sums, Board &board, const Part &weights, const Some &rows, int channel,
                     int HS) {
    __syncthreads();
#pragma unroll 2
    for (int i = threadIdx.x; i < TILE * TILE; i += THREADS)
        board.rows[i / TILE][i % TILE] = number(rows, i / TILE, channel + i % TILE, HS);
#pragma unroll
    for (int j = 0; j < PART; j++) {
        Pack<float> column;
#pragma unroll
        for (int i = 0; i < PART; i++) column.at[i] = weights[i][j];
        store_pack(board.weights[column_of_part() + j] + row_of_part(), column);
    }
    __syncthreads();
    add_products(sums, board.weights, board.rows, min(TILE, rows.count));
}

/* Writes the sums, times a factor a row, to TILE channels from `channel` on. */
DEVICE void store_rows(real *to, i64 stride, int rows, int channel, int HS, const Part &sums,
                       const float (&factor)[PART]) {
    for (int i = 0; i < PART; i++)
        for (int j = 0; j < PART; j++) {
            const int row = row_of_part() + i, d = channel + column_of_part() + j;
            if (row < rows && d < HS) to[row * stride + d] = narrow<real>(sums[i][j] * factor[i]);
        }
}

DEVICE int tiles_of(int n) { return (n + TILE - 1) / TILE; }

KERNEL __launch_bounds__(THREADS, 2) forward_plain(Attention x) {
    __shared__ Board board;
    const int HS = x.HS, T = x.T, parts = tiles_of(HS), channel = blockIdx.x % parts * TILE;
    const Share share =
        share_of(blockIdx.x / parts, tiles_of(T), TILE, x.B * x.NH, x.NH, true);
    const int position = x.positions ? x.positions[share.b] : 0, rows = position + T;
    const int seen = position + min(T, share.first + TILE);
    const Some queries = {head_of(x.q, share, HS) + share.first * x.q.token, x.q.token,
                       T - share.first};
    const real *const k = head_of(x.k, share, HS), *const v = head_of(x.v, share, HS);
    Part out = {}, s;
    float most[PART], total[PART] = {};
    for (int i = 0; i < PART; i++) most[i] = -INFINITY;
    for (int key = 0; key < seen; key += TILE) {
        dot_rows(s, board, queries, {k + key * x.k.token, x.k.token, rows - key}, HS);
#pragma unroll
        for (int i = 0; i < PART; i++) {
            float top = most[i];
            for (int j = 0; j < PART; j++) {
                if (key + column_of_part() + j > position + share.first + row_of_part() + i)
                    s[i][j] = -INFINITY;
                top = fmaxf(top, s[i][j]);
            }
            top = max_of_row(top);
            const float keep = exp2f((most[i] - top) * x.scale);
            most[i] = top;
            total[i] *= keep;
            for (int j = 0; j < PART; j++) {
                s[i][j] = exp2f((s[i][j] - top) * x.scale);
                total[i] += s[i][j];
                out[i][j] *= keep;
            }
        }
        add_rows(out, board, s, {v + key * x.v.token, x.v.token, rows - key}, channel, HS);
    }
    for (int i = 0; i < PART; i++) {
        const float sum = sum_of_row(total[i]);
        const int query = share.first + row_of_part() + i;
        if (x.lse && channel == 0 && column_of_part() == 0 && query < T)
            x.lse[((i64)share.b * x.NH + share.h) * T + query] =
                (most[i] * x.scale + log2f(sum)) * LN2;
        total[i] = 1 / sum;
    }
    const i64 C = (i64)x.NH * HS;
    store_rows(x.out + ((i64)share.b * T + share.first) * C + (i64)share.h * HS, C, T - share.first,
               channel, HS, out, total);
}


/* delta of every query and head, a warp each. */
KERNEL __launch_bounds__(THREADS) sum_of_products(Gradients x) {
    const i64 at = (i64)blockIdx.x * (THREADS / WARP) + threadIdx.x / WARP; // of (B,T,NH)
    if (at >= (i64)x.B * x.T * x.NH) return;
    float sum = 0;
    for (int d = threadIdx.x % WARP; d < x.HS; d += WARP)
        sum = fmaf(widen(x.dout[at * x.HS + d]), widen(x.out[at * x.HS + d]), sum);
    sum = warp_sum(sum);
    const i64 token = at / x.NH, b = token / x.T;
    if (threadIdx.x % WARP == 0) x.delta[(b * x.NH + at % x.NH) * x.T + token % x.T] = sum;
}

/* Of a query and a key, the probability and the gradient of the score, but for 1/sqrt(HS). */
DEVICE void differentiate(float &p, float &ds, const Gradients &x, i64 head, int query, int key) {
    const bool seen = key <= query && query < x.T;
    p = seen ? exp2f(fmaf(p, x.scale, -x.lse[head * x.T + query] * LOG2E)) : 0.f;
    ds = seen ? p * (ds - x.delta[head * x.T + query]) : 0.f;
}

/* The gradients of a tile of queries. */
KERNEL __launch_bounds__(THREADS, 2) backward_plain_queries(Gradients x) {
    __shared__ Board board;
    const int HS = x.HS, T = x.T, parts = tiles_of(HS), channel = blockIdx.x % parts * TILE;
    const Share share =
        share_of(blockIdx.x / parts, tiles_of(T), TILE, x.B * x.NH, x.NH, true);
    const i64 head = (i64)share.b * x.NH + share.h, channel_of_head = (i64)share.h * HS;
    const int C = x.NH * HS, token = 3 * C;
    const i64 row = (i64)share.b * T, at = row * C + channel_of_head;
    const i64 at3 = row * token + channel_of_head;
    const int queries = T - share.first;
    const Some q = {x.qkv + at3 + (i64)share.first * token, token, queries};
    const Some dout = {x.dout + at + (i64)share.first * C, C, queries};
    Part dq = {}, p, ds;
    for (int key = 0; key < min(T, share.first + TILE); key += TILE) {
        const Some k = {x.qkv + at3 + (i64)key * token + C, token, T - key};
        dot_rows(p, board, q, k, HS);
        dot_rows(ds, board, dout, {k.first + C, token, T - key}, HS);
        for (int i = 0; i < PART; i++)
            for (int j = 0; j < PART; j++)
                differentiate(p[i][j], ds[i][j], x, head, share.first + row_of_part() + i,
                              key + column_of_part() + j);
        add_rows(dq, board, ds, k, channel, HS);
    }
    const float scale = x.scale * LN2, scales[PART] = {scale, scale, scale, scale};
    store_rows(x.dqkv + at3 + (i64)share.first * token, token, queries, channel, HS, dq, scales);
}

/* The gradients of a tile of keys and their values, which the queries from them on look at. */
KERNEL __launch_bounds__(THREADS, 2) backward_plain_keys(Gradients x) {
    __shared__ Board board;
    const int HS = x.HS, T = x.T, parts = tiles_of(HS), channel = blockIdx.x % parts * TILE;
    const Share share =
        share_of(blockIdx.x / parts, tiles_of(T), TILE, x.B * x.NH, x.NH, false);
    const i64 head = (i64)share.b * x.NH + share.h, channel_of_head = (i64)share.h * HS;
    const int C = x.NH * HS, token = 3 * C;
    const i64 row = (i64)share.b * T, at = row * C + channel_of_head;
    const i64 at3 = row * token + channel_of_head;
    const int keys = T - share.first;
    const Some k = {x.qkv + at3 + (i64)share.first * token + C, token, keys};
    const Some v = {k.first + C, token, keys};
    Part dk = {}, dv = {}, p, ds;
    for (int query = share.first; query < T; query += TILE) {
        const Some q = {x.qkv + at3 + (i64)query * token, token, T - query};
        const Some dout = {x.dout + at + (i64)query * C, C, T - query};
        dot_rows(p, board, k, q, HS);
        dot_rows(ds, board, v, dout, HS);
        for (int i = 0; i < PART; i++)
            for (int j = 0; j < PART; j++)
                differentiate(p[i][j], ds[i][j], x, head, query + column_of_part() + j,
                              share.first + row_of_part() + i);
        add_rows(dv, board, p, dout, channel, HS);
        add_rows(dk, board, ds, q, channel, HS);
    }
    const float scale = x.scale * LN2, scales[PART] = {scale, scale, scale, scale};
    const float ones[PART] = {1, 1, 1, 1};
    real *const to = x.dqkv + at3 + (i64)share.first * token + C;
    store_rows(to, token, keys, channel, HS, dk, scales);
    store_rows(to + C, token, keys, channel, HS, dv, ones);
}

static u32 blocks_of(int B, int T, int NH, int HS) {
    return (u32)(ceil_div(T, TILE) * ceil_div(HS, TILE) * B * NH);
}

void REAL(attend_plainly)(const Attention &x) {
    launch(forward_plain, blocks_of(x.B, x.T, x.NH, x.HS), THREADS, 0, x);
}

void REAL(differentiate_plainly)(const Gradients &x) {
    launch(sum_of_products, (u32)ceil_div((i64)x.B * x.T * x.NH, THREADS / WARP), THREADS, 0, x);
    launch(backward_plain_queries, blocks_of(x.B, x.T, x.NH, x.HS), THREADS, 0, x);
    launch(backward_plain_keys, blocks_of(x.B, x.T, x.NH, x.HS), THREADS, 0, x);
}
