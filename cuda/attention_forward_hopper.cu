/* attention_forward for Hopper: while the tensor cores take one tile's probabilities times values, the
 * next tile's scores are made, and become probabilities (Shah et al. 2024). */
#define LLM_BF16 // the only kind
#include "attention_hopper.h"

/* Of a lane's two rows: the score that their exponentials are relative to, which is the largest so far
 * or not much below it, and the lane's part of their sum. */
struct Softmax {
    float base[2], total[2];
};

/* Scores become exponentials. Where one would be above 2^8 the base moves up; true if one has moved:
 * what was summed before is then to be scaled by `keep`. A lane looks at its own scores only, as long
 * as it need not. */
template <int N>
DEVICE bool soften(float (&s)[N / 8][4], Softmax &softmax, float (&keep)[2], float scale) {
    float most[2];
#pragma unroll
    for (int i = 0; i < 2; i++) {
        most[i] = s[0][2 * i];
#pragma unroll
        for (int n = 0; n < N / 8; n++)
            most[i] = fmaxf(most[i], fmaxf(s[n][2 * i], s[n][2 * i + 1]));
    }
    const float limit = 8 / scale;
    const bool is_moved = __any_sync(ALL_LANES, most[0] - softmax.base[0] > limit ||
                                                    most[1] - softmax.base[1] > limit);
#pragma unroll
    for (int i = 0; i < 2; i++) {
        if (is_moved) {
            most[i] = fmaxf(most[i], __shfl_xor_sync(ALL_LANES, most[i], 1));
            most[i] = fmaxf(most[i], __shfl_xor_sync(ALL_LANES, most[i], 2));
            const bool moves = most[i] - softmax.base[i] > limit;
            keep[i] = moves ? exp2_fast((softmax.base[i] - most[i]) * scale) : 1;
            softmax.total[i] *= keep[i];
            if (moves) softmax.base[i] = most[i];
        }
        const float base = softmax.base[i] * scale;
        float total = softmax.total[i];
#pragma unroll
        for (int n = 0; n < N / 8; n++)
#pragma unroll
            for (int j = 2 * i; j < 2 * i + 2; j++) {
                s[n][j] = exp2_fast(fmaf(s[n][j], scale, -base));
                total += s[n][j];
            }
        softmax.total[i] = total;
    }
    return is_moved;
}

/* Keys from `key` on that come after a lane's queries count nothing. */
template <int N> DEVICE void mask(float (&s)[N / 8][4], int key, int query) {
#pragma unroll
    for (int n = 0; n < N / 8; n++)
#pragma unroll
        for (int i = 0; i < 4; i++)
            if (key + n * 8 + (int)threadIdx.x % 4 * 2 + i % 2 > query + i / 2 * 8)
                s[n][i] = -INFINITY;
}

/* N keys a tile; BLOCKS blocks a multiprocessor. The first warp fetches: what its own group has no
 * use for, the other group's last tile, is among the first three that are on their way ahead. */
template <int D, int W, int N, int STAGES, int BLOCKS>
KERNEL __launch_bounds__(THREADS<W>, BLOCKS)
forward_hopper(const __grid_constant__ TensorMap qkv, bf16 *out, float *lse, int B, int T, int NH,
               float scale) {
#ifdef HAS_WARPGROUPS
    static_assert(W <= 2 && STAGES >= 3, "or the first group ends too early");
    constexpr int ROWS = W * GROUP_ROWS, SIZE = N * D;
    DYNAMIC_SHARED(bf16, queries);
    bf16 *const keys = queries + ROWS * D, *const values = keys + STAGES * SIZE;
    __shared__ Ring<STAGES> keys_ring, values_ring;
    __shared__ Barrier queries_full;
    const Share share = share_of(blockIdx.x, (T + ROWS - 1) / ROWS, ROWS, (i64)B * NH, NH, true);
    const int C = NH * D, tiles = (min(T, share.first + ROWS) + N - 1) / N;
    const auto fetch_tile = [&](Ring<STAGES> &ring, bf16 *tile, int channel, int t) {
        if (threadIdx.x >= WARP || t >= tiles) return;
        await_empty(ring, t);
        if (!is_elected()) return;
        Barrier *const full = &ring.full[t % STAGES];
        barrier_expect(full, SIZE * (int)sizeof(bf16));
        fetch<D>(tile + t % STAGES * SIZE, N, qkv, full, channel + share.h * D, t * N, share.b);
    };
    if (threadIdx.x == 0) {
        const int groups = min(W, (T - share.first + GROUP_ROWS - 1) / GROUP_ROWS); // with rows
        ring_init(keys_ring, 1, groups);
        ring_init(values_ring, 1, groups);
        barrier_init(&queries_full, 1);
        barriers_ready();
        barrier_expect(&queries_full, ROWS * D * (int)sizeof(bf16));
        fetch<D>(queries, ROWS, qkv, &queries_full, share.h * D, share.first, share.b);
    }
    __syncthreads();
    for (int t = 0; t < STAGES; t++) {
        fetch_tile(keys_ring, keys, C, t);
        fetch_tile(values_ring, values, 2 * C, t);
    }

    const int first = group_row(share.first), query = lane_row(first);
    const int own = first < T ? (min(T, first + GROUP_ROWS) + N - 1) / N : 0; // tiles it sees
    const bf16 *const q = queries + (first - share.first) * 64;
    float s[N / 8][4], sums[D / 8][4] = {};
    u32 weights[N / 16][4];
    Softmax softmax = {{-INFINITY, -INFINITY}, {}};
    float keep[2];
    barrier_wait(&queries_full, 0);
    if (own > 0) {
        await_full(keys_ring, 0);
        start_products();
        dot_tiles<D, N>(s, q, ROWS, keys);
        commit_products();
        wait_products<0>();
        release(keys_ring, 0);
        if (own == 1) mask<N>(s, 0, query);
        soften<N>(s, softmax, keep, scale);
        to_operand<N>(weights, s);
    }
    for (int t = 1; t < own; t++) {
        await_full(keys_ring, t);
        start_products();
        dot_tiles<D, N>(s, q, ROWS, keys + t % STAGES * SIZE);
        commit_products();
        await_full(values_ring, t - 1);
        add_tile<D, N>(sums, weights, values + (t - 1) % STAGES * SIZE);
        commit_products();
        fetch_tile(keys_ring, keys, C, t - 1 + STAGES);
        if (t > 1) fetch_tile(values_ring, values, 2 * C, t - 2 + STAGES);
        wait_products<1>();
        release(keys_ring, t);
        if (t == own - 1) mask<N>(s, t * N, query); // no other begins after a query's end
        const bool is_moved = soften<N>(s, softmax, keep, scale);
        wait_products<0>();
        release(values_ring, t - 1);
        if (is_moved) {
#pragma unroll
            for (int n = 0; n < D / 8; n++)
#pragma unroll
                for (int i = 0; i < 4; i++) sums[n][i] *= keep[i / 2];
        }
        to_operand<N>(weights, s);
    }
    if (own > 0) {
        await_full(values_ring, own - 1);
        start_products();
        add_tile<D, N>(sums, weights, values + (own - 1) % STAGES * SIZE);
        commit_products();
        wait_products<0>();
    }

    float inverse[2];
#pragma unroll
    for (int i = 0; i < 2; i++) {
        float total = softmax.total[i];
        total += __shfl_xor_sync(ALL_LANES, total, 1);
        total += __shfl_xor_sync(ALL_LANES, total, 2);
        inverse[i] = 1 / total;
        const int row = query + i * 8;
        if (lse && threadIdx.x % 4 == 0 && row < T)
            lse[((i64)share.b * NH + share.h) * T + row] =
                (softmax.base[i] * scale + log2f(total)) * LN2;
    }
    store_sums<D>(out + (i64)share.b * T * C + share.h * D, C, query, T, sums, inverse[0],
                  inverse[1]);
#endif
}

template <int D, int W, int N, int STAGES, int BLOCKS>
static bool forward(bf16 *out, float *lse, const bf16 *qkv, int B, int T, int NH) {
    constexpr int ROWS = W * GROUP_ROWS;
    TensorMap map;
    if (!make_map(&map, qkv, 3 * NH * D, T, B)) return false;
    launch(forward_hopper<D, W, N, STAGES, BLOCKS>, (u32)(ceil_div(T, ROWS) * B * NH), THREADS<W>,
           (ROWS + 2 * STAGES * N) * D * sizeof(bf16), map, out, lse, B, T, NH, score_scale(D));
    return true;
}

bool attention_forward_hopper(bf16 *out, float *lse, const bf16 *qkv, int B, int T, int NH, int HS) {
    if (!has_warpgroups()) return false;
    if (HS == 64) return forward<64, 2, 64, 4, 2>(out, lse, qkv, B, T, NH);
    if (HS == 128) return forward<128, 2, 128, 3, 1>(out, lse, qkv, B, T, NH);
    return false;
}
