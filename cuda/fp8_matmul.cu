/* The products of the linear layer on tensors of eight bits: by cuBLASLt, which takes sizes that are
 * multiples of 16 where tensor cores multiply such numbers; other sizes by the kernel that takes
 * anything. What it should take and does not ends the run. */
#define LLM_BF16 // of add_forward, what is between products in eight bits
#include "fp8.h"
#include "product.h"

static void multiply(const Product &p) {
    if (!product(p) && !keep_refusal(p)) tiled_product(p);
}

/* A bias and a residual at once are more than cuBLASLt may take. */
static bool product_then_residual(Product p) {
    const bf16 *const residual = (const bf16 *)p.added;
    p.added = nullptr;
    if (!residual || !product(p)) return false;
    add_forward_bf16((bf16 *)p.out, (const bf16 *)p.out, residual, (i64)p.rows * p.columns);
    return true;
}

void fp8_matmul_forward(bf16 *out, const e4m3 *inp, const e4m3 *weight, const float *inp_slot,
                        const float *weight_slot, const bf16 *bias, const bf16 *residual, int N, int C,
                        int OC) {
    const Product all = {FORWARD,  FP8,     N,        OC,      C,
                         out,      inp,     weight,   bias,    nullptr,
                         residual, nullptr, inp_slot + INVERSE, weight_slot + INVERSE};
    if (!product(all) && !product_then_residual(all) && !keep_refusal(all)) tiled_product(all);
}

void fp8_matmul_backward_input(bf16 *dinp, const e5m2 *dout, const e4m3 *weight,
                               const float *dout_slot, const float *weight_slot, int N, int C, int OC,
                               int accumulate) {
    multiply({BACKWARD_INPUT, FP8, N, C, OC, dinp, dout, weight, nullptr, nullptr,
              accumulate ? dinp : nullptr, nullptr, dout_slot + INVERSE, weight_slot + INVERSE});
}

void fp8_matmul_backward_weight(float *dweight, const e5m2 *dout, const e4m3 *inp,
                                const float *dout_slot, const float *inp_slot, int N, int C, int OC,
                                int accumulate) {
    multiply({BACKWARD_WEIGHT, FP8, OC, C, N, dweight, dout, inp, nullptr, nullptr,
              accumulate ? dweight : nullptr, nullptr, dout_slot + INVERSE, inp_slot + INVERSE});
}
