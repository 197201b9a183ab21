// What stands in cuBLASLt's place under emulation: the same products with the same epilogues, by one
// thread, in double precision. It refuses what cuBLASLt may refuse, by sizes that only the tests know,
// so that all of matmul.cu's ways are gone: an odd number of columns altogether, and an odd inner
// dimension together with an epilogue that takes a second matrix or makes a sum.

#include "../../cuda/activation.h"
#include "../../cuda/product.h"

#pragma GCC visibility push(default)
extern "C" {
#include "../../cuda/device.h"
}
#pragma GCC visibility pop

Room product_room;

int product_open(const char *) {
    product_room.bytes = 1 << 20;
    return cudaMalloc(&product_room.at, product_room.bytes);
}

template <typename T, typename O> KERNEL multiply(Product p) {
    const T *const left = (const T *)p.left, *const right = (const T *)p.right;
    const bool left_last = p.form != BACKWARD_WEIGHT, right_last = p.form == FORWARD;
    for (i64 i = 0; i < p.rows; i++) {
        double row_sum = 0;
        for (i64 j = 0; j < p.columns; j++) {
            double sum = 0;
            row_sum = 0;
            for (i64 k = 0; k < p.inner; k++) {
                const float x = widen(left[left_last ? i * p.inner + k : k * p.rows + i]);
                sum += (double)x * widen(right[right_last ? j * p.inner + k : k * p.columns + j]);
                row_sum += x;
            }
            const i64 at = i * p.columns + j;
            if (p.bias) sum += widen(((const O *)p.bias)[j]);
            if (p.pre && p.form == FORWARD) { // the GELU is that of the sum before it is rounded
                ((O *)p.pre)[at] = narrow<O>((float)sum);
                sum = gelu((float)sum);
            } else if (p.pre) {
                sum *= gelu_gradient(widen(((const O *)p.pre)[at]));
            }
            if (p.added) sum += widen(((const O *)p.added)[at]);
            ((O *)p.out)[at] = narrow<O>((float)sum);
        }
        if (p.sums) p.sums[i] = (float)row_sum;
    }
}

bool product(const Product &p) {
    if (p.columns % 2 || (p.pre && p.added)) return false;
    if (p.inner % 2 && (p.pre || p.sums)) return false;
    auto kernel = multiply<float, float>;
    if (p.is_bf16) kernel = p.form == BACKWARD_WEIGHT ? multiply<bf16, float> : multiply<bf16, bf16>;
    launch(kernel, 1, 1, 0, p);
    return true;
}

extern "C" {
void device_tf32(int) {}
int product_plans_save(void *, int) { return 0; }
int product_plans_load(const void *, int) { return 0; }
int product_report(char *out, int size) {
    if (size > 0) *out = 0;
    return 0;
}
}
