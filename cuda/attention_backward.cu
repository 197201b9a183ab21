/* Gradients of attention by tiles. Scores and their gradients are made twice, once for gradients
 * of queries and once for the rest: every sum has one owner, who adds its terms in order.
 *
 * With p the probability of the pair (query, key), and dp = dout·v:
 *   dv += p·dout;  ds = p·(dp - delta);  dq += ds·k/sqrt(HS);  dk += ds·q/sqrt(HS)
 * where delta, the sum of p·dp over a query's keys, is that of dout·out over its channels. */
#include "attention.h"
#include "product.h"

#ifdef LLM_BF16
#include "attention_tiles.h"

/* Where a head's numbers begin. */
struct Head {
    const bf16 *q, *dout, *out;
    const float *lse;
    float *delta;
    int C, token; // from q to k to v; from a token to the next
};

DEVICE Head head_at(const Gradients &x, const Share &share) {
    const int C = x.NH * x.HS, channel = share.h * x.HS;
    const i64 row = (i64)share.b * x.T;
    const i64 at = row * 3 * C + channel, line = ((i64)share.b * x.NH + share.h) * x.T;
    const i64 at_out = row * C + channel;
    return {x.qkv + at, x.dout + at_out, x.out + at_out, x.lse + line, x.delta + line, C, 3 * C};
}

/* A score becomes the probability, the gradient of that the gradient of the score. */
DEVICE void differentiate(float &p, float &ds, float scale, float lse, float delta) {
    p = exp2_fast(fmaf(p, scale, -lse));
    ds = p * (ds - delta);
}

/* Rows that pass by a block at a time, and those of which a warp makes scores at a time. */
template <int D> constexpr int PASSING = D <= 64 ? 64 : 32;
constexpr int STEP = 16;

/* Tiles that a warp owns of queries, and of keys, whose two sums take twice the registers. */
template <int D> constexpr int QUERY_TILES = D <= 64 ? 2 : 1;
template <int D> constexpr int KEY_TILES = D <= 32 ? 2 : 1;
/* Blocks that a multiprocessor has registers for, of keys. */
template <int D> constexpr int KEY_BLOCKS = D == 64 ? 3 : 2;

/* The gradients of a block of queries. */
template <int D>
KERNEL __launch_bounds__(THREADS, 2) backward_queries(Gradients x) {
    constexpr int TILES = QUERY_TILES<D>, OWN = TILES * 16, QUERIES = WARPS * OWN;
    constexpr int KEYS = PASSING<D>, SIZE = KEYS * ROW<D>;
    DYNAMIC_SHARED(bf16, queries);
    bf16 *const douts = queries + QUERIES * ROW<D>, *const keys = douts + QUERIES * ROW<D>;
    bf16 *const values = keys + 2 * SIZE;
    const int T = x.T, HS = x.HS, warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
    const Share share =
        share_of(blockIdx.x, (T + QUERIES - 1) / QUERIES, QUERIES, x.B * x.NH, x.NH, true);
    const Head head = head_at(x, share);
    const bf16 *const k = head.q + head.C, *const v = k + head.C;
    const int seen = min(T, share.first + QUERIES); // keys

    load_rows<D, QUERIES>(queries, head.q, head.token, share.first, T, HS);
    load_rows<D, QUERIES>(douts, head.dout, head.C, share.first, T, HS);
    bf16 *const outs = keys; // until the keys come
    static_assert(2 * KEYS == QUERIES, "room for out");
    load_rows<D, QUERIES>(outs, head.out, head.C, share.first, T, HS);
    commit_copies();
    load_rows<D, KEYS>(values, v, head.token, 0, T, HS);
    commit_copies();
    wait_copies<1>();
    __syncthreads();
    const int first = share.first + warp * OWN; // the warp's first query
    bf16 *const own = queries + warp * OWN * ROW<D>;
    u32 q[TILES][D / 16][4], dout[TILES][D / 16][4];
    load_operands<D, TILES>(q, own);
    load_operands<D, TILES>(dout, douts + warp * OWN * ROW<D>);
    float lse[TILES][2], delta[TILES][2], dq[TILES][D / 8][4] = {};
    sum_of_products<D, TILES>(delta, dout, outs + warp * OWN * ROW<D>);
    __syncthreads();
    load_rows<D, KEYS>(keys, k, head.token, 0, T, HS);
    commit_copies();
#pragma unroll
    for (int t = 0; t < TILES; t++)
#pragma unroll
        for (int i = 0; i < 2; i++) {
            const int query = first + t * 16 + i * 8 + lane / 4;
            lse[t][i] = query < T ? head.lse[query] * LOG2E : 0.f;
            if (lane % 4 == 0 && query < T) head.delta[query] = delta[t][i];
        }

    for (int tile = 0, stage = 0; tile < seen; tile += KEYS, stage ^= 1) {
        wait_copies<0>();
        __syncthreads();
        const int next = tile + KEYS;
        if (next < seen) {
            const int other = (stage ^ 1) * SIZE;
            load_rows<D, KEYS>(keys + other, k, head.token, next, T, HS);
            load_rows<D, KEYS>(values + other, v, head.token, next, T, HS);
        }
        commit_copies();
#pragma unroll 1
        for (int key = tile; key < next && key < first + OWN; key += STEP) {
            const int at = stage * SIZE + (key - tile) * ROW<D>;
            float p[TILES][STEP / 8][4], ds[TILES][STEP / 8][4];
            dot_rows<D, STEP, TILES>(p, q, keys + at);
            dot_rows<D, STEP, TILES>(ds, dout, values + at);
            if (key + STEP - 1 > first) hide<STEP, TILES>(p, first - key, true);
#pragma unroll
            for (int t = 0; t < TILES; t++)
#pragma unroll
                for (int n = 0; n < STEP / 8; n++)
#pragma unroll
                    for (int i = 0; i < 4; i++)
                        differentiate(p[t][n][i], ds[t][n][i], x.scale, lse[t][i / 2],
                                      delta[t][i / 2]);
            add_rows<D, STEP, TILES>(dq, ds, keys + at);
        }
    }
    bf16 *const dq_rows = x.dqkv + (head.q - x.qkv) + (i64)first * head.token;
    float scales[TILES][2];
    for (int t = 0; t < TILES; t++) scales[t][0] = scales[t][1] = x.scale * LN2;
    if (first < T)
        store_rows<D, TILES>(dq_rows, head.token, T - first, HS, own, dq, scales);
}

struct alignas(8) Two {
    float at[2];
};

/* Those of a block of keys and their values: what passes by are the queries that see them. */
template <int D>
KERNEL __launch_bounds__(THREADS, KEY_BLOCKS<D>) backward_keys(Gradients x) {
    constexpr int TILES = KEY_TILES<D>, OWN = TILES * 16, KEYS = WARPS * OWN;
    constexpr int QUERIES = PASSING<D>, SIZE = QUERIES * ROW<D>;
    DYNAMIC_SHARED(bf16, keys);
    bf16 *const values = keys + KEYS * ROW<D>, *const queries = values + KEYS * ROW<D>;
    bf16 *const douts = queries + 2 * SIZE;
    float *const numbers = reinterpret_cast<float *>(douts + 2 * SIZE); // lse, delta, of each stage
    const int T = x.T, HS = x.HS, warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
    const Share share =
        share_of(blockIdx.x, (T + KEYS - 1) / KEYS, KEYS, x.B * x.NH, x.NH, false);
    const Head head = head_at(x, share);

    // A thread fetches one number of a query for each tile, or none.
    const bool has_number = threadIdx.x < 2 * QUERIES;
    const float *const number_at = threadIdx.x < QUERIES ? head.lse : head.delta;
    const auto number_of = [&](int tile) {
        const int query = tile + threadIdx.x % QUERIES;
        return query < T ? number_at[query] * (threadIdx.x < QUERIES ? LOG2E : 1) : 0.f;
    };
    load_rows<D, KEYS>(keys, head.q + head.C, head.token, share.first, T, HS);
    load_rows<D, KEYS>(values, head.q + 2 * head.C, head.token, share.first, T, HS);
    commit_copies();
    const int begin = share.first / QUERIES * QUERIES;
    load_rows<D, QUERIES>(queries, head.q, head.token, begin, T, HS);
    load_rows<D, QUERIES>(douts, head.dout, head.C, begin, T, HS);
    commit_copies();
    if (has_number) numbers[threadIdx.x] = number_of(begin);
    wait_copies<1>();
    __syncthreads();
    const int first = share.first + warp * OWN; // the warp's first key
    u32 k[TILES][D / 16][4], v[TILES][D / 16][4];
    load_operands<D, TILES>(k, keys + warp * OWN * ROW<D>);
    load_operands<D, TILES>(v, values + warp * OWN * ROW<D>);
    float dk[TILES][D / 8][4] = {}, dv[TILES][D / 8][4] = {};

    for (int tile = begin, stage = 0; tile < T; tile += QUERIES, stage ^= 1) {
        wait_copies<0>();
        __syncthreads();
        const int next = tile + QUERIES, other = (stage ^ 1) * SIZE;
        float number = 0; // stored at the end: who waits for it then has waited long enough
        if (next < T) {
            load_rows<D, QUERIES>(queries + other, head.q, head.token, next, T, HS);
            load_rows<D, QUERIES>(douts + other, head.dout, head.C, next, T, HS);
            number = number_of(next);
        }
        commit_copies();
#pragma unroll 1
        for (int query = tile; query < next; query += STEP) {
            if (query + STEP <= first || query >= T) continue;
            const int at = stage * SIZE + (query - tile) * ROW<D>;
            const float *const lse = numbers + stage * 2 * QUERIES + query - tile + lane % 4 * 2;
            float p[TILES][STEP / 8][4], ds[TILES][STEP / 8][4];
            dot_rows<D, STEP, TILES>(p, k, queries + at);
            dot_rows<D, STEP, TILES>(ds, v, douts + at);
            if (query < first + OWN - 1) hide<STEP, TILES>(p, first - query, false);
#pragma unroll
            for (int n = 0; n < STEP / 8; n++) {
                const Two own_lse = *reinterpret_cast<const Two *>(lse + n * 8);
                const Two delta = *reinterpret_cast<const Two *>(lse + n * 8 + QUERIES);
#pragma unroll
                for (int t = 0; t < TILES; t++)
#pragma unroll
                    for (int i = 0; i < 4; i++)
                        differentiate(p[t][n][i], ds[t][n][i], x.scale, own_lse.at[i % 2],
                                      delta.at[i % 2]);
            }
            add_rows<D, STEP, TILES>(dv, p, douts + at);
            add_rows<D, STEP, TILES>(dk, ds, queries + at);
        }
        if (has_number && next < T) numbers[(stage ^ 1) * 2 * QUERIES + threadIdx.x] = number;
    }
    if (first >= T) return;
    float scales[TILES][2], ones[TILES][2];
    for (int t = 0; t < TILES; t++) {
        scales[t][0] = scales[t][1] = x.scale * LN2;
        ones[t][0] = ones[t][1] = 1;
    }
    bf16 *const dk_rows = x.dqkv + (head.q - x.qkv) + (i64)first * head.token + head.C;
    store_rows<D, TILES>(dk_rows, head.token, T - first, HS, keys + warp * OWN * ROW<D>, dk,
                         scales);
    store_rows<D, TILES>(dk_rows + head.C, head.token, T - first, HS,
                         values + warp * OWN * ROW<D>, dv, ones);
}

template <int D> static void differentiate_by_tiles(const Gradients &x) {
    constexpr int QUERIES = WARPS * 16 * QUERY_TILES<D>, KEYS = WARPS * 16 * KEY_TILES<D>;
    launch(backward_queries<D>, (u32)(ceil_div(x.T, QUERIES) * x.B * x.NH), THREADS,
           (2 * QUERIES + 4 * PASSING<D>)*ROW<D> * sizeof(bf16), x);
    launch(backward_keys<D>, (u32)(ceil_div(x.T, KEYS) * x.B * x.NH), THREADS,
           (2 * KEYS + 4 * PASSING<D>)*ROW<D> * sizeof(bf16) + 4 * PASSING<D> * sizeof(float), x);
}
#endif

static void differentiate(const Gradients &x) {
#ifdef LLM_BF16
    if (x.HS <= 32) return differentiate_by_tiles<32>(x);
    if (x.HS <= 64) return differentiate_by_tiles<64>(x);
    if (x.HS <= 128) return differentiate_by_tiles<128>(x);
#endif
    REAL(differentiate_plainly)(x);
}

extern "C" void REAL(attention_backward)(real *dqkv, float *sums, const real *dout, const real *qkv,
                                         const real *out, const float *lse, float *scratch, int B,
                                         int T, int C, int NH, int accumulate) {
    const int HS = C / NH;
    const Gradients x = {dqkv, scratch, dout, qkv, out, lse, B, T, NH, HS, score_scale(HS), nullptr};
#ifdef LLM_BF16
    if (differentiate_hopper(x, sums, accumulate)) return;
#endif
    differentiate(x);
    if (sums) column_sums(sums, dqkv, sizeof(real) < sizeof(float), B * T, 3 * C, accumulate);
}
