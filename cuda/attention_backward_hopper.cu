/* attention_backward for Hopper, in two kernels that need no sums across blocks: one owns queries, past
 * which keys stream, for dq, and makes delta; one owns keys, past which queries stream, for dk and dv.
 * Both make the probabilities again. */
#define LLM_BF16 // the only kind
#include "attention_hopper.h"

constexpr int TILE = 64; // rows that stream past at a time

/* Of a tile of queries on its way: log2 of the sum of exponentials of each, and sum of dout·out. */
struct QueryNumbers {
    float lse[TILE], delta[TILE];
};

template <int D> constexpr int KEY_STAGES = D == 64 ? 4 : 3;

/* Scores are made transposed: a group's rows are keys, its columns a tile's queries. */
template <int D, int W>
KERNEL __launch_bounds__(THREADS<W>, 1)
keys_hopper(const __grid_constant__ TensorMap qkv, const __grid_constant__ TensorMap douts,
            Gradients x) {
#ifdef HAS_WARPGROUPS
    constexpr int ROWS = W * GROUP_ROWS, STAGES = KEY_STAGES<D>;
    DYNAMIC_SHARED(bf16, keys);
    bf16 *const values = keys + ROWS * D, *const queries = values + ROWS * D;
    bf16 *const dout = queries + STAGES * TILE * D;
    __shared__ Ring<STAGES> ring;
    __shared__ QueryNumbers numbers[STAGES];
    __shared__ Barrier own_full;
    const int T = x.T, C = x.NH * D;
    const Share share = share_of(blockIdx.x, (T + ROWS - 1) / ROWS, ROWS, (i64)x.B * x.NH, x.NH, false);
    const int start = share.first / TILE, tiles = (T + TILE - 1) / TILE - start;
    if (threadIdx.x == 0) {
        ring_init(ring, 1 + WARP, W);
        barrier_init(&own_full, 1);
        barriers_ready();
    }
    __syncthreads();

    if (threadIdx.x >= W * GROUP) {
        fewer_registers<COPYING_REGISTERS<W>>();
        const int lane = threadIdx.x % GROUP;
        if (lane >= WARP) return;
        if (lane == 0) {
            barrier_expect(&own_full, 2 * ROWS * D * (int)sizeof(bf16));
            fetch<D>(keys, ROWS, qkv, &own_full, C + share.h * D, share.first, share.b);
            fetch<D>(values, ROWS, qkv, &own_full, 2 * C + share.h * D, share.first, share.b);
        }
        const i64 at = ((i64)share.b * x.NH + share.h) * T;
        for (int t = 0; t < tiles; t++) {
            const int stage = t % STAGES, row = (start + t) * TILE;
            Barrier *const full = &ring.full[0][stage];
            await_empty(ring, 0, t);
            if (lane == 0) {
                barrier_expect(full, 2 * TILE * D * (int)sizeof(bf16));
                fetch<D>(queries + stage * TILE * D, TILE, qkv, full, share.h * D, row, share.b);
                fetch<D>(dout + stage * TILE * D, TILE, douts, full, share.h * D, row, share.b);
            }
            for (int i = lane; i < TILE; i += WARP) { // a query that does not exist has no weight
                const bool present = row + i < T;
                numbers[stage].lse[i] = present ? x.lse[at + row + i] * LOG2E : INFINITY;
                numbers[stage].delta[i] = present ? x.delta[at + row + i] : 0;
            }
            barrier_arrive(full);
        }
        return;
    }

    more_registers<REGISTERS<W>>();
    const int first = group_row(share.first), key = lane_row(first), c = threadIdx.x % 4 * 2;
    const int offset = (first - share.first) * 64;
    // Of tiles before the diagonal no query sees the group's keys.
    const int before = first < T ? first / TILE - start : tiles;
    float dk[D / 8][4] = {}, dv[D / 8][4] = {};
    barrier_wait(&own_full, 0);
    for (int t = 0; t < tiles; t++) {
        const int stage = t % STAGES;
        await_full(ring, 0, t);
        if (t < before) {
            release(ring, 0, t);
            continue;
        }
        const bf16 *const q = queries + stage * TILE * D, *const d = dout + stage * TILE * D;
        float p[TILE / 8][4], dp[TILE / 8][4];
        u32 weights[TILE / 16][4];
        start_products();
        dot_tiles<D, TILE>(p, keys + offset, ROWS, q);
        commit_products();
        dot_tiles<D, TILE>(dp, values + offset, ROWS, d);
        commit_products();
        wait_products<1>();
#pragma unroll
        for (int n = 0; n < TILE / 8; n++)
#pragma unroll
            for (int i = 0; i < 4; i++) {
                const int column = n * 8 + c + i % 2;
                p[n][i] = exp2_fast(fmaf(p[n][i], x.scale, -numbers[stage].lse[column]));
                if (t == before && key + i / 2 * 8 > first + column) p[n][i] = 0;
            }
        to_operand<TILE>(weights, p);
        start_products();
        add_tile<D, TILE>(dv, weights, d);
        commit_products();
        wait_products<1>(); // dp is there
#pragma unroll
        for (int n = 0; n < TILE / 8; n++)
#pragma unroll
            for (int i = 0; i < 4; i++)
                p[n][i] *= dp[n][i] - numbers[stage].delta[n * 8 + c + i % 2];
        wait_products<0>();
        to_operand<TILE>(weights, p);
        start_products();
        add_tile<D, TILE>(dk, weights, q);
        commit_products();
        wait_products<0>();
        release(ring, 0, t);
    }
    bf16 *const to = x.dqkv + (i64)share.b * T * 3 * C + share.h * D;
    store_sums<D>(to + C, 3 * C, key, T, dk, x.scale * LN2, x.scale * LN2);
    store_sums<D>(to + 2 * C, 3 * C, key, T, dv, 1, 1);
#endif
}

constexpr int QUERY_STAGES = 3;

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

template <int D, int W>
KERNEL __launch_bounds__(THREADS<W>, 1)
queries_hopper(const __grid_constant__ TensorMap qkv, const __grid_constant__ TensorMap douts,
               Gradients x) {
#ifdef HAS_WARPGROUPS
    constexpr int ROWS = W * GROUP_ROWS, STAGES = QUERY_STAGES;
    DYNAMIC_SHARED(bf16, queries);
    bf16 *const dout = queries + ROWS * D, *const keys = dout + ROWS * D;
    bf16 *const values = keys + STAGES * TILE * D;
    __shared__ Ring<STAGES> ring;
    __shared__ Barrier own_full;
    const int T = x.T, C = x.NH * D;
    const Share share = share_of(blockIdx.x, (T + ROWS - 1) / ROWS, ROWS, (i64)x.B * x.NH, x.NH, true);
    const int tiles = (min(T, share.first + ROWS) + TILE - 1) / TILE;
    if (threadIdx.x == 0) {
        ring_init(ring, 1, W);
        barrier_init(&own_full, 1);
        barriers_ready();
    }
    __syncthreads();

    if (threadIdx.x >= W * GROUP) {
        fewer_registers<COPYING_REGISTERS<W>>();
        if (threadIdx.x % GROUP) return;
        barrier_expect(&own_full, 2 * ROWS * D * (int)sizeof(bf16));
        fetch<D>(queries, ROWS, qkv, &own_full, share.h * D, share.first, share.b);
        fetch<D>(dout, ROWS, douts, &own_full, share.h * D, share.first, share.b);
        for (int t = 0; t < tiles; t++) {
            const int stage = t % STAGES;
            Barrier *const full = &ring.full[0][stage];
            await_empty(ring, 0, t);
            barrier_expect(full, 2 * TILE * D * (int)sizeof(bf16));
            fetch<D>(keys + stage * TILE * D, TILE, qkv, full, C + share.h * D, t * TILE, share.b);
            fetch<D>(values + stage * TILE * D, TILE, qkv, full, 2 * C + share.h * D, t * TILE,
                     share.b);
        }
        return;
    }

    more_registers<REGISTERS<W>>();
    const int first = group_row(share.first), query = lane_row(first), c = threadIdx.x % 4 * 2;
    const int offset = (first - share.first) * 64;
    const int last = first < T ? first / TILE : -1; // the tile on the diagonal
    float dq[D / 8][4] = {}, lse[2], delta[2];
#pragma unroll
    for (int i = 0; i < 2; i++) {
        const int row = query + i * 8;
        const i64 at = ((i64)share.b * x.NH + share.h) * T + row;
        const i64 channel = ((i64)share.b * T + min(row, T - 1)) * C + share.h * D;
        delta[i] = sum_of_products<D>(x.dout + channel, x.out + channel);
        lse[i] = row < T ? x.lse[at] * LOG2E : INFINITY;
        if (row < T && threadIdx.x % 4 == 0) x.delta[at] = delta[i];
    }
    barrier_wait(&own_full, 0);
    for (int t = 0; t < tiles; t++) {
        const int stage = t % STAGES;
        await_full(ring, 0, t);
        if (t > last) {
            release(ring, 0, t);
            continue;
        }
        const bf16 *const k = keys + stage * TILE * D, *const v = values + stage * TILE * D;
        float p[TILE / 8][4], dp[TILE / 8][4];
        u32 weights[TILE / 16][4];
        start_products();
        dot_tiles<D, TILE>(p, queries + offset, ROWS, k);
        commit_products();
        dot_tiles<D, TILE>(dp, dout + offset, ROWS, v);
        commit_products();
        wait_products<1>();
#pragma unroll
        for (int n = 0; n < TILE / 8; n++)
#pragma unroll
            for (int i = 0; i < 4; i++) {
                p[n][i] = exp2_fast(fmaf(p[n][i], x.scale, -lse[i / 2]));
                if (t == last && first + n * 8 + c + i % 2 > query + i / 2 * 8) p[n][i] = 0;
            }
        wait_products<0>();
#pragma unroll
        for (int n = 0; n < TILE / 8; n++)
#pragma unroll
            for (int i = 0; i < 4; i++) p[n][i] *= dp[n][i] - delta[i / 2];
        to_operand<TILE>(weights, p);
        start_products();
        add_tile<D, TILE>(dq, weights, k);
        commit_products();
        wait_products<0>();
        release(ring, 0, t);
    }
    store_sums<D>(x.dqkv + (i64)share.b * T * 3 * C + share.h * D, 3 * C, query, T, dq,
                  x.scale * LN2, x.scale * LN2);
#endif
}

/* Launches one of the two, W groups a block. */
template <int W, typename Kernel>
static void launch_rows(Kernel kernel, int stages, int D, const TensorMap &qkv,
                        const TensorMap &douts, const Gradients &x) {
    constexpr int ROWS = W * GROUP_ROWS;
    launch(kernel, (u32)(ceil_div(x.T, ROWS) * x.B * x.NH), THREADS<W>,
           2 * (ROWS + stages * TILE) * D * sizeof(bf16), qkv, douts, x);
}

template <int D> static bool differentiate(const Gradients &x) {
    TensorMap qkv, douts;
    if (!make_map(&qkv, x.qkv, 3 * x.NH * D, x.T, x.B)) return false;
    if (!make_map(&douts, x.dout, x.NH * D, x.T, x.B)) return false;
    launch_rows<GROUPS<D>>(queries_hopper<D, GROUPS<D>>, QUERY_STAGES, D, qkv, douts, x);
    launch_rows<2>(keys_hopper<D, 2>, KEY_STAGES<D>, D, qkv, douts, x);
    return true;
}

bool differentiate_hopper(const Gradients &x) {
    if (!has_warpgroups()) return false;
    return x.HS == 64 ? differentiate<64>(x) : x.HS == 128 && differentiate<128>(x);
}
