/* The linear layer, forward and backward: each product in one go with all that belongs to it, or else
 * in the fewest passes that can be had, or else by the kernel that takes anything. */
#include "product.h"

constexpr Kind KIND = sizeof(real) < sizeof(float) ? BF16 : F32;

void REAL(matmul_forward)(real *out, real *pre, const real *inp, const real *weight,
                          const real *bias, const real *residual, float *, int N, int C, int OC) {
    if (N < LLM_FEW_ROWS) return REAL(few_rows)(out, pre, inp, weight, bias, residual, N, C, OC);
    const Product all = {FORWARD, KIND, N, OC, C, out, inp, weight, bias, pre, residual, nullptr};
    if (product(all)) return;
    if (pre && !residual) {
        Product linear = all;
        linear.out = pre;
        linear.pre = nullptr;
        if (product(linear)) return REAL(gelu_forward)(out, pre, (i64)N * OC);
    }
    tiled_product(all);
}

void REAL(matmul_backward_input)(real *dinp, float *sums, const real *dout, const real *weight,
                                 const real *pre, int N, int C, int OC, int accumulate_inp,
                                 int accumulate) {
    const real *const added = accumulate_inp ? dinp : nullptr;
    const Product linear = {BACKWARD_INPUT, KIND,   N,       C,       OC,    dinp,
                            dout,           weight, nullptr, nullptr, added, nullptr};
    Product all = linear;
    all.pre = (real *)pre;
    all.out_sums = sums;
    all.adds_sums = accumulate;
    if (product(all)) return;
    if (pre && product(linear)) REAL(gelu_backward)(dinp, dinp, pre, (i64)N * C);
    else tiled_product(all);
    if (sums) column_sums(sums, dinp, KIND == BF16, N, C, accumulate);
}

void REAL(matmul_backward_weight)(float *dweight, float *dbias, const real *dout, const real *inp,
                                  float *, int N, int C, int OC, int accumulate) {
    const float *const added = accumulate ? dweight : nullptr;
    const Product linear = {BACKWARD_WEIGHT, KIND, OC,      C,       N,     dweight,
                            dout,            inp,  nullptr, nullptr, added, nullptr};
    if (dbias && !accumulate) {
        Product all = linear;
        all.sums = dbias;
        if (product(all)) return;
    }
    if (!product(linear)) tiled_product(linear);
    if (dbias) column_sums(dbias, dout, KIND == BF16, N, OC, accumulate);
}
