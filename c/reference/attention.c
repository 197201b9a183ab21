/* Causal self-attention: every token asks a question (q), offers a key (k) and holds a value (v).
 * What a token takes home is the average of the values of all tokens up to itself, weighted by how
 * well their keys answer its question. The heads do this side by side, on HS channels each. */
#include "libm.h"
#include "llm.h"

static double dot(const float *a, const float *b, int n) {
    double sum = 0;
    for (int i = 0; i < n; i++) sum += (double)a[i] * b[i];
    return sum;
}

/* One question to `rows` keys and values, each `stride` floats after the last:
 * out = softmax(q·kᵀ/sqrt(HS))·v. Returns the log of the scaled scores' sum of exponentials. */
static double attend(float *out, const float *q, const float *k, const float *v, int rows,
                     int stride, int HS) {
    double scale = 1 / sqrt(HS);
    double max = -1.0 / 0.0, sum = 0;
    for (int i = 0; i < HS; i++) out[i] = 0;

    // The softmax on line: exponentials are taken relative to the largest score so far, lest they
    // overflow; when a larger one turns up, what has been added so far is scaled down to it.
    for (int row = 0; row < rows; row++) {
        const float *value = v + (i64)row * stride;
        double score = scale * dot(q, k + (i64)row * stride, HS);
        if (score > max) {
            double shrink = exp(max - score);
            sum *= shrink;
            for (int i = 0; i < HS; i++) out[i] = (float)(out[i] * shrink);
            max = score;
        }
        double weight = exp(score - max);
        sum += weight;
        for (int i = 0; i < HS; i++) out[i] = (float)(out[i] + weight * value[i]);
    }
    for (int i = 0; i < HS; i++) out[i] = (float)(out[i] / sum);
    return max + log(sum);
}

void attention_forward(float *out, float *lse, const float *qkv, int B, int T, int C, int NH) {
    int HS = C / NH;
    for (int b = 0; b < B; b++) {
        for (int h = 0; h < NH; h++) {
            const float *q = qkv + (i64)b * T * 3 * C + h * HS; // and k, v: C and 2C further on
            for (int t = 0; t < T; t++) {
                float *o = out + ((i64)b * T + t) * C + h * HS;
                double l = attend(o, q + (i64)t * 3 * C, q + C, q + 2 * C, t + 1, 3 * C, HS);
                if (lse) lse[((i64)b * NH + h) * T + t] = (float)l;
            }
        }
    }
}

// Every line of the forward pass has its answer, with p the softmax's weight of the pair (t, t2):
//   qk = q[t]·k[t2]                   →  dq[t] += dqk·k[t2];  dk[t2] += dqk·q[t]
//   p = exp(scale·qk - lse[t])        →  dqk = scale·p·(dp - sum over t2 of p·dp)
//   out[t] = sum over t2 of p·v[t2]   →  dv[t2] += p·dout[t];  dp = dout[t]·v[t2]
// The sum of p·dp is dout[t]·out[t], for out[t] is the sum of p·v[t2]: the row need not be kept.
void attention_backward(float *dqkv, const float *dout, const float *qkv, const float *out,
                        const float *lse, float *scratch, int B, int T, int C, int NH) {
    (void)scratch; // a row at a time needs dout·out of that row alone
    int HS = C / NH;
    double scale = 1 / sqrt(HS);
    for (i64 i = 0; i < (i64)B * T * 3 * C; i++) dqkv[i] = 0;
    for (int b = 0; b < B; b++) {
        for (int h = 0; h < NH; h++) {
            for (int t = 0; t < T; t++) {
                i64 row = (i64)b * T + t;
                const float *d = dout + row * C + h * HS;
                const float *q = qkv + row * 3 * C + h * HS;
                float *dq = dqkv + row * 3 * C + h * HS;
                double sum_pdp = dot(d, out + row * C + h * HS, HS);
                double l = lse[((i64)b * NH + h) * T + t];

                for (int t2 = 0; t2 <= t; t2++) {
                    i64 at = ((i64)b * T + t2) * 3 * C + h * HS;
                    const float *k = qkv + at + C, *v = qkv + at + 2 * C;
                    float *dk = dqkv + at + C, *dv = dqkv + at + 2 * C;

                    double p = exp(scale * dot(q, k, HS) - l);
                    double dqk = scale * p * (dot(d, v, HS) - sum_pdp);
                    for (int i = 0; i < HS; i++) {
                        dq[i] = (float)(dq[i] + dqk * k[i]);
                        dk[i] = (float)(dk[i] + dqk * q[i]);
                        dv[i] = (float)(dv[i] + p * d[i]);
                    }
                }
            }
        }
    }
}

// While sampling, keys and values of the tokens before do not change, so they are kept.
void attention_decode(float *out, float *kcache, float *vcache, const float *qkv,
                      const int *position, float *scratch, int C, int NH, int maxT) {
    (void)scratch, (void)maxT;
    int HS = C / NH, t = *position;
    for (int c = 0; c < C; c++) {
        kcache[(i64)t * C + c] = qkv[C + c];
        vcache[(i64)t * C + c] = qkv[2 * C + c];
    }
    for (int h = 0; h < NH; h++) {
        i64 at = (i64)h * HS;
        attend(out + at, qkv + at, kcache + at, vcache + at, t + 1, C, HS);
    }
}
