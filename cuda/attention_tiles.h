/* Tiles of bf16 for the tensor cores: rows of D channels (HS of them, then zeros) in shared memory,
 * and products of them, of which a warp owns TILES·16 rows.
 *
 * A row is 16 bytes longer than its numbers, so that the eight rows a matrix load takes lie in
 * different banks. */
#ifndef LLM_ATTENTION_TILES_H
#define LLM_ATTENTION_TILES_H

#include "attention.h"
#include "mma.h"

constexpr int WARPS = 4, THREADS = WARPS * WARP;
template <int D> constexpr int ROW = D + 8; // numbers from a row to the next

/* Over the four lanes that share a row of sums. */
DEVICE float sum_of_four(float x) {
    x += __shfl_xor_sync(ALL_LANES, x, 1);
    return x + __shfl_xor_sync(ALL_LANES, x, 2);
}
DEVICE float max_of_four(float x) {
    x = fmaxf(x, __shfl_xor_sync(ALL_LANES, x, 1));
    return fmaxf(x, __shfl_xor_sync(ALL_LANES, x, 2));
}

/* Starts to copy HEIGHT rows, `stride` numbers apart, from row `first` on; those from `end` on are
 * zeros. */
template <int D, int HEIGHT>
DEVICE void load_rows(bf16 *tile, const bf16 *rows, int stride, int first, int end, int HS) {
    if (HS % 8 == 0) {
        constexpr int PACKS = D / 8, STEP = THREADS / PACKS; // rows that the block copies at once
        static_assert(THREADS % PACKS == 0 && HEIGHT % STEP == 0, "whole rows");
        const int row = threadIdx.x / PACKS, d = threadIdx.x % PACKS * 8;
        const bf16 *const from = rows + (i64)(first + row) * stride + d;
#pragma unroll
        for (int i = 0; i < HEIGHT; i += STEP)
            copy_async(tile + (row + i) * ROW<D> + d, from + (i64)i * stride,
                       first + row + i < end && d < HS);
    } else { // a row may begin anywhere
#pragma unroll 1
        for (int i = threadIdx.x; i < HEIGHT * D; i += THREADS) {
            const int row = i / D, d = i % D;
            tile[row * ROW<D> + d] =
                first + row < end && d < HS ? rows[(i64)(first + row) * stride + d] : (bf16)0;
        }
    }
}

/* Rows of a tile as left operands, 16 by 16. */
template <int D, int TILES>
DEVICE void load_operands(u32 (&a)[TILES][D / 16][4], const bf16 *rows) {
    const int lane = threadIdx.x % WARP;
    const bf16 *at = rows + lane % 16 * ROW<D> + lane / 16 * 8;
#pragma unroll
    for (int t = 0; t < TILES; t++)
#pragma unroll
        for (int d = 0; d < D / 16; d++) load_matrices(a[t][d], at + t * 16 * ROW<D> + d * 16);
}

/* The sums over the channels of rows that are operands, times those of a tile. */
template <int D, int TILES>
DEVICE void sum_of_products(float (&sums)[TILES][2], const u32 (&a)[TILES][D / 16][4],
                            const bf16 *rows) {
    u32 b[TILES][D / 16][4];
    load_operands<D, TILES>(b, rows);
#pragma unroll
    for (int t = 0; t < TILES; t++)
#pragma unroll
        for (int i = 0; i < 2; i++) { // 8 rows further on are the odd registers
            float sum = 0;
#pragma unroll
            for (int d = 0; d < D / 16; d++)
#pragma unroll
                for (int j = i; j < 4; j += 2) {
                    sum = fmaf(first_of(a[t][d][j]), first_of(b[t][d][j]), sum);
                    sum = fmaf(second_of(a[t][d][j]), second_of(b[t][d][j]), sum);
                }
            sums[t][i] = sum_of_four(sum);
        }
}

/* out = a·rowsᵀ: dot products with N rows of a tile. */
template <int D, int N, int TILES>
DEVICE void dot_rows(float (&out)[TILES][N / 8][4], const u32 (&a)[TILES][D / 16][4],
                     const bf16 *rows) {
    const int lane = threadIdx.x % WARP;
    const bf16 *at = rows + (lane / 16 * 8 + lane % 8) * ROW<D> + lane / 8 % 2 * 8;
#pragma unroll
    for (int t = 0; t < TILES; t++)
#pragma unroll
        for (int n = 0; n < N / 8; n++)
#pragma unroll
            for (int i = 0; i < 4; i++) out[t][n][i] = 0;
#pragma unroll
    for (int d = 0; d < D / 16; d++)
#pragma unroll
        for (int n = 0; n < N / 16; n++) {
            u32 b[4];
            load_matrices(b, at + n * 16 * ROW<D> + d * 16);
#pragma unroll
            for (int t = 0; t < TILES; t++) {
                multiply_add(out[t][2 * n], a[t][d], b[0], b[1]);
                multiply_add(out[t][2 * n + 1], a[t][d], b[2], b[3]);
            }
        }
}

/* Hides scores of keys after the query: the warp's rows begin `ahead` of its columns, and are the
 * queries, or else the keys. */
template <int N, int TILES>
DEVICE void hide(float (&s)[TILES][N / 8][4], int ahead, bool rows_are_queries) {
    const int lane = threadIdx.x % WARP;
#pragma unroll
    for (int t = 0; t < TILES; t++)
#pragma unroll
        for (int n = 0; n < N / 8; n++)
#pragma unroll
            for (int i = 0; i < 4; i++) {
                const int row = ahead + t * 16 + i / 2 * 8 + lane / 4;
                const int column = n * 8 + lane % 4 * 2 + i % 2;
                if (rows_are_queries ? column > row : row > column) s[t][n][i] = -INFINITY;
            }
}

/* out += weights·rows: sums of N rows of a tile, the weights rounded to bf16. */
template <int D, int N, int TILES>
DEVICE void add_rows(float (&out)[TILES][D / 8][4], const float (&weights)[TILES][N / 8][4],
                     const bf16 *rows) {
    const int lane = threadIdx.x % WARP;
    const bf16 *at = rows + lane % 16 * ROW<D> + lane / 16 * 8;
#pragma unroll
    for (int n = 0; n < N / 16; n++) {
        u32 a[TILES][4];
#pragma unroll
        for (int t = 0; t < TILES; t++)
#pragma unroll
            for (int i = 0; i < 4; i++) {
                const float(&w)[4] = weights[t][2 * n + i / 2];
                a[t][i] = narrow_pair(w[i % 2 * 2], w[i % 2 * 2 + 1]);
            }
#pragma unroll
        for (int d = 0; d < D / 16; d++) {
            u32 b[4];
            load_matrices_transposed(b, at + n * 16 * ROW<D> + d * 16);
#pragma unroll
            for (int t = 0; t < TILES; t++) {
                multiply_add(out[t][2 * d], a[t], b[0], b[1]);
                multiply_add(out[t][2 * d + 1], a[t], b[2], b[3]);
            }
        }
    }
}

/* Writes a warp's sums, times a factor, to `rows` rows of a head by way of its own rows of a tile.
 * factor[t][i]: of row t·16 + i·8 + lane/4. */
template <int D, int TILES>
DEVICE void store_rows(bf16 *to, i64 stride, int rows, int HS, bf16 *own,
                       const float (&sums)[TILES][D / 8][4], const float (&factor)[TILES][2]) {
    const int lane = threadIdx.x % WARP;
    __syncwarp();
#pragma unroll
    for (int t = 0; t < TILES; t++)
#pragma unroll
        for (int d = 0; d < D / 8; d++)
#pragma unroll
            for (int i = 0; i < 2; i++)
                *reinterpret_cast<u32 *>(own + (t * 16 + i * 8 + lane / 4) * ROW<D> + d * 8 +
                                         lane % 4 * 2) =
                    narrow_pair(sums[t][d][2 * i] * factor[t][i],
                                sums[t][d][2 * i + 1] * factor[t][i]);
    __syncwarp();
    rows = min(rows, TILES * 16);
    if (HS % 8 == 0) {
        constexpr int PACKS = D / 8;
        for (int i = lane; i < rows * PACKS; i += WARP) {
            const int row = i / PACKS, d = i % PACKS * 8;
            if (d < HS) store_pack(to + row * stride + d, load_pack(own + row * ROW<D> + d));
        }
    } else {
        for (int i = lane; i < rows * D; i += WARP) {
            const int row = i / D, d = i % D;
            if (d < HS) to[row * stride + d] = own[row * ROW<D> + d];
        }
    }
}

#endif
