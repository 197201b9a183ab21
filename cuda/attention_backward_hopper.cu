/* attention_backward for Hopper, in two kernels that need no sums across blocks: one owns queries, past
 * which keys stream, for dq, and makes delta; one owns keys, past which queries stream, for dk and dv.
 * Both make the probabilities again. */
#define LLM_BF16 // the only kind
#include "attention_hopper.h"
#include "product.h"

constexpr int TILE = 64; // rows that stream past at a time

/* Of a tile of queries on its way: log2 of the sum of exponentials of each, and sum of dout·out. */
struct QueryNumbers {
    float lse[TILE], delta[TILE];
};

/* Probabilities from a tile's scores and log2 of its rows' sums of exponentials. */
DEVICE float probability(float score, float scale, float lse) {
    return exp2_fast(fmaf(score, scale, -lse));
}

/* to (D) = the sums over a block's rows of numbers that lie as store_sums takes them. Rows from T on are
 * zeros: their queries have no weight, and no query sees their keys. */
template <int D>
DEVICE void sum_rows(float *to, float (&board)[GROUP / WARP][D], const float (&numbers)[D / 8][4],
                     float factor) {
    const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
#pragma unroll
    for (int n = 0; n < D / 8; n++)
#pragma unroll
        for (int i = 0; i < 2; i++) {
            float sum = numbers[n][i] + numbers[n][2 + i];
            for (int distance = 4; distance < WARP; distance *= 2)
                sum += __shfl_xor_sync(ALL_LANES, sum, distance);
            if (lane < 4) board[warp][n * 8 + lane * 2 + i] = sum;
        }
    __syncthreads();
    if (threadIdx.x >= D) return;
    float sum = 0;
    for (int w = 0; w < GROUP / WARP; w++) sum += board[w][threadIdx.x];
    to[threadIdx.x] = sum * factor;
}

/* Where the sums of a share's rows of q begin; those of k and v are C and 2·C further on. */
DEVICE float *sums_of(const Gradients &x, const Share &share) {
    const i64 part = (i64)share.b * ((x.T + TILE - 1) / TILE) + share.first / TILE;
    return x.sums + part * 3 * x.NH * x.HS + share.h * x.HS;
}

/* The block owns 64 keys. Scores are made transposed: their rows are keys, their columns a tile's
 * queries. */
template <int D, int STAGES, int BLOCKS>
KERNEL __launch_bounds__(GROUP, BLOCKS)
keys_hopper(const __grid_constant__ TensorMap qkv, const __grid_constant__ TensorMap douts,
            Gradients x) {
#ifdef HAS_WARPGROUPS
    constexpr int SIZE = TILE * D;
    DYNAMIC_SHARED(bf16, keys);
    bf16 *const values = keys + SIZE, *const queries = values + SIZE;
    bf16 *const dout = queries + STAGES * SIZE;
    __shared__ Ring<STAGES> ring;
    __shared__ QueryNumbers numbers[STAGES];
    __shared__ Barrier own_full;
    __shared__ float boards[2][GROUP / WARP][D];
    const int T = x.T, C = x.NH * D, all = (T + TILE - 1) / TILE;
    const Share share = share_of(blockIdx.x, all, TILE, (i64)x.B * x.NH, x.NH, false);
    const int start = share.first / TILE, tiles = all - start; // of earlier ones no query sees them
    const int channel = share.h * D;
    const i64 line = ((i64)share.b * x.NH + share.h) * T;
    if (threadIdx.x == 0) {
        ring_init(ring, 1 + GROUP, 1);
        barrier_init(&own_full, 1);
        barriers_ready();
        barrier_expect(&own_full, 2 * SIZE * (int)sizeof(bf16));
        fetch<D>(keys, TILE, qkv, &own_full, C + channel, share.first, share.b);
        fetch<D>(values, TILE, qkv, &own_full, 2 * C + channel, share.first, share.b);
    }
    __syncthreads();
    // Of a tile's queries each thread brings one number; it is loaded long before its place is free.
    const bool brings_lse = threadIdx.x < TILE;
    const auto load_number = [&](int t) {
        const int row = (start + t) * TILE + (int)threadIdx.x % TILE;
        if (row >= T) return brings_lse ? INFINITY : 0.f; // a query that does not exist has no weight
        return (brings_lse ? x.lse : x.delta)[line + row];
    };
    const auto fetch_tile = [&](int t, float number) {
        if (t >= tiles) return;
        const int stage = t % STAGES, row = (start + t) * TILE;
        Barrier *const full = &ring.full[stage];
        await_empty(ring, t);
        if (threadIdx.x == 0) { // is_elected() would take registers that are not left
            barrier_expect(full, 2 * SIZE * (int)sizeof(bf16));
            fetch<D>(queries + stage * SIZE, TILE, qkv, full, channel, row, share.b);
            fetch<D>(dout + stage * SIZE, TILE, douts, full, channel, row, share.b);
        }
        not_before(number);
        if (brings_lse) numbers[stage].lse[threadIdx.x % TILE] = number * LOG2E;
        else numbers[stage].delta[threadIdx.x % TILE] = number;
        barrier_arrive(full);
    };
    for (int t = 0; t < STAGES; t++) fetch_tile(t, load_number(t));

    const int key = lane_row(share.first), c = threadIdx.x % 4 * 2;
    float dk[D / 8][4] = {}, dv[D / 8][4] = {}, s[TILE / 8][4], dp[TILE / 8][4];
    barrier_wait(&own_full, 0);
    for (int t = 0; t < tiles; t++) {
        const QueryNumbers &of = numbers[t % STAGES];
        const int at = t % STAGES * SIZE;
        float p[TILE / 8][4];
        u32 weights[TILE / 16][4], slopes[TILE / 16][4];
        const float next = load_number(t + STAGES);
        await_full(ring, t);
        start_products();
        dot_tiles<D, TILE>(s, keys, TILE, queries + at);
        commit_products();
        dot_tiles<D, TILE>(dp, values, TILE, dout + at);
        commit_products();
        wait_products<1>();
#pragma unroll
        for (int n = 0; n < TILE / 8; n++)
#pragma unroll
            for (int i = 0; i < 4; i++) {
                const int column = n * 8 + c + i % 2;
                p[n][i] = probability(s[n][i], x.scale, of.lse[column]);
                if (t == 0 && key + i / 2 * 8 > share.first + column) p[n][i] = 0;
            }
        to_operand<TILE>(weights, p);
        start_products();
        add_tile<D, TILE>(dv, weights, dout + at); // while slopes are made
        commit_products();
        wait_products<1>();
#pragma unroll
        for (int n = 0; n < TILE / 8; n++)
#pragma unroll
            for (int i = 0; i < 4; i++) p[n][i] *= dp[n][i] - of.delta[n * 8 + c + i % 2];
        to_operand<TILE>(slopes, p);
        start_products();
        add_tile<D, TILE>(dk, slopes, queries + at);
        commit_products();
        wait_products<0>();
        release(ring, t);
        fetch_tile(t + STAGES, next);
    }
    bf16 *const to = x.dqkv + (i64)share.b * T * 3 * C + channel;
    store_sums<D>(to + C, 3 * C, key, T, dk, x.scale * LN2, x.scale * LN2);
    store_sums<D>(to + 2 * C, 3 * C, key, T, dv, 1, 1);
    if (!x.sums) return;
    float *const sums = sums_of(x, share);
    sum_rows<D>(sums + C, boards[0], dk, x.scale * LN2);
    sum_rows<D>(sums + 2 * C, boards[1], dv, 1);
#endif
}

/* The sum of dout·out over D channels of one row, of which four neighbouring lanes take a part each. */
template <int D> DEVICE float sum_of_products(const bf16 *dout, const bf16 *out) {
    float sum = 0;
#pragma unroll
    for (int at = threadIdx.x % 4 * 8; at < D; at += 32) {
        const Pack<bf16> a = load_pack(dout + at), b = load_pack(out + at);
#pragma unroll
        for (int i = 0; i < 8; i++) sum = fmaf(widen(a.at[i]), widen(b.at[i]), sum);
    }
    sum += __shfl_xor_sync(ALL_LANES, sum, 1);
    return sum + __shfl_xor_sync(ALL_LANES, sum, 2);
}

/* The block owns 64 queries. */
template <int D, int STAGES, int BLOCKS>
KERNEL __launch_bounds__(GROUP, BLOCKS)
queries_hopper(const __grid_constant__ TensorMap qkv, const __grid_constant__ TensorMap douts,
               Gradients x) {
#ifdef HAS_WARPGROUPS
    constexpr int SIZE = TILE * D;
    DYNAMIC_SHARED(bf16, queries);
    bf16 *const dout = queries + SIZE, *const keys = dout + SIZE;
    bf16 *const values = keys + STAGES * SIZE;
    __shared__ Ring<STAGES> ring;
    __shared__ Barrier own_full;
    __shared__ float board[GROUP / WARP][D];
    const int T = x.T, C = x.NH * D, all = (T + TILE - 1) / TILE;
    const Share share = share_of(blockIdx.x, all, TILE, (i64)x.B * x.NH, x.NH, true);
    const int tiles = share.first / TILE + 1, channel = share.h * D; // the last on the diagonal
    const auto fetch_tile = [&](int t) {
        if (threadIdx.x >= WARP || t >= tiles) return;
        const int at = t % STAGES * SIZE;
        Barrier *const full = &ring.full[t % STAGES];
        await_empty(ring, t);
        if (!is_elected()) return;
        barrier_expect(full, 2 * SIZE * (int)sizeof(bf16));
        fetch<D>(keys + at, TILE, qkv, full, C + channel, t * TILE, share.b);
        fetch<D>(values + at, TILE, qkv, full, 2 * C + channel, t * TILE, share.b);
    };
    if (threadIdx.x == 0) {
        ring_init(ring, 1, 1);
        barrier_init(&own_full, 1);
        barriers_ready();
        barrier_expect(&own_full, 2 * SIZE * (int)sizeof(bf16));
        fetch<D>(queries, TILE, qkv, &own_full, channel, share.first, share.b);
        fetch<D>(dout, TILE, douts, &own_full, channel, share.first, share.b);
    }
    __syncthreads();
    for (int t = 0; t < STAGES; t++) fetch_tile(t);

    const int query = lane_row(share.first), c = threadIdx.x % 4 * 2;
    float dq[D / 8][4] = {}, s[TILE / 8][4], dp[TILE / 8][4], lse[2], delta[2];
#pragma unroll
    for (int i = 0; i < 2; i++) {
        const int row = query + i * 8;
        const i64 at = ((i64)share.b * x.NH + share.h) * T + row;
        const i64 from = ((i64)share.b * T + min(row, T - 1)) * C + channel;
        delta[i] = sum_of_products<D>(x.dout + from, x.out + from);
        lse[i] = row < T ? x.lse[at] * LOG2E : INFINITY;
        if (row < T && threadIdx.x % 4 == 0) x.delta[at] = delta[i];
    }
    barrier_wait(&own_full, 0);
    for (int t = 0; t < tiles; t++) {
        const int at = t % STAGES * SIZE;
        float p[TILE / 8][4];
        u32 slopes[TILE / 16][4];
        await_full(ring, t);
        start_products();
        dot_tiles<D, TILE>(s, queries, TILE, keys + at);
        commit_products();
        dot_tiles<D, TILE>(dp, dout, TILE, values + at);
        commit_products();
        wait_products<1>();
#pragma unroll
        for (int n = 0; n < TILE / 8; n++)
#pragma unroll
            for (int i = 0; i < 4; i++) {
                p[n][i] = probability(s[n][i], x.scale, lse[i / 2]);
                if (t == tiles - 1 && share.first + n * 8 + c + i % 2 > query + i / 2 * 8)
                    p[n][i] = 0;
            }
        wait_products<0>();
#pragma unroll
        for (int n = 0; n < TILE / 8; n++)
#pragma unroll
            for (int i = 0; i < 4; i++) p[n][i] *= dp[n][i] - delta[i / 2];
        to_operand<TILE>(slopes, p);
        start_products();
        add_tile<D, TILE>(dq, slopes, keys + at);
        commit_products();
        wait_products<0>();
        release(ring, t);
        fetch_tile(t + STAGES);
    }
    store_sums<D>(x.dqkv + (i64)share.b * T * 3 * C + channel, 3 * C, query, T, dq, x.scale * LN2,
                  x.scale * LN2);
    if (x.sums) sum_rows<D>(sums_of(x, share), board, dq, x.scale * LN2);
#endif
}

/* Launches one of the two. */
template <typename Kernel>
static void launch_rows(Kernel kernel, int stages, const TensorMap &qkv, const TensorMap &douts,
                        const Gradients &x) {
    launch(kernel, (u32)(ceil_div(x.T, TILE) * x.B * x.NH), GROUP,
           2 * (1 + stages) * TILE * x.HS * sizeof(bf16), qkv, douts, x);
}

bool differentiate_hopper(Gradients x, float *sums, int accumulate) {
    const int C = x.NH * x.HS;
    const i64 tokens = (i64)x.B * x.T, parts = x.B * ceil_div(x.T, TILE);
    TensorMap qkv, douts;
    if (!has_warpgroups() || (x.HS != 64 && x.HS != 128)) return false;
    if (!make_map(&qkv, x.qkv, 3 * C, x.T, x.B)) return false;
    if (!make_map(&douts, x.dout, C, x.T, x.B)) return false;
    // Scratch has room for them behind delta, but where a block has a single row, whose sums are no fewer.
    if (sums && x.T > 1) x.sums = x.delta + ceil_div(tokens * x.NH, 4) * 4;
    if (x.HS == 64) {
        launch_rows(queries_hopper<64, 2, 4>, 2, qkv, douts, x);
        launch_rows(keys_hopper<64, 2, 3>, 2, qkv, douts, x);
    } else {
        launch_rows(queries_hopper<128, 2, 2>, 2, qkv, douts, x);
        launch_rows(keys_hopper<128, 2, 1>, 2, qkv, douts, x);
    }
    if (x.sums) column_sums(sums, x.sums, false, (int)parts, 3 * C, accumulate);
    else if (sums) column_sums(sums, x.dqkv, true, (int)tokens, 3 * C, accumulate);
    return true;
}
