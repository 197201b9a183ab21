/* Attention one row at a time: heads too wide for tiles, and the newest token against a cache. */
#include <math.h>

#include "attention.h"

// Row t of one head's q; its k is C further on, its v 2C.
#define ROW3(x, t) ((x) + (t) * stride)

INLINE void put_row(real *out, const float *sums, float scale, i64 n) {
    for (i64 d = 0; d < n; d += LANES) store_n(out + d, load_n(sums + d, n - d) * scale, n - d);
}

static void forward_head(real *out, float *lse, const real *qkv, i64 T, i64 C, i64 HS) {
    const i64 stride = 3 * C;
    const float scale = 1.0f / sqrtf((float)HS);
    float *acc = workspace();
    for (i64 t = 0; t < T; t++) {
        float max = -INFINITY, total = 0;
        for (i64 d = 0; d < HS; d++) acc[d] = 0;
        for (i64 j = 0; j <= t; j++) {
            const float s = dot(ROW3(qkv, t), ROW3(qkv, j) + C, HS) * scale;
            const float next = fmaxf(max, s), keep = expf(max - next), p = expf(s - next);
            blend(acc, keep, ROW3(qkv, j) + 2 * C, p, HS);
            total = total * keep + p;
            max = next;
        }
        put_row(out + t * C, acc, 1 / total, HS);
        if (lse) lse[t] = max + logf(total);
    }
}

void REAL(wide_forward)(real *out, float *lse, const real *qkv, int B, int T, int C, int NH) {
    const i64 HS = C / NH;
#pragma omp parallel for schedule(dynamic)
    for (i64 bh = 0; bh < (i64)B * NH; bh++) {
        const i64 row = bh / NH * T, h = bh % NH;
        forward_head(out + row * C + h * HS, lse ? lse + bh * T : NULL, qkv + row * 3 * C + h * HS,
                     T, C, HS);
    }
}

// One head; delta (T) holds dout·out.
static void backward_head(real *dqkv, const real *dout, const real *qkv, const float *lse,
                          const float *delta, i64 T, i64 C, i64 HS) {
    const i64 stride = 3 * C;
    const float scale = 1.0f / sqrtf((float)HS);
    float *dq = workspace(), *dk = dq + HS, *dv = dk + HS;
    for (i64 row = 0; row < T; row++) {
        for (i64 d = 0; d < 3 * HS; d++) dq[d] = 0;
        // As a query, with the keys up to itself; as a key, with the queries from itself on.
        for (i64 j = 0; j <= row; j++) {
            const real *k = ROW3(qkv, j) + C;
            const float p = expf(dot(ROW3(qkv, row), k, HS) * scale - lse[row]);
            const float dp = dot(dout + row * C, k + C, HS);
            blend(dq, 1, k, p * (dp - delta[row]) * scale, HS);
        }
        const real *k = ROW3(qkv, row) + C;
        for (i64 t = row; t < T; t++) {
            const float p = expf(dot(ROW3(qkv, t), k, HS) * scale - lse[t]);
            const float dp = dot(dout + t * C, k + C, HS);
            blend(dk, 1, ROW3(qkv, t), p * (dp - delta[t]) * scale, HS);
            blend(dv, 1, dout + t * C, p, HS);
        }
        for (i64 part = 0; part < 3; part++)
            put_row(ROW3(dqkv, row) + part * C, dq + part * HS, 1, HS);
    }
}

void REAL(wide_backward)(real *dqkv, const real *dout, const real *qkv, const real *out,
                         const float *lse, float *scratch, int B, int T, int C, int NH) {
    const i64 HS = C / NH;
#pragma omp parallel for schedule(dynamic)
    for (i64 bh = 0; bh < (i64)B * NH; bh++) {
        const i64 row = bh / NH * T, h = bh % NH, at = row * C + h * HS, at3 = row * 3 * C + h * HS;
        float *delta = scratch + bh * T;
        for (i64 t = 0; t < T; t++) delta[t] = dot(dout + at + t * C, out + at + t * C, HS);
        backward_head(dqkv + at3, dout + at, qkv + at3, lse + bh * T, delta, T, C, HS);
    }
}

#define PASS 16      // rows of a cache that all heads of a task go over before the next ones
#define COLUMNS 1024 // whose sums a task keeps at a time

// scores (n) become probabilities.
static void soften_row(float *scores, i64 n) {
    float max = -INFINITY;
    for (i64 j = 0; j < n; j++) max = fmaxf(max, scores[j]);
    vec sums = splat(0);
    for (i64 j = 0; j < n; j += LANES) {
        const vec e = keep_n(vexp(load_n(scores + j, n - j) - max), splat(0), n - j);
        store_n(scores + j, e, n - j);
        sums += e;
    }
    const float share = 1 / sum(sums);
    for (i64 j = 0; j < n; j++) scores[j] *= share;
}

// out, columns from `first` to `last` = probabilities · vcache, whose rows are read in whole stretches.
static void blend_rows(real *out, const real *vcache, const float *scores, i64 n, i64 C, i64 HS,
                       i64 maxT, i64 first, i64 last) {
    float sums[COLUMNS];
    for (i64 d = first; d < last; d++) sums[d - first] = 0;
    for (i64 j0 = 0; j0 < n; j0 += PASS)
        for (i64 d = first, next; d < last; d = next) {
            const float *p = scores + d / HS * maxT;
            next = min_i64(min_i64(d + LANES, (d / HS + 1) * HS), last);
            vec acc = load_n(sums + d - first, next - d);
            for (i64 j = j0; j < min_i64(n, j0 + PASS); j++)
                acc += p[j] * load_n(vcache + j * C + d, next - d);
            store_n(sums + d - first, acc, next - d);
        }
    for (i64 d = first; d < last; d += LANES)
        store_n(out + d, load_n(sums + d - first, last - d), last - d);
}

// The tokens of one sequence, for heads that lie beside each other: their parts of a row of the caches
// do as well. All pointers are at the first head's numbers.
static void decode_heads(real *out, real *kcache, real *vcache, const real *qkv, float *scores,
                         i64 position, i64 T, i64 C, i64 HS, i64 heads, i64 maxT) {
    const float scale = 1.0f / sqrtf((float)HS);
    const i64 stride = 3 * C, width = heads * HS;
    for (i64 t = 0; t < T; t++, position++) {
        const real *q = ROW3(qkv, t);
        const i64 rows = position + 1;
        for (i64 d = 0; d < width; d++) {
            kcache[position * C + d] = q[C + d];
            vcache[position * C + d] = q[2 * C + d];
        }
        for (i64 j0 = 0; j0 < rows; j0 += PASS)
            for (i64 h = 0; h < heads; h++)
                for (i64 j = j0; j < min_i64(rows, j0 + PASS); j++)
                    scores[h * maxT + j] = dot(q + h * HS, kcache + j * C + h * HS, HS) * scale;
        for (i64 h = 0; h < heads; h++) soften_row(scores + h * maxT, rows);
        for (i64 d = 0; d < width; d += COLUMNS)
            blend_rows(out + t * C, vcache, scores, rows, C, HS, maxT, d,
                       min_i64(width, d + COLUMNS));
    }
}

// One token reads every row once, in the longest stretches that leave each thread some; of a wide head
// the rows stay in the cache for the next token.
void REAL(attention_decode)(real *out, real *kcache, real *vcache, const real *qkv,
                            const int *positions, float *scratch, int B, int T, int C, int NH,
                            int maxT) {
    const i64 HS = C / NH;
    if (T > 1 && HS <= HEAD_MAX) {
        REAL(tiled_decode)(out, kcache, vcache, qkv, positions, B, T, C, NH, maxT);
        return;
    }
    const i64 threads = min_i64(NH, ceil_div(team_size(), B)); // a sequence
    const i64 heads = T > 1 ? 1 : ceil_div(NH, threads);
#pragma omp parallel for collapse(2) schedule(static)
    for (i64 b = 0; b < B; b++)
        for (i64 h = 0; h < NH; h += heads) {
            const i64 at = b * T * C + h * HS, cache = b * maxT * C + h * HS;
            decode_heads(out + at, kcache + cache, vcache + cache, qkv + b * T * 3 * C + h * HS,
                         scratch + (b * NH + h) * maxT, positions[b], T, C, HS,
                         min_i64(heads, NH - h), maxT);
        }
}
