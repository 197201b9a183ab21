/* Tensors in eight bits, and their products: twice the arithmetic of bf16 for tensor cores that have
 * it, half the memory. Eight bits span few powers of two, so each tensor has a scale. */
#include "activation.h"
#include "eight_bits.h"

enum { INVERSE, SCALE, NOW, WINDOW };

static void set_scale(float *slot, float most, float largest) {
    if (most == 0) {
        if (slot[SCALE] == 0) slot[SCALE] = slot[INVERSE] = 1;
        return;
    }
    if (most != most) {
        slot[SCALE] = slot[INVERSE] = most;
        return;
    }
    float ratio = largest / most;
    int exponent = ratio < power_of_two(-126) ? -126 : exponent_of(ratio);
    if (exponent > 126) exponent = 126;
    slot[SCALE] = power_of_two(exponent);
    slot[INVERSE] = power_of_two(-exponent);
}

// The larger of two sizes; NaN, whose bits are above infinity's, is the largest of all.
static float larger(float a, float b) {
    f32_bits x = {.number = a}, y = {.number = b};
    return x.bits > y.bits ? a : b;
}

static float size_of(float x) {
    f32_bits wide = {.number = x};
    wide.bits &= 0x7fffffff;
    return wide.number;
}

void fp8_scales(float *slots, int count, float largest) {
    for (int i = 0; i < count; i++) {
        float *slot = slots + (i64)i * LLM_FP8_SLOT, *window = slot + WINDOW;
        float most = 0;
        for (int k = LLM_FP8_WINDOW - 1; k >= 0; k--) {
            window[k] = window[k - 1]; // before the first of them is slot[NOW]
            most = larger(most, window[k]);
        }
        slot[NOW] = 0;
        set_scale(slot, most, largest);
    }
}

static float x_of(const bf16 *inp, const bf16 *pre, i64 at, int is_gelu) {
    double x = bf16_value(inp[at]);
    if (is_gelu) x = gelu(x);
    if (pre) x *= gelu_gradient(bf16_value(pre[at]));
    return (float)x;
}

static void quantize(unsigned char *out, unsigned char *transposed, float *slot, const bf16 *inp,
                     const bf16 *pre, int N, int C, int is_gelu, int calibrate,
                     const fp8_format *format) {
    float most = slot[NOW];
    for (i64 i = 0; i < (i64)N * C; i++) most = larger(most, size_of(x_of(inp, pre, i, is_gelu)));
    slot[NOW] = most;
    if (calibrate) set_scale(slot, most, format->largest);
    for (int n = 0; n < N; n++) {
        for (int c = 0; c < C; c++) {
            i64 at = (i64)n * C + c;
            unsigned char q = fp8_nearest(x_of(inp, pre, at, is_gelu) * slot[SCALE], format);
            if (out) out[at] = q;
            if (transposed) transposed[(i64)c * N + n] = q;
        }
    }
}

void e4m3_quantize(e4m3 *out, e4m3 *transposed, float *slot, const bf16 *inp, int N, int C, int gelu,
                   int calibrate) {
    quantize(out, transposed, slot, inp, 0, N, C, gelu, calibrate, &E4M3);
}

void e5m2_quantize(e5m2 *out, e5m2 *transposed, float *slot, float *sums, const bf16 *inp,
                   const bf16 *pre, float *scratch, int N, int C, int accumulate, int calibrate) {
    (void)scratch;
    quantize(out, transposed, slot, inp, pre, N, C, 0, calibrate, &E5M2);
    for (int c = 0; sums && c < C; c++) {
        double sum = accumulate ? sums[c] : 0;
        for (int n = 0; n < N; n++) sum += x_of(inp, pre, (i64)n * C + c, 0);
        sums[c] = (float)sum;
    }
}

// left·right of two rows as long as the sum, by both tensors' scales.
static double scaled_dot(const unsigned char *left, const fp8_format *left_format, const e4m3 *right,
                         int inner, const float *left_slot, const float *right_slot) {
    double sum = 0;
    for (int k = 0; k < inner; k++)
        sum += (double)fp8_value(left[k], left_format) * fp8_value(right[k], &E4M3);
    return sum * left_slot[INVERSE] * right_slot[INVERSE];
}

void fp8_matmul_forward(bf16 *out, const e4m3 *inp, const e4m3 *weight, const float *inp_slot,
                        const float *weight_slot, const bf16 *bias, const bf16 *residual, int N, int C,
                        int OC) {
    for (int n = 0; n < N; n++) {
        for (int o = 0; o < OC; o++) {
            i64 at = (i64)n * OC + o;
            double sum =
                scaled_dot(inp + (i64)n * C, &E4M3, weight + (i64)o * C, C, inp_slot, weight_slot);
            sum += bf16_value(bias[o]);
            if (residual) sum += bf16_value(residual[at]);
            out[at] = bf16_nearest((float)sum);
        }
    }
}

void fp8_matmul_backward_input(bf16 *dinp, const e5m2 *dout, const e4m3 *weight,
                               const float *dout_slot, const float *weight_slot, int N, int C, int OC,
                               int accumulate) {
    for (int n = 0; n < N; n++) {
        for (int c = 0; c < C; c++) {
            i64 at = (i64)n * C + c;
            double sum =
                scaled_dot(dout + (i64)n * OC, &E5M2, weight + (i64)c * OC, OC, dout_slot, weight_slot);
            if (accumulate) sum += bf16_value(dinp[at]);
            dinp[at] = bf16_nearest((float)sum);
        }
    }
}

void fp8_matmul_backward_weight(float *dweight, const e5m2 *dout, const e4m3 *inp,
                                const float *dout_slot, const float *inp_slot, int N, int C, int OC,
                                int accumulate) {
    for (int o = 0; o < OC; o++) {
        for (int c = 0; c < C; c++) {
            i64 at = (i64)o * C + c;
            double sum =
                scaled_dot(dout + (i64)o * N, &E5M2, inp + (i64)c * N, N, dout_slot, inp_slot);
            dweight[at] = (float)(accumulate ? dweight[at] + sum : sum);
        }
    }
}
