/* One matrix product with all that is done to its result on the way: what stands between the linear
 * layer (matmul.cu) and whoever multiplies, cuBLASLt (cublaslt.cu) or a kernel of our own. */
#ifndef LLM_PRODUCT_H
#define LLM_PRODUCT_H

#include "launch.h"

/* The products of a linear layer, by how their factors lie in memory:
 *   FORWARD          left (rows,inner)  right (columns,inner)   out = inp·weightᵀ
 *   BACKWARD_INPUT   left (rows,inner)  right (inner,columns)   dinp = dout·weight
 *   BACKWARD_WEIGHT  left (inner,rows)  right (inner,columns)   dweight = doutᵀ·inp, in f32 */
enum ProductForm { FORWARD, BACKWARD_INPUT, BACKWARD_WEIGHT };

/* What a product's factors are stored in; and its result, but for that of BACKWARD_WEIGHT. Where they
 * are of eight bits, right is e4m3, left is e4m3 forward and e5m2 backward, and the result is bf16. */
enum Kind { F32, BF16, FP8 };

/* Whether a factor's inner dimension is its last one in memory. Of eight bits it always is. */
__host__ __device__ constexpr bool left_last(ProductForm form, Kind kind) {
    return form != BACKWARD_WEIGHT || kind == FP8;
}
__host__ __device__ constexpr bool right_last(ProductForm form, Kind kind) {
    return form == FORWARD || kind == FP8;
}

/* sum = left·right + bias, where both scales multiply that of FP8. With pre, forward: pre = sum,
 * sum = gelu(sum), of pre as it is stored or before it was rounded; backward: sum *= gelu'(pre).
 * out = sum + added. Pointers may be NULL from `bias` on; scales
 * lie on 16 bytes. */
struct Product {
    ProductForm form;
    Kind kind;
    int rows, columns, inner;
    void *out;               /* (rows,columns) overwritten */
    const void *left, *right;
    const void *bias;        /* (columns) */
    void *pre;               /* (rows,columns) */
    const void *added;       /* (rows,columns), may be out itself */
    float *sums;             /* (rows) overwritten with the sums over inner of left */
    const float *left_scale = nullptr, *right_scale = nullptr; /* of FP8: 1/scale of each */
    float *out_sums = nullptr; /* (columns) = the sums over rows of out, added to by adds_sums */
    int adds_sums = 0;
};

/* Queues the product and returns true; or returns false and has done nothing, where it cannot be had
 * in one go, or is faster in several. The same arguments always give the same answer. */
bool product(const Product &p);

/* The product by the kernel for Hopper; or false where that does not take it, and nothing is done: it
 * takes bf16 in rows of 8, with nothing added, and no weight's gradient. */
bool product_hopper(const Product &p);

/* Of a product in eight bits that was refused: where there is a cuBLASLt, and tensor cores take such
 * sizes, keeps that as a failure and returns true. A plain kernel would take twenty times as long. */
bool keep_refusal(const Product &p);

/* The product by a plain tiled kernel, of any size, without sums of either kind. */
void tiled_product(const Product &p);

/* out = sum over rows of inp (rows,columns), bf16 or f32; added to out (columns) by accumulate. It works in
 * the first half of product_room. */
void column_sums(float *out, const void *inp, int is_bf16, int rows, int columns, int accumulate);

/* matmul_forward for fewer than LLM_FEW_ROWS rows. */
void few_rows(float *out, float *pre, const float *inp, const float *weight, const float *bias,
              const float *residual, int N, int C, int OC);
void few_rows_bf16(bf16 *out, bf16 *pre, const bf16 *inp, const bf16 *weight, const bf16 *bias,
                   const bf16 *residual, int N, int C, int OC);

/* Opens the cuBLASLt of that file on the current device, and takes the room below; with an empty path
 * every product is tiled. Returns a cudaError_t. Called once by device_open. */
extern "C" int product_open(const char *path);

/* Room on the device that lives from product_open on, for whoever is queued: undefined before and
 * after. */
struct Room {
    void *at;
    size_t bytes;
};
extern Room product_room;

#endif
