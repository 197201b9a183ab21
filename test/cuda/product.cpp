// What stands in cuBLASLt's place under emulation: the same functions, a product by one thread in
// double precision, of matrices that lie by columns as they do there.
//
// It refuses what cuBLASLt may refuse, by sizes that only the tests know, so that all ways are gone
// which lead around it: an odd number of rows altogether, and an odd inner dimension together with an
// epilogue that takes a second matrix or makes sums. Of eight bits it refuses what cuBLASLt does, and a
// bias together with a sum where the rows are no multiple of 32. Where the columns are a multiple of 16 it
// first offers an algorithm that then does not run. As cuBLASLt does, it offers algorithms for scales that
// are not on 16 bytes, of which none then runs; and so it does for eight bits of an inner dimension that
// only the tests know, with a status of its own.

#include "../../cuda/activation.h"
#include "../../cuda/cublaslt.h"
#include "../../cuda/fp8.h"

namespace {

struct Layout {
    int type;
    i64 rows, columns, stride;
};
struct Operation {
    int transposes_a, transposes_b, epilogue, vector_type;
    void *vector, *aux;
    i64 aux_stride;
    const float *scale_a, *scale_b;
    signed char adds_fast; // which does not show in double precision
};
struct Matrix {
    Layout layout;
    void *at;
};
struct Call {
    Operation operation;
    Matrix a, b, c, d;
    float alpha, beta;
};
constexpr int INVALID_VALUE = 7, EXECUTION_FAILED = 13;
constexpr unsigned long long UNABLE = 1, ABLE = 2; // algorithms
constexpr i64 REFUSED = 176;                       // the inner dimension

float get(const void *from, int type, i64 i) {
    if (type == R_8F_E4M3) return widen(((const E4m3 *)from)[i]);
    if (type == R_8F_E5M2) return widen(((const E5m2 *)from)[i]);
    return type == R_16BF ? widen(((const bf16 *)from)[i]) : ((const float *)from)[i];
}
void put(void *to, int type, i64 i, double x) {
    if (type == R_16BF)
        ((bf16 *)to)[i] = narrow<bf16>((float)x);
    else
        ((float *)to)[i] = (float)x;
}
float element(const Matrix &matrix, bool is_transposed, i64 row, i64 column) {
    const i64 stride = matrix.layout.stride;
    const i64 at = is_transposed ? column + row * stride : row + column * stride;
    return get(matrix.at, matrix.layout.type, at);
}
i64 inner_of(const Operation &operation, const Layout &a) {
    return operation.transposes_a ? a.rows : a.columns;
}

KERNEL multiply(Call call) {
    const Operation &operation = call.operation;
    const int epilogue = operation.epilogue, type = call.d.layout.type;
    const i64 rows = call.d.layout.rows, columns = call.d.layout.columns;
    const i64 inner = inner_of(operation, call.a.layout);
    for (i64 j = 0; j < columns; j++) {
        double column_sum = 0;
        for (i64 k = 0; k < inner; k++) column_sum += element(call.b, operation.transposes_b, k, j);
        for (i64 i = 0; i < rows; i++) {
            double sum = 0;
            for (i64 k = 0; k < inner; k++)
                sum += (double)element(call.a, operation.transposes_a, i, k) *
                       element(call.b, operation.transposes_b, k, j);
            sum *= call.alpha;
            if (operation.scale_a) sum = sum * *operation.scale_a * *operation.scale_b;
            if (call.beta != 0) sum += call.beta * element(call.c, false, i, j);
            if (epilogue & BIAS) sum += get(operation.vector, operation.vector_type, i);
            const i64 aux = i + j * operation.aux_stride;
            if (epilogue & GELU) { // of the sum before it is rounded
                put(operation.aux, type, aux, sum);
                sum = gelu((float)sum);
            }
            if (epilogue & DGELU) sum *= gelu_gradient(get(operation.aux, type, aux));
            put(call.d.at, type, i + j * call.d.layout.stride, sum);
        }
        if (epilogue & BGRADB) put(operation.vector, operation.vector_type, j, column_sum);
    }
}

size_t version() { return 1; }

int make_operation(void **made, int compute, int scale_type) {
    const bool is_known = compute == COMPUTE_32F || compute == COMPUTE_TF32;
    if (!is_known || scale_type != R_32F) return INVALID_VALUE;
    *made = calloc(1, sizeof(Operation));
    return 0;
}

template <typename T> int take(T &field, const void *value, size_t bytes) {
    if (bytes != sizeof field) return INVALID_VALUE;
    memcpy(&field, value, bytes);
    return 0;
}
int set_attribute(void *made, int attribute, const void *value, size_t bytes) {
    Operation &operation = *(Operation *)made;
    if (attribute == DESC_TRANSA) return take(operation.transposes_a, value, bytes);
    if (attribute == DESC_TRANSB) return take(operation.transposes_b, value, bytes);
    if (attribute == DESC_EPILOGUE) return take(operation.epilogue, value, bytes);
    if (attribute == DESC_BIAS_POINTER) return take(operation.vector, value, bytes);
    if (attribute == DESC_BIAS_DATA_TYPE) return take(operation.vector_type, value, bytes);
    if (attribute == DESC_AUX_POINTER) return take(operation.aux, value, bytes);
    if (attribute == DESC_AUX_LD) return take(operation.aux_stride, value, bytes);
    if (attribute == DESC_A_SCALE_POINTER) return take(operation.scale_a, value, bytes);
    if (attribute == DESC_B_SCALE_POINTER) return take(operation.scale_b, value, bytes);
    if (attribute == DESC_FAST_ACCUM) return take(operation.adds_fast, value, bytes);
    return INVALID_VALUE;
}

int make_layout(void **made, int type, unsigned long long rows, unsigned long long columns,
                i64 stride) {
    Layout *const layout = (Layout *)malloc(sizeof(Layout));
    *layout = {type, (i64)rows, (i64)columns, stride};
    *made = layout;
    return stride < (i64)rows ? INVALID_VALUE : 0;
}

int set_preference(void *, int attribute, const void *, size_t bytes) {
    return bytes == (attribute == PREF_MAX_WORKSPACE_BYTES ? 8 : 4) ? 0 : INVALID_VALUE;
}

/* A and B both have the inner dimension next to each other, one of them at most is of gradients, both
 * have a scale, and sixteen bytes hold whole numbers of every row. */
bool takes_eight_bits(const Operation &operation, const Layout &a, const Layout &b) {
    const bool are_types = (a.type == R_8F_E4M3 || a.type == R_8F_E5M2) &&
                           (b.type == R_8F_E4M3 || b.type == R_8F_E5M2) &&
                           (a.type == R_8F_E4M3 || b.type == R_8F_E4M3);
    return are_types && operation.transposes_a && !operation.transposes_b && operation.scale_a &&
           operation.scale_b && !(operation.epilogue & ~(PLAIN | BIAS)) && a.rows % 16 == 0 &&
           a.columns % 16 == 0 && b.columns % 16 == 0;
}
bool is_taken(const Operation &operation, const Layout &a, const Layout &b) {
    const bool is_wide = a.type == b.type && (a.type == R_32F || a.type == R_16BF);
    return is_wide ? !operation.scale_a && !operation.scale_b : takes_eight_bits(operation, a, b);
}

int find_algorithms(void *, void *made, void *a, void *b, void *, void *d, void *, int wanted,
                    Heuristic *results, int *found) {
    const Operation &operation = *(const Operation *)made;
    const Layout &out = *(const Layout *)d;
    const bool is_odd = inner_of(operation, *(const Layout *)a) % 2;
    *found = 0;
    if (!is_taken(operation, *(const Layout *)a, *(const Layout *)b)) return STATUS_NOT_SUPPORTED;
    if (out.rows % 2 || (is_odd && operation.epilogue & (AUX | BGRADB))) return STATUS_NOT_SUPPORTED;
    if (out.columns % 16 == 0) results[(*found)++].algorithm.data[0] = UNABLE;
    if (*found < wanted) results[(*found)++].algorithm.data[0] = ABLE;
    return 0;
}

int algorithm_config(const Algorithm *algorithm, int attribute, void *value, size_t bytes,
                     size_t *written) {
    const int config = attribute == ALGO_ID ? (int)algorithm->data[0] : 0;
    memcpy(value, &config, bytes);
    *written = bytes;
    return 0;
}

int queue_product(void *, void *operation, const void *alpha, const void *A, void *a, const void *B,
                  void *b, const void *beta, const void *C, void *c, void *D, void *d,
                  const Algorithm *algorithm, void *, size_t, cudaStream_t) {
    const auto matrix = [](void *layout, const void *at) {
        return Matrix{*(const Layout *)layout, const_cast<void *>(at)};
    };
    const Call call = {*(const Operation *)operation,
                       matrix(a, A),
                       matrix(b, B),
                       matrix(c, C),
                       matrix(d, D),
                       *(const float *)alpha,
                       *(const float *)beta};
    const Operation &asked = call.operation;
    const Layout &left = call.a.layout, &right = call.b.layout, &out = call.d.layout;
    const i64 inner = asked.transposes_b ? right.columns : right.rows;
    const bool fits = (asked.transposes_a ? left.columns : left.rows) == out.rows &&
                      (asked.transposes_b ? right.rows : right.columns) == out.columns &&
                      inner == inner_of(asked, left) && call.c.layout.rows == out.rows;
    const bool aux_fits = asked.aux_stride % 8 == 0 && asked.aux_stride >= out.rows;
    if (!fits || (asked.epilogue & AUX && !aux_fits)) return INVALID_VALUE;
    if (!is_taken(asked, left, right)) return STATUS_NOT_SUPPORTED;
    if (((size_t)asked.scale_a | (size_t)asked.scale_b) % 16) return STATUS_NOT_SUPPORTED;
    if (asked.scale_a && inner == REFUSED) return EXECUTION_FAILED;
    const bool is_both = asked.scale_a && asked.epilogue & BIAS && call.beta != 0;
    if (is_both && out.rows % 32) return STATUS_NOT_SUPPORTED;
    if (algorithm->data[0] != ABLE) return EXECUTION_FAILED;
    launch(multiply, 1, 1, 0, call);
    return 0;
}

} // namespace

int product_open(const char *) {
    cublaslt = {version,        nullptr,         make_operation,  set_attribute,    make_layout,
                nullptr,        set_preference,  find_algorithms, algorithm_config, queue_product};
    product_room.bytes = 1 << 20;
    return cudaMalloc(&product_room.at, product_room.bytes);
}
