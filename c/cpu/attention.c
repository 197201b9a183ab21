/* Tiles of queries and keys: scores exist for one tile at a time, the softmax is carried along from
 * tile to tile (Milakov, Gimelshein 2018). All products are the microkernel's. */
#include <math.h>

#include "attention.h"
#include "column_sums.h"
#include "unit.h"

#define QUERIES 192 // of a forward task: keys and values are packed once for all of them
#define KEYS (128 / MR * MR) // of a forward tile: whole strips
#define KEYS_STRIDE 128

#define LOG2E 1.44269504f
#define LN2 0.693147181f

_Static_assert((QUERIES + 2 * KEYS_STRIDE) * HEAD_MAX + QUERIES * (HEAD_MAX + MR + LANES) +
                       (KEYS + MR) * NR <= WORKSPACE, "a forward block fits");

// out = inpᵀ, by whole vectors along its rows; inp (rows,columns).
static void turn(real *out, i64 out_stride, const real *inp, i64 stride, i64 rows, i64 columns) {
    for (i64 i = 0; i < rows; i += LANES)
        for (i64 j = 0; j < columns; j += LANES) {
            const i64 some = min_i64(LANES, rows - i), left = min_i64(LANES, columns - j);
            vec r[LANES];
#pragma GCC unroll 16
            for (int l = 0; l < LANES; l++)
                r[l] = l < some ? load_n(inp + (i + l) * stride + j, left) : splat(0);
            transpose(r);
            for (i64 l = 0; l < left; l++) store(out + (j + l) * out_stride + i, r[l]);
        }
}

// Of a query in each lane; max is that of the scores as powers of two.
typedef struct {
    vec max, sum;
} Running;

// Scores (keys,NR), of a query in each column, become probabilities up to a factor, in units. A lane
// sees the keys up to `last` + its index. Returns what the sums so far have to be multiplied by.
INLINE vec soften(float *scores, Running *run, float scale, i64 keys, i64 last) {
    const veci sees = IOTA + (int)last;
    const i64 open = max_i64(0, min_i64(keys, last + 1)); // keys that all lanes see
    vec top[2] = {splat(-INFINITY), splat(-INFINITY)}, total = splat(0);
    i64 j = 0;
    for (; j + 2 <= open; j += 2)
        for (int u = 0; u < 2; u++) top[u] = vmax(top[u], load(scores + (j + u) * NR));
    for (; j < keys; j++) {
        const veci seen = sees >= (int)j;
        const vec s = load(scores + j * NR);
        top[0] = vmax(top[0], (vec)((seen & (veci)s) | (~seen & (veci)top[0])));
    }
    const vec max = vmax(run->max, vmax(top[0], top[1]) * scale), keep = vexp2(run->max - max);
    for (j = 0; j < keys; j += PER) {
        vec p[PER];
#pragma GCC unroll 2
        for (int u = 0; u < PER; u++) {
            p[u] = vexp2(load(scores + (j + u) * NR) * scale - max);
            if (j + u >= open) p[u] = (vec)((veci)p[u] & (sees >= (int)(j + u)));
            if (j + u >= keys) p[u] = splat(0); // the second half of the last unit
            total += p[u];
        }
        store(scores + j / PER * NR, to_unit(p));
    }
    *run = (Running){max, run->sum * keep + total};
    return keep;
}

// out (queries,HS), rows of C, from acc (HS,NR), and lse of these queries.
static void finish_forward(real *out, float *lse, const float *acc, const Running *run, i64 queries,
                           i64 C, i64 HS) {
    for (i64 i = 0; i < queries; i += LANES) {
        const Running *of = run + i / LANES;
        const i64 left = min_i64(LANES, queries - i);
        const vec factor = 1.0f / of->sum;
        for (i64 d = 0; d < HS; d += LANES) {
            vec r[LANES];
#pragma GCC unroll 16
            for (int l = 0; l < LANES; l++) r[l] = load(acc + (d + l) * NR + i) * factor;
            transpose(r);
            for (i64 l = 0; l < left; l++) store_n(out + (i + l) * C + d, r[l], HS - d);
        }
        for (i64 l = 0; lse && l < left; l++) lse[i + l] = of->max[l] * LN2 + logf(of->sum[l]);
    }
}

// Of one head: rows of queries, and of the keys and values that query i sees up to `past` + i.
typedef struct {
    const real *q, *k, *v;
    i64 q_stride, stride, past;
} Head;

// The queries from q0 on, of one head; out points at the head's first number. Queries lie along vectors,
// so that a tile of scores is the panel of the product with the values.
static void forward_block(real *out, float *lse, const Head *head, i64 q0, i64 T, i64 C, i64 HS) {
    const i64 queries = min_i64(QUERIES, T - q0), first = head->past + q0, stride = head->stride;
    const i64 height = round_up(HS, MR) + LANES; // rows of acc
    const float scale = LOG2E / sqrtf((float)HS);
    float *panels = workspace(), *scores = panels + QUERIES * UNITS(HS);
    float *acc = scores + (KEYS + MR) * NR;
    real *keys = (real *)(acc + QUERIES * height), *values = keys + KEYS_STRIDE * HS;
    Running run[QUERIES / LANES];
    for (i64 i = 0; i < QUERIES / LANES; i++) run[i] = (Running){splat(-INFINITY), splat(0)};
    for (i64 i = 0; i < queries; i += NR)
        REAL(pack_rows)(panels + i * UNITS(HS), head->q + (q0 + i) * head->q_stride, head->q_stride,
                        queries - i, HS);

    for (i64 j0 = 0; j0 < first + queries; j0 += KEYS) {
        const i64 nk = min_i64(KEYS, first + queries - j0);
        const real *k = head->k + j0 * stride, *v = head->v + j0 * stride;
        for (i64 j = 0; j < nk; j++)
            __builtin_memcpy(keys + j * HS, k + j * stride, (unsigned long)HS * sizeof(real));
        turn(values, KEYS_STRIDE, v, stride, nk, HS);
        // Panels above see none of these keys.
        for (i64 i = max_i64(0, j0 - first) / NR * NR; i < queries; i += NR) {
            const i64 columns = min_i64(NR, queries - i), seen = min_i64(nk, first + i + columns - j0);
            float *a = acc + i * height;
            REAL(block_product)(scores, NR, keys, HS, seen, panels + i * UNITS(HS), 0, columns,
                                (int)HS, 0, NULL);
            for (i64 l = 0; l < columns; l += LANES) {
                const vec keep =
                    soften(scores + l, run + (i + l) / LANES, scale, seen, first + i + l - j0);
                for (i64 d = 0; j0 > 0 && d < HS; d++)
                    store(a + d * NR + l, load(a + d * NR + l) * keep);
            }
            REAL(block_product)(a, NR, values, KEYS_STRIDE, HS, scores, 0, columns, (int)seen,
                                j0 > 0, NULL);
        }
    }
    for (i64 i = 0; i < queries; i += NR)
        finish_forward(out + (q0 + i) * C, lse ? lse + q0 + i : NULL, acc + i * height,
                       run + i / LANES, min_i64(NR, queries - i), C, HS);
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
            const i64 b = bh / NH, at = bh % NH * HS;
            const real *q = qkv + b * T * 3 * C + at;
            const Head head = {q, q + C, q + 2 * C, 3 * C, 3 * C, 0};
            forward_block(out + b * T * C + at, lse ? lse + bh * T : 0, &head, block * QUERIES, T, C,
                          HS);
        }
}

void REAL(tiled_decode)(real *out, real *kcache, real *vcache, const real *qkv,
                        const int *positions, int B, int T, int C, int NH, int maxT) {
    const i64 HS = C / NH, blocks = ceil_div(T, QUERIES), bytes = C * (i64)sizeof(real);
#pragma omp parallel
    {
#pragma omp for schedule(static)
        for (i64 token = 0; token < (i64)B * T; token++) {
            const i64 row = token / T * maxT + positions[token / T] + token % T;
            const real *k = qkv + token * 3 * C + C;
            __builtin_memcpy(kcache + row * C, k, (unsigned long)bytes);
            __builtin_memcpy(vcache + row * C, k + C, (unsigned long)bytes);
        }
#pragma omp for collapse(2) schedule(dynamic)
        for (i64 block = blocks - 1; block >= 0; block--)
            for (i64 bh = 0; bh < (i64)B * NH; bh++) {
                const i64 b = bh / NH, at = bh % NH * HS, cache = b * maxT * C + at;
                const real *q = qkv + b * T * 3 * C + at;
                const Head head = {q, kcache + cache, vcache + cache, 3 * C, C, positions[b]};
                forward_block(out + b * T * C + at, NULL, &head, block * QUERIES, T, C, HS);
            }
    }
}

// to (rows of `stride`) is overwritten by the tile's rows, which lie ldt apart.
static void put(real *to, i64 stride, const float *tile, i64 ldt, i64 rows, i64 columns) {
    for (i64 i = 0; i < rows; i++)
        for (i64 d = 0; d < columns; d += LANES)
            store_n(to + i * stride + d, load_n(tile + i * ldt + d, columns - d), columns - d);
}

// The same where a sum is to become a later tile's: overwritten, or added to.
static void put_sum(float *to, i64 stride, const float *tile, i64 ldt, i64 rows, i64 columns,
                    int add) {
    for (i64 i = 0; i < rows; i++)
        for (i64 d = 0; d < columns; d += LANES) {
            vec v = load(tile + i * ldt + d);
            if (add) v += load_n(to + i * stride + d, columns - d);
            store_n(to + i * stride + d, v, columns - d);
        }
}

#define SUMS_APART (sizeof(real) < sizeof(float)) // f32 is summed where it belongs

// A tile of sums becomes, in place, an operand of the next product: each row begins where it was, so
// that rows lie as many bytes apart as before.
#define OPERAND(tile) ((real *)(tile))

#define TILE 128 // queries of a backward tile, and its keys

_Static_assert((6 * TILE + 2 * MR) * HEAD_MAX + (2 * TILE + 3 * MR) * TILE <= WORKSPACE,
               "a backward tile fits");

// A strip of keys by queries from `first` on. p: scores become probabilities; dp: gradients of the
// probabilities become those of the scores. Row r sees the queries from hidden + r on.
INLINE void differentiate(float *p, float *dp, const float *lse, const float *delta, float scale,
                          i64 keys, i64 first, i64 queries, i64 hidden) {
    for (i64 j = first; j < queries; j += LANES) {
        const vec l = load_n(lse + j, queries - j) * LOG2E, d = load_n(delta + j, queries - j);
        for (i64 r = 0; r < keys; r++) {
            float *at = p + r * TILE + j, *dat = dp + r * TILE + j;
            vec prob = vexp2(load(at) * (scale * LOG2E) - l);
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

// sums (T,2·HS), where SUMS_APART, is scratch for the gradients of the head's keys and values.
static void backward_head(real *dqkv, float *sums, const real *dout, const real *qkv,
                          const float *lse, const float *delta, i64 T, i64 C, i64 HS) {
    const i64 width = round_up(HS, NR), stride = 3 * C, tile = round_up(TILE, MR) * TILE;
    const float scale = 1.0f / sqrtf((float)HS);
    float *queries_t = workspace(), *douts_t = queries_t + TILE * HS;
    float *queries = douts_t + TILE * HS, *douts = queries + TILE * width;
    float *keys = douts + TILE * width, *p = keys + TILE * width;
    float *dp = p + MR * TILE, *dkv = dp + 2 * tile, *dq = dkv + MR * width;
    real *ds = (real *)(dp + tile);
    float *dk = SUMS_APART ? sums : (float *)dqkv + C, *dv = dk + (SUMS_APART ? HS : C);
    const i64 sum_stride = SUMS_APART ? 2 * HS : stride;

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
                put_sum(dv + (j0 + j) * sum_stride, sum_stride, dkv, width, rows, HS, later);
                REAL(block_product)(dkv, width, OPERAND(d) + hidden, TILE * PER, rows,
                                    queries + hidden / PER * NR, UNITS(TILE) * NR, HS, (int)seen, 0,
                                    NULL);
                put_sum(dk + (j0 + j) * sum_stride, sum_stride, dkv, width, rows, HS, later);
            }
            turn(ds, TILE, OPERAND(dp), TILE * PER, nk, nq);
            for (i64 d = 0; d < HS; d += NR)
                REAL(pack_columns)(keys + d * UNITS(TILE), qkv + j0 * stride + C + d, stride, nk,
                                   HS - d);
            for (i64 i = 0; i < nq; i += MR) {
                const i64 rows = min_i64(MR, nq - i), seen = later ? nk : min_i64(nk, i + rows);
                REAL(block_product)(dq + i * width, width, ds + i * TILE, TILE, rows, keys,
                                    UNITS(TILE) * NR, HS, (int)seen, j0 > 0, NULL);
            }
        }
        put(dqkv + i0 * stride, stride, dq, width, nq, HS);
    }
    if (!SUMS_APART) return;
    put(dqkv + C, stride, dk, sum_stride, T, HS);
    put(dqkv + 2 * C, stride, dv, sum_stride, T, HS);
}

static void tiled_backward(real *dqkv, const real *dout, const real *qkv, const real *out,
                           const float *lse, float *scratch, int B, int T, int C, int NH) {
    const i64 HS = C / NH;
#pragma omp parallel for schedule(dynamic)
    for (i64 bh = 0; bh < (i64)B * NH; bh++) {
        const i64 row = bh / NH * T, h = bh % NH, at = row * C + h * HS, at3 = row * 3 * C + h * HS;
        float *delta = scratch + bh * T, *sums = scratch + (i64)B * NH * T + bh * T * 2 * HS;
        for (i64 t = 0; t < T; t++) delta[t] = dot(dout + at + t * C, out + at + t * C, HS);
        backward_head(dqkv + at3, sums, dout + at, qkv + at3, lse + bh * T, delta, T, C, HS);
    }
}

void REAL(attention_backward)(real *dqkv, float *sums, const real *dout, const real *qkv,
                              const real *out, const float *lse, float *scratch, int B, int T, int C,
                              int NH, int accumulate) {
    if (C / NH > HEAD_MAX) REAL(wide_backward)(dqkv, dout, qkv, out, lse, scratch, B, T, C, NH);
    else tiled_backward(dqkv, dout, qkv, out, lse, scratch, B, T, C, NH);
    if (sums) REAL(column_sums)(sums, dqkv, (i64)B * T, 3 * C, accumulate);
}
