/* Layer normalisation: every row is shifted to mean 0 and scaled to variance 1, then given a scale
 * and a shift that are learned. The rows keep a common size, however deep the model. */
#include "libm.h"
#include "real.h"

void REAL(layernorm_forward)(real *out, float *mean, float *rstd, const real *inp,
                             const real *weight, const real *bias, int N, int C, float eps) {
    for (int n = 0; n < N; n++) {
        const real *x = inp + (i64)n * C;
        real *o = out + (i64)n * C;

        double sum = 0;
        for (int c = 0; c < C; c++) sum += value(x[c]);
        double m = sum / C;

        // A second pass: when |mean| ≫ std, E[x²] - mean² cancels to noise.
        double squares = 0;
        for (int c = 0; c < C; c++) {
            double d = value(x[c]) - m;
            squares += d * d;
        }
        double r = 1 / sqrt(squares / C + eps);

        for (int c = 0; c < C; c++)
            o[c] = rounded((value(x[c]) - m) * r * value(weight[c]) + value(bias[c]));
        if (mean) mean[n] = (float)m;
        if (rstd) rstd[n] = (float)r;
    }
}

void REAL(layernorm_backward)(real *dinp, float *dweight, float *dbias, float *sums,
                              const real *dout, const real *inp, const real *weight,
                              const float *mean, const float *rstd, int N, int C,
                              int accumulate_inp, int accumulate) {
    // The row's mean and variance depend on every element of it, so each element's gradient reaches
    // all others: what is left is g without the parts that a shift and a stretch would undo.
    for (int n = 0; n < N; n++) {
        const real *x = inp + (i64)n * C, *d = dout + (i64)n * C;
        real *dx = dinp + (i64)n * C;
        double m = mean[n], r = rstd[n];

        double sum_g = 0, sum_gn = 0;
        for (int c = 0; c < C; c++) {
            double g = (double)value(d[c]) * value(weight[c]), norm = (value(x[c]) - m) * r;
            sum_g += g;
            sum_gn += g * norm;
        }
        double avg_g = sum_g / C, avg_gn = sum_gn / C;

        for (int c = 0; c < C; c++) {
            double g = (double)value(d[c]) * value(weight[c]), norm = (value(x[c]) - m) * r;
            double gradient = r * (g - avg_g - norm * avg_gn);
            dx[c] = rounded(accumulate_inp ? value(dx[c]) + gradient : gradient);
        }
    }

    // Scale and shift serve every row, so their gradients are sums over the rows.
    for (int c = 0; c < C; c++) {
        double dw = accumulate ? dweight[c] : 0, db = accumulate ? dbias[c] : 0;
        for (int n = 0; n < N; n++) {
            double d = value(dout[(i64)n * C + c]);
            dw += d * (value(inp[(i64)n * C + c]) - (double)mean[n]) * rstd[n];
            db += d;
        }
        dweight[c] = (float)dw;
        dbias[c] = (float)db;
    }

    // So does a bias that was added to every row.
    if (!sums) return;
    for (int c = 0; c < C; c++) {
        double sum = accumulate ? sums[c] : 0;
        for (int n = 0; n < N; n++) sum += value(dinp[(i64)n * C + c]);
        sums[c] = (float)sum;
    }
}
