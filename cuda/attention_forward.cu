/* Attention by tiles: scores exist for one tile of queries and keys at a time, and the softmax is
 * carried along from tile to tile (Milakov, Gimelshein 2018; Dao 2023). */
#include "attention.h"

#ifdef LLM_BF16
#include "attention_tiles.h"

constexpr int KEYS = 64; // of a tile; two tiles of keys and of values are held, one on its way

/* A warp owns 16 queries, or 32 where narrow heads leave it the registers: it then loads half as
 * much of keys and values for a product. */
template <int D> constexpr int FORWARD_TILES = D <= 64 ? 2 : 1;

/* The largest score of each row so far, and the lane's part of the sum of exponentials. */
template <int TILES> struct Softmax {
    float most[TILES][2], total[TILES][2];
};

/* Scores become probabilities, relative to the largest score so far; what was summed up before is
 * scaled down to it. A lane holds rows lane/4 and 8 more, shared with three neighbours. */
template <int D, int TILES>
DEVICE void soften(float (&s)[TILES][KEYS / 8][4], Softmax<TILES> &softmax,
                   float (&out)[TILES][D / 8][4], float scale) {
#pragma unroll
    for (int t = 0; t < TILES; t++)
#pragma unroll
        for (int i = 0; i < 2; i++) {
            float most = softmax.most[t][i];
#pragma unroll
            for (int n = 0; n < KEYS / 8; n++)
                most = fmaxf(most, fmaxf(s[t][n][2 * i], s[t][n][2 * i + 1]));
            most = max_of_four(most);
            const float keep = exp2_fast((softmax.most[t][i] - most) * scale);
            const float base = most * scale;
            float total = softmax.total[t][i] * keep;
#pragma unroll
            for (int n = 0; n < KEYS / 8; n++)
#pragma unroll
                for (int j = 2 * i; j < 2 * i + 2; j++) {
                    s[t][n][j] = exp2_fast(fmaf(s[t][n][j], scale, -base));
                    total += s[t][n][j];
                }
            softmax.most[t][i] = most;
            softmax.total[t][i] = total;
            if (!__any_sync(ALL_LANES, keep != 1)) continue; // as mostly, after the first tiles
#pragma unroll
            for (int d = 0; d < D / 8; d++) {
                out[t][d][2 * i] *= keep;
                out[t][d][2 * i + 1] *= keep;
            }
        }
}

template <int D>
KERNEL __launch_bounds__(THREADS, 2) forward_tiles(Attention x) {
    constexpr int TILES = FORWARD_TILES<D>, QUERIES = WARPS * TILES * 16, SIZE = KEYS * ROW<D>;
    DYNAMIC_SHARED(bf16, queries);
    bf16 *const keys = queries + QUERIES * ROW<D>, *const values = keys + 2 * SIZE;
    const int T = x.T, HS = x.HS, warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
    const Share share =
        share_of(blockIdx.x, (T + QUERIES - 1) / QUERIES, QUERIES, x.B * x.NH, x.NH, true);
    const int position = x.positions ? x.positions[share.b] : 0;
    const int rows = position + T;                         // keys that exist
    const int seen = position + min(T, share.first + QUERIES); // of which the block's queries see
    const bf16 *const q = head_of(x.q, share, HS);
    const bf16 *const k = head_of(x.k, share, HS), *const v = head_of(x.v, share, HS);

    load_rows<D, QUERIES>(queries, q, x.q.token, share.first, T, HS);
    commit_copies();
    load_rows<D, KEYS>(keys, k, x.k.token, 0, rows, HS);
    load_rows<D, KEYS>(values, v, x.v.token, 0, rows, HS);
    commit_copies();
    wait_copies<1>();
    __syncthreads();
    bf16 *const own = queries + warp * TILES * 16 * ROW<D>;
    u32 a[TILES][D / 16][4];
    load_operands<D, TILES>(a, own);

    float out[TILES][D / 8][4] = {};
    Softmax<TILES> softmax;
    for (int t = 0; t < TILES; t++)
        for (int i = 0; i < 2; i++) {
            softmax.most[t][i] = -INFINITY;
            softmax.total[t][i] = 0;
        }
    const int first = share.first + warp * TILES * 16; // the warp's first query
    for (int key = 0, stage = 0; key < seen; key += KEYS, stage ^= 1) {
        wait_copies<0>();
        __syncthreads();
        const int next = key + KEYS;
        if (next < seen) {
            const int other = (stage ^ 1) * SIZE;
            load_rows<D, KEYS>(keys + other, k, x.k.token, next, rows, HS);
            load_rows<D, KEYS>(values + other, v, x.v.token, next, rows, HS);
        }
        commit_copies();
        if (key > position + first + TILES * 16 - 1) continue; // none of the warp's queries sees it
        float s[TILES][KEYS / 8][4];
        dot_rows<D, KEYS, TILES>(s, a, keys + stage * SIZE);
        if (next > position + first) hide<KEYS, TILES>(s, position + first - key, true);
        soften<D, TILES>(s, softmax, out, x.scale);
        add_rows<D, KEYS, TILES>(out, s, values + stage * SIZE);
    }

    float share_of_total[TILES][2];
#pragma unroll
    for (int t = 0; t < TILES; t++)
#pragma unroll
        for (int i = 0; i < 2; i++) {
            const float total = sum_of_four(softmax.total[t][i]);
            share_of_total[t][i] = 1 / total;
            const int query = first + t * 16 + i * 8 + lane / 4;
            if (x.lse && lane % 4 == 0 && query < T)
                x.lse[((i64)share.b * x.NH + share.h) * T + query] =
                    (softmax.most[t][i] * x.scale + log2f(total)) * LN2;
        }
    const int C = x.NH * HS;
    if (first < T)
        store_rows<D, TILES>(x.out + ((i64)share.b * T + first) * C + (i64)share.h * HS, C,
                             T - first, HS, own, out, share_of_total);
}

template <int D> static void attend_by_tiles(const Attention &x) {
    constexpr int QUERIES = WARPS * FORWARD_TILES<D> * 16;
    launch(forward_tiles<D>, (u32)(ceil_div(x.T, QUERIES) * x.B * x.NH), THREADS,
           (QUERIES + 4 * KEYS) * ROW<D> * sizeof(bf16), x);
}
#endif

void REAL(attend)(const Attention &x) {
#ifdef LLM_BF16
    if (x.HS <= 32) return attend_by_tiles<32>(x);
    if (x.HS <= 64) return attend_by_tiles<64>(x);
    if (x.HS <= 128) return attend_by_tiles<128>(x);
#endif
    REAL(attend_plainly)(x);
}

extern "C" void REAL(attention_forward)(real *out, float *lse, const real *qkv, int B, int T, int C,
                                        int NH) {
#ifdef LLM_BF16
    if (attention_forward_hopper(out, lse, qkv, B, T, NH, C / NH)) return;
#endif
    const int token = 3 * C;
    const i64 sequence = (i64)T * token;
    const Rows q = {qkv, sequence, token}, k = {qkv + C, sequence, token};
    const Rows v = {qkv + 2 * C, sequence, token};
    REAL(attend)({out, lse, q, k, v, nullptr, B, T, NH, C / NH, score_scale(C / NH)});
}
