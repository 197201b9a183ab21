/* Layer normalisation: every row is shifted to mean 0 and scaled to variance 1, then given a scale
 * and a shift that are learned. The rows keep a common size, however deep the model. */
#include "libm.h"
#include "llm.h"

void layernorm_forward(float *out, float *mean, float *rstd, const float *inp, const float *weight,
                       const float *bias, int N, int C, float eps) {
    for (int n = 0; n < N; n++) {
        const float *x = inp + (i64)n * C;
        float *o = out + (i64)n * C;

        double sum = 0;
        for (int c = 0; c < C; c++) sum += x[c];
        double m = sum / C;

        // A second pass: when |mean| ≫ std, E[x²] - mean² cancels to noise.
        double squares = 0;
        for (int c = 0; c < C; c++) {
            double d = x[c] - m;
            squares += d * d;
        }
        double r = 1 / sqrt(squares / C + eps);

        for (int c = 0; c < C; c++) o[c] = (float)((x[c] - m) * r * weight[c] + bias[c]);
        if (mean) mean[n] = (float)m;
        if (rstd) rstd[n] = (float)r;
    }
}

void layernorm_backward(float *dinp, float *dweight, float *dbias, const float *dout,
                        const float *inp, const float *weight, const float *mean, const float *rstd,
                        int N, int C, int accumulate_inp, int accumulate) {
    // The row's mean and variance depend on every element of it, so each element's gradient reaches
    // all others: what is left is g without the parts that a shift and a stretch would undo.
    for (int n = 0; n < N; n++) {
        const float *x = inp + (i64)n * C, *d = dout + (i64)n * C;
        float *dx = dinp + (i64)n * C;
        double m = mean[n], r = rstd[n];

        double sum_g = 0, sum_gn = 0;
        for (int c = 0; c < C; c++) {
            double g = (double)d[c] * weight[c], norm = (x[c] - m) * r;
            sum_g += g;
            sum_gn += g * norm;
        }
        double avg_g = sum_g / C, avg_gn = sum_gn / C;

        for (int c = 0; c < C; c++) {
            double g = (double)d[c] * weight[c], norm = (x[c] - m) * r;
            double gradient = r * (g - avg_g - norm * avg_gn);
            dx[c] = (float)(accumulate_inp ? dx[c] + gradient : gradient);
        }
    }

    // Scale and shift serve every row, so their gradients are sums over the rows.
    for (int c = 0; c < C; c++) {
        double dw = accumulate ? dweight[c] : 0, db = accumulate ? dbias[c] : 0;
        for (int n = 0; n < N; n++) {
            double d = dout[(i64)n * C + c];
            dw += d * (inp[(i64)n * C + c] - (double)mean[n]) * rstd[n];
            db += d;
        }
        dweight[c] = (float)dw;
        dbias[c] = (float)db;
    }
}
