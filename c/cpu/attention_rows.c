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

static void decode_head(real *out, real *kcache, real *vcache, const real *qkv, float *scores,
                        i64 position, i64 C, i64 HS) {
    const float scale = 1.0f / sqrtf((float)HS);
    for (i64 d = 0; d < HS; d++) {
        kcache[position * C + d] = qkv[C + d];
        vcache[position * C + d] = qkv[2 * C + d];
    }
    float max = -INFINITY;
    for (i64 j = 0; j <= position; j++) {
        scores[j] = dot(qkv, kcache + j * C, HS) * scale;
        max = fmaxf(max, scores[j]);
    }
    vec sums = splat(0);
    for (i64 j = 0; j <= position; j += LANES) {
        const i64 left = position + 1 - j;
        const vec e = keep_n(vexp(load_n(scores + j, left) - max), splat(0), left);
        store_n(scores + j, e, left);
        sums += e;
    }
    const float total = sum(sums);
    for (i64 d = 0; d < HS; d += LANES) {
        vec acc = splat(0);
        for (i64 j = 0; j <= position; j++) acc += scores[j] * load_n(vcache + j * C + d, HS - d);
        store_n(out + d, acc * (1 / total), HS - d);
    }
}

void REAL(attention_decode)(real *out, real *kcache, real *vcache, const real *qkv,
                            const int *position, float *scratch, int C, int NH, int maxT) {
    const i64 HS = C / NH;
#pragma omp parallel for schedule(static)
    for (i64 h = 0; h < NH; h++)
        decode_head(out + h * HS, kcache + h * HS, vcache + h * HS, qkv + h * HS,
                    scratch + h * maxT, *position, C, HS);
}
