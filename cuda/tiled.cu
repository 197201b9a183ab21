/* A matrix product for what no library takes: of any size and alignment, in f32 on the plain cores. */
#include "activation.h"
#include "fp8.h"
#include "product.h"

// A block makes SIDE×SIDE elements of out, a thread EACH×EACH of them, from DEPTH elements of the
// inner dimension at a time.
constexpr int SIDE = 64, DEPTH = 16, EACH = 4, ACROSS = SIDE / EACH, THREADS = ACROSS * ACROSS;

// tile[d][i] = element (first + i, depth + d) of a factor whose inner dimension comes last in memory
// (INNER_LAST) or first; 0 beyond its edges, which adds nothing.
template <bool INNER_LAST, typename T>
DEVICE void load_tile(float (*tile)[SIDE + 1], const T *factor, int size, int inner, int first,
                      int depth) {
    for (int at = threadIdx.x; at < SIDE * DEPTH; at += THREADS) {
        // Neighbouring threads read neighbouring addresses.
        const int i = INNER_LAST ? at / DEPTH : at % SIDE;
        const int d = INNER_LAST ? at % DEPTH : at / SIDE;
        const bool is_inside = first + i < size && depth + d < inner;
        const i64 offset = INNER_LAST ? (i64)(first + i) * inner + depth + d
                                      : (i64)(depth + d) * size + first + i;
        tile[d][i] = is_inside ? widen(factor[offset]) : 0.f;
    }
}

template <ProductForm FORM, Kind KIND, typename L, typename R, typename O>
KERNEL __launch_bounds__(THREADS) tiled_kernel(Product p, int columns_before) {
    __shared__ float left[DEPTH][SIDE + 1], right[DEPTH][SIDE + 1];
    const int first_row = blockIdx.x * SIDE, first_column = columns_before + blockIdx.y * SIDE;
    const int y = threadIdx.x / ACROSS, x = threadIdx.x % ACROSS;

    float sum[EACH][EACH] = {};
    for (int depth = 0; depth < p.inner; depth += DEPTH) {
        load_tile<left_last(FORM, KIND)>(left, (const L *)p.left, p.rows, p.inner, first_row, depth);
        load_tile<right_last(FORM, KIND)>(right, (const R *)p.right, p.columns, p.inner, first_column,
                                          depth);
        __syncthreads();
        for (int d = 0; d < DEPTH; d++) {
            float a[EACH], b[EACH];
            for (int i = 0; i < EACH; i++) a[i] = left[d][y + i * ACROSS];
            for (int j = 0; j < EACH; j++) b[j] = right[d][x + j * ACROSS];
            for (int i = 0; i < EACH; i++)
                for (int j = 0; j < EACH; j++) sum[i][j] = fmaf(a[i], b[j], sum[i][j]);
        }
        __syncthreads();
    }

    O *const out = (O *)p.out, *const pre = (O *)p.pre;
    const O *const added = (const O *)p.added;
    for (int i = 0; i < EACH; i++) {
        for (int j = 0; j < EACH; j++) {
            const int row = first_row + y + i * ACROSS, column = first_column + x + j * ACROSS;
            if (row >= p.rows || column >= p.columns) continue;
            const i64 at = (i64)row * p.columns + column;
            if constexpr (KIND == FP8) sum[i][j] = sum[i][j] * *p.left_scale * *p.right_scale;
            if constexpr (FORM == FORWARD) {
                store_forward(out, pre, (const O *)p.bias, added, at, column, sum[i][j]);
            } else {
                if (pre) sum[i][j] *= gelu_gradient(widen(pre[at]));
                if (added) sum[i][j] += widen(added[at]);
                out[at] = narrow<O>(sum[i][j]);
            }
        }
    }
}

constexpr int MAX_GRID_Y = 65535; // blocks that CUDA takes

/* G: left's numbers where that is a gradient. */
template <Kind KIND, typename T, typename G, typename O> static void tiled(const Product &p) {
    void (*const kernel)(Product, int) =
        p.form == FORWARD          ? tiled_kernel<FORWARD, KIND, T, T, O>
        : p.form == BACKWARD_INPUT ? tiled_kernel<BACKWARD_INPUT, KIND, G, T, O>
                                   : tiled_kernel<BACKWARD_WEIGHT, KIND, G, T, float>;
    const i64 row_tiles = ceil_div(p.rows, SIDE), column_tiles = ceil_div(p.columns, SIDE);
    for (i64 first = 0; first < column_tiles; first += MAX_GRID_Y) {
        const i64 count = column_tiles - first < MAX_GRID_Y ? column_tiles - first : MAX_GRID_Y;
        launch(kernel, dim3((u32)row_tiles, (u32)count), THREADS, 0, p, (int)(first * SIDE));
    }
}

void tiled_product(const Product &p) {
    if (p.kind == FP8) tiled<FP8, E4m3, E5m2, bf16>(p);
    else if (p.kind == BF16) tiled<BF16, bf16, bf16, bf16>(p);
    else tiled<F32, float, float, float>(p);
}
