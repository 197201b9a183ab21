/* The linear layer, where nearly all of the arithmetic is: each of OC output channels is a weighted
 * sum of the C input channels. One product goes forward; two come back, one for each factor. */
#include "activation.h"
#include "real.h"

// The products backward walk down columns of their operands. Summing one cache line of neighbouring
// columns (floats) side by side reads each line once.
enum { TILE = 16 };

// out[n,o] = sum over c of inp[n,c]·weight[o,c]
void REAL(matmul_forward)(real *out, real *pre, const real *inp, const real *weight,
                          const real *bias, const real *residual, float *scratch, int N, int C,
                          int OC) {
    (void)scratch; // nothing is repacked here
    for (int n = 0; n < N; n++) {
        const real *x = inp + (i64)n * C;
        for (int o = 0; o < OC; o++) {
            const real *w = weight + (i64)o * C;
            i64 at = (i64)n * OC + o;

            double sum = bias ? value(bias[o]) : 0;
            for (int c = 0; c < C; c++) sum += (double)value(x[c]) * value(w[c]);
            if (pre) {
                pre[at] = rounded(sum);
                sum = gelu(value(pre[at]));
            }
            out[at] = rounded(residual ? sum + value(residual[at]) : sum);
        }
    }
}

// dinp[n,c] = sum over o of dout[n,o]·weight[o,c]: every output that inp[n,c] took part in sends
// its gradient back along the same weight.
void REAL(matmul_backward_input)(real *dinp, float *sums, const real *dout, const real *weight,
                                 const real *pre, int N, int C, int OC, int accumulate_inp,
                                 int accumulate) {
    for (int n = 0; n < N; n++) {
        const real *d = dout + (i64)n * OC;
        for (int first = 0; first < C; first += TILE) {
            int columns = C - first < TILE ? C - first : TILE;
            i64 at = (i64)n * C + first;

            double sum[TILE];
            for (int c = 0; c < columns; c++) sum[c] = accumulate_inp ? value(dinp[at + c]) : 0;
            for (int o = 0; o < OC; o++) {
                const real *w = weight + (i64)o * C + first;
                double gradient = value(d[o]);
                for (int c = 0; c < columns; c++) sum[c] += gradient * value(w[c]);
            }
            for (int c = 0; c < columns; c++) {
                if (pre) sum[c] *= gelu_gradient(value(pre[at + c]));
                dinp[at + c] = rounded(sum[c]);
            }
        }
    }

    // A bias that was added to every row of inp, before its GELU if it had one, is sent them all.
    for (int c = 0; sums && c < C; c++) {
        double sum = accumulate ? sums[c] : 0;
        for (int n = 0; n < N; n++) sum += value(dinp[(i64)n * C + c]);
        sums[c] = (float)sum;
    }
}

// dweight[o,c] = sum over n of dout[n,o]·inp[n,c]: all rows share the weights, so all of them have
// a say.
void REAL(matmul_backward_weight)(float *dweight, float *dbias, const real *dout, const real *inp,
                                  float *scratch, int N, int C, int OC, int accumulate) {
    (void)scratch;
    for (int o = 0; o < OC; o++) {
        for (int first = 0; first < C; first += TILE) {
            int columns = C - first < TILE ? C - first : TILE;
            float *dw = dweight + (i64)o * C + first;

            double sum[TILE];
            for (int c = 0; c < columns; c++) sum[c] = accumulate ? dw[c] : 0;
            for (int n = 0; n < N; n++) {
                const real *x = inp + (i64)n * C + first;
                double gradient = value(dout[(i64)n * OC + o]);
                for (int c = 0; c < columns; c++) sum[c] += gradient * value(x[c]);
            }
            for (int c = 0; c < columns; c++) dw[c] = (float)sum[c];
        }
    }
    if (!dbias) return;
    for (int o = 0; o < OC; o++) {
        double sum = accumulate ? dbias[o] : 0;
        for (int n = 0; n < N; n++) sum += value(dout[(i64)n * OC + o]);
        dbias[o] = (float)sum;
    }
}
