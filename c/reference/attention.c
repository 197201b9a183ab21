/* Causal self-attention: every token asks a question (q), offers a key (k) and holds a value (v).
 * What a token takes home is the average of the values of all tokens up to itself, weighted by how
 * well their keys answer its question. The heads do this side by side, on HS channels each. */
#include "libm.h"
#include "real.h"

// Channels that are summed up side by side: most heads in one go.
enum { CHANNELS = 64 };

static double dot(const real *a, const real *b, int n) {
    double sum = 0;
    for (int i = 0; i < n; i++) sum += (double)value(a[i]) * value(b[i]);
    return sum;
}

/* The log of the sum of exponentials of one question's scaled scores with `rows` keys, `stride`
 * apart. On line: exponentials are taken relative to the largest score so far, lest they overflow;
 * when a larger one turns up, what has been added so far is scaled down to it. */
static double scores_lse(const real *q, const real *k, int rows, int stride, int HS) {
    double scale = 1 / sqrt(HS), max = -1.0 / 0.0, sum = 0;
    for (int row = 0; row < rows; row++) {
        double score = scale * dot(q, k + (i64)row * stride, HS);
        if (score > max) {
            sum *= exp(max - score);
            max = score;
        }
        sum += exp(score - max);
    }
    return max + log(sum);
}

/* One question to `rows` keys and values, each `stride` numbers after the last:
 * out = softmax(q·kᵀ/sqrt(HS))·v. Returns the log of the scaled scores' sum of exponentials. */
static double attend(real *out, const real *q, const real *k, const real *v, int rows, int stride,
                     int HS) {
    double scale = 1 / sqrt(HS), lse = scores_lse(q, k, rows, stride, HS);
    for (int first = 0; first < HS; first += CHANNELS) {
        int channels = HS - first < CHANNELS ? HS - first : CHANNELS;
        double sum[CHANNELS] = {0};
        for (int row = 0; row < rows; row++) {
            double weight = exp(scale * dot(q, k + (i64)row * stride, HS) - lse);
            const real *from = v + (i64)row * stride + first;
            for (int i = 0; i < channels; i++) sum[i] += weight * value(from[i]);
        }
        for (int i = 0; i < channels; i++) out[first + i] = rounded(sum[i]);
    }
    return lse;
}

void REAL(attention_forward)(real *out, float *lse, const real *qkv, int B, int T, int C, int NH) {
    int HS = C / NH;
    for (int b = 0; b < B; b++) {
        for (int h = 0; h < NH; h++) {
            const real *q = qkv + (i64)b * T * 3 * C + h * HS; // and k, v: C and 2C further on
            for (int t = 0; t < T; t++) {
                real *o = out + ((i64)b * T + t) * C + h * HS;
                double l = attend(o, q + (i64)t * 3 * C, q + C, q + 2 * C, t + 1, 3 * C, HS);
                if (lse) lse[((i64)b * NH + h) * T + t] = (float)l;
            }
        }
    }
}

/* What one head's gradients are made of; every pointer is at the head's first number. */
typedef struct {
    const real *q, *dout, *out; // k and v: C and 2C after q
    const float *lse;
    int C, HS;
} Head;

// Every line of the forward pass has its answer, with p the softmax's weight of the pair (t, t2):
//   qk = q[t]·k[t2]                   →  dq[t] += dqk·k[t2];  dk[t2] += dqk·q[t]
//   p = exp(scale·qk - lse[t])        →  dqk = scale·p·(dp - sum over t2 of p·dp)
//   out[t] = sum over t2 of p·v[t2]   →  dv[t2] += p·dout[t];  dp = dout[t]·v[t2]
// The sum of p·dp is dout[t]·out[t], for out[t] is the sum of p·v[t2]: the row need not be kept.
static void pair(double *p, double *dqk, const Head *head, i64 t, i64 t2) {
    int C = head->C, HS = head->HS;
    const real *q = head->q + t * 3 * C, *k = head->q + t2 * 3 * C + C, *v = k + C;
    const real *d = head->dout + t * C;
    double scale = 1 / sqrt(HS);
    *p = exp(scale * dot(q, k, HS) - head->lse[t]);
    *dqk = scale * *p * (dot(d, v, HS) - dot(d, head->out + t * C, HS));
}

// The gradient of the question of token t.
static void question_gradient(real *dq, const Head *head, int t) {
    for (int first = 0; first < head->HS; first += CHANNELS) {
        int channels = head->HS - first < CHANNELS ? head->HS - first : CHANNELS;
        double sum[CHANNELS] = {0}, p, dqk;
        for (int t2 = 0; t2 <= t; t2++) {
            const real *k = head->q + (i64)t2 * 3 * head->C + head->C + first;
            pair(&p, &dqk, head, t, t2);
            for (int i = 0; i < channels; i++) sum[i] += dqk * value(k[i]);
        }
        for (int i = 0; i < channels; i++) dq[first + i] = rounded(sum[i]);
    }
}

// The gradients of the key and the value of token t2, which all tokens from t2 on have looked at.
static void answer_gradients(real *dk, real *dv, const Head *head, int t2, int T) {
    for (int first = 0; first < head->HS; first += CHANNELS) {
        int channels = head->HS - first < CHANNELS ? head->HS - first : CHANNELS;
        double key[CHANNELS] = {0}, of_value[CHANNELS] = {0}, p, dqk;
        for (int t = t2; t < T; t++) {
            const real *q = head->q + (i64)t * 3 * head->C + first;
            const real *d = head->dout + (i64)t * head->C + first;
            pair(&p, &dqk, head, t, t2);
            for (int i = 0; i < channels; i++) {
                key[i] += dqk * value(q[i]);
                of_value[i] += p * value(d[i]);
            }
        }
        for (int i = 0; i < channels; i++) {
            dk[first + i] = rounded(key[i]);
            dv[first + i] = rounded(of_value[i]);
        }
    }
}

void REAL(attention_backward)(real *dqkv, float *sums, const real *dout, const real *qkv,
                              const real *out, const float *lse, float *scratch, int B, int T, int C,
                              int NH, int accumulate) {
    (void)scratch; // a row at a time needs dout·out of that row alone
    int HS = C / NH;
    for (int b = 0; b < B; b++) {
        for (int h = 0; h < NH; h++) {
            i64 at = (i64)b * T * C + h * HS, at3 = (i64)b * T * 3 * C + h * HS;
            Head head = {qkv + at3, dout + at, out + at, lse + ((i64)b * NH + h) * T, C, HS};
            for (int t = 0; t < T; t++) {
                real *dq = dqkv + at3 + (i64)t * 3 * C;
                question_gradient(dq, &head, t);
                answer_gradients(dq + C, dq + 2 * C, &head, t, T);
            }
        }
    }
    if (!sums) return;
    for (int c = 0; c < 3 * C; c++) {
        double sum = accumulate ? sums[c] : 0;
        for (i64 token = 0; token < (i64)B * T; token++) sum += value(dqkv[token * 3 * C + c]);
        sums[c] = (float)sum;
    }
}

// While sampling, keys and values of the tokens before do not change, so they are kept.
void REAL(attention_decode)(real *out, real *kcache, real *vcache, const real *qkv,
                            const int *positions, float *scratch, int B, int T, int C, int NH,
                            int maxT) {
    (void)scratch;
    int HS = C / NH;
    for (i64 token = 0; token < (i64)B * T; token++) {
        i64 b = token / T, row = positions[b] + token % T;
        real *keys = kcache + b * maxT * C, *values = vcache + b * maxT * C;
        const real *q = qkv + token * 3 * C;
        for (int c = 0; c < C; c++) {
            keys[row * C + c] = q[C + c];
            values[row * C + c] = q[2 * C + c];
        }
        for (int h = 0; h < NH; h++) {
            i64 at = (i64)h * HS;
            attend(out + token * C + at, q + at, keys + at, values + at, (int)row + 1, C, HS);
        }
    }
}
