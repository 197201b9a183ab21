/* Attention one row at a time: heads too wide for tiles, and the newest token against a cache. */
#include <math.h>

#include "attention.h"

// Row t of one head's q; its k is C further on, its v 2C.
#define ROW3(x, t) ((x) + (t) * stride)

static void forward_head(float *out, float *lse, const float *qkv, i64 T, i64 C, i64 HS) {
    const i64 stride = 3 * C;
    const float scale = 1.0f / sqrtf((float)HS);
    for (i64 t = 0; t < T; t++) {
        float *o = out + t * C, max = -INFINITY, total = 0;
        for (i64 d = 0; d < HS; d++) o[d] = 0;
        for (i64 j = 0; j <= t; j++) {
            const float s = dot(ROW3(qkv, t), ROW3(qkv, j) + C, HS) * scale;
            const float next = fmaxf(max, s), keep = expf(max - next), p = expf(s - next);
            blend(o, keep, ROW3(qkv, j) + 2 * C, p, HS);
            total = total * keep + p;
            max = next;
        }
        for (i64 d = 0; d < HS; d++) o[d] /= total;
        if (lse) lse[t] = max + logf(total);
    }
}

void wide_forward(float *out, float *lse, const float *qkv, int B, int T, int C, int NH) {
    const i64 HS = C / NH;
#pragma omp parallel for schedule(dynamic)
    for (i64 bh = 0; bh < (i64)B * NH; bh++) {
        const i64 row = bh / NH * T, h = bh % NH;
        forward_head(out + row * C + h * HS, lse ? lse + bh * T : NULL, qkv + row * 3 * C + h * HS,
                     T, C, HS);
    }
}

static void backward_head(float *dqkv, const float *dout, const float *qkv, const float *out,
                          const float *lse, i64 T, i64 C, i64 HS) {
    const i64 stride = 3 * C;
    const float scale = 1.0f / sqrtf((float)HS);
    for (i64 t = 0; t < T; t++)
        for (i64 part = 0; part < 3; part++)
            for (i64 d = 0; d < HS; d++) ROW3(dqkv, t)[part * C + d] = 0;
    for (i64 t = 0; t < T; t++) {
        const float *q = ROW3(qkv, t), *g = dout + t * C;
        const float delta = dot(g, out + t * C, HS);
        for (i64 j = 0; j <= t; j++) {
            const float *k = ROW3(qkv, j) + C, *v = k + C;
            const float p = expf(dot(q, k, HS) * scale - lse[t]);
            const float ds = p * (dot(g, v, HS) - delta) * scale;
            blend(ROW3(dqkv, t), 1, k, ds, HS);
            blend(ROW3(dqkv, j) + C, 1, q, ds, HS);
            blend(ROW3(dqkv, j) + 2 * C, 1, g, p, HS);
        }
    }
}

void wide_backward(float *dqkv, const float *dout, const float *qkv, const float *out,
                   const float *lse, int B, int T, int C, int NH) {
    const i64 HS = C / NH;
#pragma omp parallel for schedule(dynamic)
    for (i64 bh = 0; bh < (i64)B * NH; bh++) {
        const i64 row = bh / NH * T, h = bh % NH, at = row * C + h * HS, at3 = row * 3 * C + h * HS;
        backward_head(dqkv + at3, dout + at, qkv + at3, out + at, lse + bh * T, T, C, HS);
    }
}

static void decode_head(float *out, float *kcache, float *vcache, const float *qkv, float *scores,
                        i64 position, i64 C, i64 HS) {
    const float scale = 1.0f / sqrtf((float)HS);
    for (i64 d = 0; d < HS; d++) {
        kcache[position * C + d] = qkv[C + d];
        vcache[position * C + d] = qkv[2 * C + d];
    }
    for (i64 j = 0; j <= position; j++) scores[j] = dot(qkv, kcache + j * C, HS) * scale;
    const float total = row_exp(scores, scores, row_max(scores, position + 1), position + 1);
    for (i64 d = 0; d < HS; d += LANES) {
        vec acc = splat(0);
        for (i64 j = 0; j <= position; j++) acc += scores[j] * load_n(vcache + j * C + d, HS - d);
        store_n(out + d, acc * (1 / total), HS - d);
    }
}

void attention_decode(float *out, float *kcache, float *vcache, const float *qkv,
                      const int *position, float *scratch, int C, int NH, int maxT) {
    const i64 HS = C / NH;
#pragma omp parallel for schedule(static)
    for (i64 h = 0; h < NH; h++)
        decode_head(out + h * HS, kcache + h * HS, vcache + h * HS, qkv + h * HS,
                    scratch + h * maxT, *position, C, HS);
}
