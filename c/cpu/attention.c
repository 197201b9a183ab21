/* Tiles of queries and keys: scores exist for one tile at a time, the softmax is carried along from
 * tile to tile (Milakov, Gimelshein 2018). All products are the microkernel's. */
#include <math.h>

#include "attention.h"

#define QUERIES 192 // of a forward task: its keys and values are packed once for all of them
#define KEYS 128    // of a forward tile

_Static_assert((2 * KEYS + QUERIES) * HEAD_MAX <= WORKSPACE, "a forward block fits");

typedef struct {
    float max, sum;
} Running;

// A tile of sums becomes, in place, an operand of the next product: each row begins where it was, so
// that rows lie as many bytes apart as before.
#define OPERAND(tile) ((real *)(tile))

// One row of scores becomes probabilities up to a factor; `valid` of its columns are not masked.
// Returns what the sums so far have to be multiplied by.
INLINE float soften(float *row, Running *run, float scale, i64 columns, i64 valid) {
    vec top = splat(-INFINITY), total = splat(0);
    for (i64 j = 0; j < valid; j += LANES)
        top = vmax(top, keep_n(load(row + j) * scale, top, valid - j));
    const float max = fmaxf(run->max, max_lane(top)), keep = vexp(splat(run->max - max))[0];
    for (i64 j = 0; j < columns; j += LANES) {
        vec p = keep_n(vexp(load(row + j) * scale - max), splat(0), valid - j);
        store(OPERAND(row) + j, p);
        total += p;
    }
    *run = (Running){max, run->sum * keep + sum(total)};
    return keep;
}

// The queries from q0 on, of one head; qkv and out point at the head's first number.
static void forward_block(real *out, float *lse, const real *qkv, i64 q0, i64 T, i64 C, i64 HS) {
    const i64 width = round_up(HS, NR), queries = min_i64(QUERIES, T - q0), stride = 3 * C;
    const float scale = 1.0f / sqrtf((float)HS);
    float *keys = workspace(), *values = keys + KEYS * UNITS(HS), *acc = values + UNITS(KEYS) * width;
    float scores[MR * KEYS] __attribute__((aligned(64)));
    Running run[QUERIES];
    for (i64 i = 0; i < queries; i++) run[i] = (Running){-INFINITY, 0};

    for (i64 j0 = 0; j0 < q0 + queries; j0 += KEYS) {
        const i64 nk = min_i64(KEYS, q0 + queries - j0);
        const real *k = qkv + j0 * stride + C, *v = k + C;
        for (i64 j = 0; j < nk; j += NR)
            REAL(pack_rows)(keys + j * UNITS(HS), k + j * stride, stride, nk - j, HS);
        for (i64 d = 0; d < HS; d += NR)
            REAL(pack_columns)(values + d * UNITS(KEYS), v + d, stride, nk, HS - d);
        // Strips above see none of these keys.
        for (i64 i = max_i64(0, j0 - q0) / MR * MR; i < queries; i += MR) {
            const i64 rows = min_i64(MR, queries - i), seen = min_i64(nk, q0 + i + rows - j0);
            float *a = acc + i * width;
            REAL(block_product)(scores, KEYS, qkv + (q0 + i) * stride, stride, rows, keys,
                                UNITS(HS) * NR, seen, (int)HS, 0, NULL);
            for (i64 r = 0; r < rows; r++) {
                const float keep = soften(scores + r * KEYS, &run[i + r], scale, seen,
                                          min_i64(nk, q0 + i + r - j0 + 1));
                if (j0 > 0 && keep != 1)
                    for (i64 d = 0; d < HS; d += LANES)
                        store(a + r * width + d, load(a + r * width + d) * keep);
            }
            REAL(block_product)(a, width, OPERAND(scores), KEYS * PER, rows, values,
                                UNITS(KEYS) * NR, HS, (int)seen, j0 > 0, NULL);
        }
    }
    for (i64 i = 0; i < queries; i++) {
        for (i64 d = 0; d < HS; d += LANES)
            store_n(out + (q0 + i) * C + d, load(acc + i * width + d) * (1 / run[i].sum), HS - d);
        if (lse) lse[q0 + i] = run[i].max + logf(run[i].sum);
    }
}

void REAL(attention_forward)(real *out, float *lse, const real *qkv, int B, int T, int C, int NH) {
    const i64 HS = C / NH, blocks = ceil_div(T, QUERIES);
    if (HS > HEAD_MAX) {
        REAL(wide_forward)(out, lse, qkv, B, T, C, NH);
        return;
    }
    // The last queries see the most keys: they go first, so that no thread ends on a long task.
#pragma omp parallel for collapse(2) schedule(dynamic)
    for (i64 block = blocks - 1; block >= 0; block--)
        for (i64 bh = 0; bh < (i64)B * NH; bh++) {
            const i64 b = bh / NH, h = bh % NH;
            forward_block(out + b * T * C + h * HS, lse ? lse + bh * T : 0,
                          qkv + b * T * 3 * C + h * HS, block * QUERIES, T, C, HS);
        }
}

// to (rows of `stride`) is overwritten by the tile, or added to.
static void put(real *to, i64 stride, const float *tile, i64 ldt, i64 rows, i64 columns, int add) {
    for (i64 i = 0; i < rows; i++)
        for (i64 d = 0; d < columns; d += LANES) {
            vec v = load(tile + i * ldt + d);
            if (add) v += load_n(to + i * stride + d, columns - d);
            store_n(to + i * stride + d, v, columns - d);
        }
}

#define TILE 64 // queries of a backward tile, and its keys

_Static_assert((6 * TILE + 2 * MR) * HEAD_MAX + (2 * TILE + 3 * MR) * TILE <= WORKSPACE,
               "a backward tile fits");

// A strip of keys by queries from `first` on. p: scores become probabilities; dp: gradients of the
// probabilities become those of the scores. Row r sees the queries from hidden + r on.
INLINE void differentiate(float *p, float *dp, const float *lse, const float *delta, float scale,
                          i64 keys, i64 first, i64 queries, i64 hidden) {
    for (i64 j = first; j < queries; j += LANES) {
        const vec l = load_n(lse + j, queries - j), d = load_n(delta + j, queries - j);
        for (i64 r = 0; r < keys; r++) {
            float *at = p + r * TILE + j, *dat = dp + r * TILE + j;
            vec prob = vexp(load(at) * scale - l);
            vec grad = prob * (load(dat) - d) * scale;
            if (hidden + r > j) {
                prob = keep_n(splat(0), prob, hidden + r - j);
                grad = keep_n(splat(0), grad, hidden + r - j);
            }
            store(OPERAND(p + r * TILE) + j, prob);
            store(OPERAND(dp + r * TILE) + j, grad);
        }
    }
}

// out (TILE,TILE) = inpᵀ, whose rows lie TILE units apart.
static void turn(real *out, const real *inp) {
    for (i64 i = 0; i < TILE; i += LANES)
        for (i64 j = 0; j < TILE; j += LANES) {
            vec r[LANES];
#pragma GCC unroll 16
            for (int l = 0; l < LANES; l++) r[l] = load(inp + (i + l) * TILE * PER + j);
            transpose(r);
#pragma GCC unroll 16
            for (int l = 0; l < LANES; l++) store(out + (j + l) * TILE + i, r[l]);
        }
}

static void backward_head(real *dqkv, const real *dout, const real *qkv, const float *lse,
                          const float *delta, i64 T, i64 C, i64 HS) {
    const i64 width = round_up(HS, NR), stride = 3 * C, tile = round_up(TILE, MR) * TILE;
    const float scale = 1.0f / sqrtf((float)HS);
    float *queries_t = workspace(), *douts_t = queries_t + TILE * HS;
    float *queries = douts_t + TILE * HS, *douts = queries + TILE * width;
    float *keys = douts + TILE * width, *p = keys + TILE * width;
    float *dp = p + MR * TILE, *dkv = dp + 2 * tile, *dq = dkv + MR * width;
    real *ds = (real *)(dp + tile);

    for (i64 i0 = 0; i0 < T; i0 += TILE) {
        const i64 nq = min_i64(TILE, T - i0);
        const real *q = qkv + i0 * stride, *g = dout + i0 * C;
        for (i64 i = 0; i < nq; i += NR) {
            REAL(pack_rows)(queries_t + i * UNITS(HS), q + i * stride, stride, nq - i, HS);
            REAL(pack_rows)(douts_t + i * UNITS(HS), g + i * C, C, nq - i, HS);
        }
        for (i64 d = 0; d < HS; d += NR) {
            REAL(pack_columns)(queries + d * UNITS(TILE), q + d, stride, nq, HS - d);
            REAL(pack_columns)(douts + d * UNITS(TILE), g + d, C, nq, HS - d);
        }
        for (i64 j0 = 0; j0 <= i0; j0 += TILE) {
            const i64 nk = min_i64(TILE, T - j0), later = j0 < i0;
            for (i64 j = 0; j < nk; j += MR) {
                // Of the queries before the strip's first key nobody sees it: whole panels of them,
                // and the terms of the sums over queries, are left out.
                const i64 rows = min_i64(MR, nk - j), hidden = later ? 0 : j;
                const i64 first = hidden / NR * NR, seen = nq - hidden;
                const real *k = qkv + (j0 + j) * stride + C, *v = k + C;
                real *dk = dqkv + (j0 + j) * stride + C, *dv = dk + C;
                float *d = dp + j * TILE;
                REAL(block_product)(p + first, TILE, k, stride, rows, queries_t + first * UNITS(HS),
                                    UNITS(HS) * NR, nq - first, (int)HS, 0, NULL);
                REAL(block_product)(d + first, TILE, v, stride, rows, douts_t + first * UNITS(HS),
                                    UNITS(HS) * NR, nq - first, (int)HS, 0, NULL);
                differentiate(p, d, lse + i0, delta + i0, scale, rows, first, nq,
                              later ? -TILE : j);
                REAL(block_product)(dkv, width, OPERAND(p) + hidden, TILE * PER, rows,
                                    douts + hidden / PER * NR, UNITS(TILE) * NR, HS, (int)seen, 0,
                                    NULL);
                put(dv, stride, dkv, width, rows, HS, later);
                REAL(block_product)(dkv, width, OPERAND(d) + hidden, TILE * PER, rows,
                                    queries + hidden / PER * NR, UNITS(TILE) * NR, HS, (int)seen, 0,
                                    NULL);
                put(dk, stride, dkv, width, rows, HS, later);
            }
            turn(ds, OPERAND(dp));
            for (i64 d = 0; d < HS; d += NR)
                REAL(pack_columns)(keys + d * UNITS(TILE), qkv + j0 * stride + C + d, stride, nk, HS - d);
            for (i64 i = 0; i < nq; i += MR) {
                const i64 rows = min_i64(MR, nq - i), seen = later ? nk : min_i64(nk, i + rows);
                REAL(block_product)(dq + i * width, width, ds + i * TILE, TILE, rows, keys,
                                    UNITS(TILE) * NR, HS, (int)seen, j0 > 0, NULL);
            }
        }
        put(dqkv + i0 * stride, stride, dq, width, nq, HS, 0);
    }
}

void REAL(attention_backward)(real *dqkv, const real *dout, const real *qkv, const real *out,
                              const float *lse, float *scratch, int B, int T, int C, int NH) {
    const i64 HS = C / NH;
    if (HS > HEAD_MAX) {
        REAL(wide_backward)(dqkv, dout, qkv, out, lse, scratch, B, T, C, NH);
        return;
    }
#pragma omp parallel for schedule(dynamic)
    for (i64 bh = 0; bh < (i64)B * NH; bh++) {
        const i64 row = bh / NH * T, h = bh % NH, at = row * C + h * HS, at3 = row * 3 * C + h * HS;
        float *delta = scratch + bh * T;
        for (i64 t = 0; t < T; t++) delta[t] = dot(dout + at + t * C, out + at + t * C, HS);
        backward_head(dqkv + at3, dout + at, qkv + at3, lse + bh * T, delta, T, C, HS);
    }
}
