/* attention_forward for Hopper: while the tensor cores take one tile's probabilities times values, the
 * next tile's scores are made, and become probabilities (Shah et al. 2024). */
#define LLM_BF16 // the only kind
#include "attention_hopper.h"

constexpr int KEYS = 128, STAGES = 2;
enum { OF_KEYS, OF_VALUES };

/* A row's largest score so far, and the lane's part of the sum of exponentials: of its two rows. */
struct Softmax {
    float most[2], total[2];
};

/* Scores become probabilities relative to the largest so far; keep is what sums of before are to be
 * scaled by. */
DEVICE void soften(float (&s)[KEYS / 8][4], Softmax &softmax, float (&keep)[2], float scale) {
#pragma unroll
    for (int i = 0; i < 2; i++) {
        float most = softmax.most[i];
#pragma unroll
        for (int n = 0; n < KEYS / 8; n++) most = fmaxf(most, fmaxf(s[n][2 * i], s[n][2 * i + 1]));
        most = fmaxf(most, __shfl_xor_sync(ALL_LANES, most, 1));
        most = fmaxf(most, __shfl_xor_sync(ALL_LANES, most, 2));
        keep[i] = exp2_fast((softmax.most[i] - most) * scale);
        const float base = most * scale;
        float total = softmax.total[i] * keep[i];
#pragma unroll
        for (int n = 0; n < KEYS / 8; n++)
#pragma unroll
            for (int j = 2 * i; j < 2 * i + 2; j++) {
                s[n][j] = exp2_fast(fmaf(s[n][j], scale, -base));
                total += s[n][j];
            }
        softmax.most[i] = most;
        softmax.total[i] = total;
    }
}

/* Keys from `key` on that come after a lane's queries count nothing. */
DEVICE void mask(float (&s)[KEYS / 8][4], int key, int query) {
#pragma unroll
    for (int n = 0; n < KEYS / 8; n++)
#pragma unroll
        for (int i = 0; i < 4; i++)
            if (key + n * 8 + (int)threadIdx.x % 4 * 2 + i % 2 > query + i / 2 * 8)
                s[n][i] = -INFINITY;
}

template <int D, int W>
KERNEL __launch_bounds__(THREADS<W>, 1)
forward_hopper(const __grid_constant__ TensorMap qkv, bf16 *out, float *lse, int B, int T, int NH,
               float scale) {
#ifdef HAS_WARPGROUPS
    constexpr int ROWS = W * GROUP_ROWS;
    DYNAMIC_SHARED(bf16, queries);
    bf16 *const keys = queries + ROWS * D, *const values = keys + STAGES * KEYS * D;
    __shared__ Ring<STAGES> ring;
    __shared__ Barrier queries_full;
    const Share share = share_of(blockIdx.x, (T + ROWS - 1) / ROWS, ROWS, (i64)B * NH, NH, true);
    const int C = NH * D, tiles = (min(T, share.first + ROWS) + KEYS - 1) / KEYS;
    if (threadIdx.x == 0) {
        ring_init(ring, 1, W);
        barrier_init(&queries_full, 1);
        barriers_ready();
    }
    __syncthreads();

    if (threadIdx.x >= W * GROUP) {
        fewer_registers<COPYING_REGISTERS<W>>();
        if (threadIdx.x % GROUP) return;
        barrier_expect(&queries_full, ROWS * D * (int)sizeof(bf16));
        fetch<D>(queries, ROWS, qkv, &queries_full, share.h * D, share.first, share.b);
        for (int t = 0; t < tiles; t++)
            for (int which : {OF_KEYS, OF_VALUES}) {
                await_empty(ring, which, t);
                Barrier *const full = &ring.full[which][t % STAGES];
                barrier_expect(full, KEYS * D * (int)sizeof(bf16));
                fetch<D>((which ? values : keys) + t % STAGES * KEYS * D, KEYS, qkv, full,
                         (which + 1) * C + share.h * D, t * KEYS, share.b);
            }
        return;
    }

    more_registers<REGISTERS<W>>();
    const int first = group_row(share.first), query = lane_row(first);
    const int own = first < T ? (min(T, first + GROUP_ROWS) + KEYS - 1) / KEYS : 0; // tiles it sees
    const bf16 *const q = queries + (first - share.first) * 64;
    float s[KEYS / 8][4], sums[D / 8][4] = {};
    u32 weights[KEYS / 16][4];
    Softmax softmax = {{-INFINITY, -INFINITY}, {}};
    float keep[2];
    barrier_wait(&queries_full, 0);
    if (own > 0) {
        await_full(ring, OF_KEYS, 0);
        start_products();
        dot_tiles<D, KEYS>(s, q, ROWS, keys);
        commit_products();
        wait_products<0>();
        release(ring, OF_KEYS, 0);
        if (own == 1) mask(s, 0, query);
        soften(s, softmax, keep, scale);
        to_operand<KEYS>(weights, s);
    }
    for (int t = 1; t < own; t++) {
        await_full(ring, OF_KEYS, t);
        start_products();
        dot_tiles<D, KEYS>(s, q, ROWS, keys + t % STAGES * KEYS * D);
        commit_products();
        await_full(ring, OF_VALUES, t - 1);
        add_tile<D, KEYS>(sums, weights, values + (t - 1) % STAGES * KEYS * D);
        commit_products();
        wait_products<1>();
        release(ring, OF_KEYS, t);
        if (t == own - 1) mask(s, t * KEYS, query); // the only one that begins after a query's end
        soften(s, softmax, keep, scale);
        wait_products<0>();
        release(ring, OF_VALUES, t - 1);
#pragma unroll
        for (int n = 0; n < D / 8; n++)
#pragma unroll
            for (int i = 0; i < 4; i++) sums[n][i] *= keep[i / 2];
        to_operand<KEYS>(weights, s);
    }
    if (own > 0) {
        await_full(ring, OF_VALUES, own - 1);
        start_products();
        add_tile<D, KEYS>(sums, weights, values + (own - 1) % STAGES * KEYS * D);
        commit_products();
        wait_products<0>();
        release(ring, OF_VALUES, own - 1);
    }
    for (int t = own; t < tiles; t++) // what only groups with later rows need
        for (int which : {OF_KEYS, OF_VALUES}) {
            await_full(ring, which, t);
            release(ring, which, t);
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
                (softmax.most[i] * scale + log2f(total)) * LN2;
    }
    store_sums<D>(out + (i64)share.b * T * C + share.h * D, C, query, T, sums, inverse[0],
                  inverse[1]);
#endif
}

template <int D>
static bool forward(bf16 *out, float *lse, const bf16 *qkv, int B, int T, int NH) {
    TensorMap map;
    if (!make_map(&map, qkv, 3 * NH * D, T, B)) return false;
    constexpr int W = GROUPS<D>, ROWS = W * GROUP_ROWS;
    launch(forward_hopper<D, W>, (u32)(ceil_div(T, ROWS) * B * NH), THREADS<W>,
           (ROWS + 2 * STAGES * KEYS) * D * sizeof(bf16), map, out, lse, B, T, NH, score_scale(D));
    return true;
}

bool attention_forward_hopper(bf16 *out, float *lse, const bf16 *qkv, int B, int T, int NH, int HS) {
    if (!has_warpgroups()) return false;
    if (HS == 64) return forward<64>(out, lse, qkv, B, T, NH);
    if (HS == 128) return forward<128>(out, lse, qkv, B, T, NH);
    return false;
}
