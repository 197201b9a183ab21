/* What becomes of a tile that Hopper's own product has made (product_hopper.cu), part by part: through
 * GELU, or its derivative, into memory, and its columns summed. */
#ifndef LLM_PRODUCT_TILE_H
#define LLM_PRODUCT_TILE_H

#include "activation.h"
#include "mma.h"
#include "product.h"

constexpr int COLUMNS = 256, PARTS = COLUMNS / 32; // of a tile, as it is stored

/* Four pairs of each of four neighbouring lanes, the first being a multiple of four: lane q gets the pairs
 * q of all. */
DEVICE void transpose(u32 (&pairs)[4]) {
    const bool is_odd = threadIdx.x & 1, is_high = threadIdx.x & 2;
#pragma unroll
    for (int i = 0; i < 4; i += 2) {
        const u32 other = __shfl_xor_sync(ALL_LANES, is_odd ? pairs[i] : pairs[i + 1], 1);
        (is_odd ? pairs[i] : pairs[i + 1]) = other;
    }
#pragma unroll
    for (int i = 0; i < 2; i++) {
        const u32 other = __shfl_xor_sync(ALL_LANES, is_high ? pairs[i] : pairs[i + 2], 2);
        (is_high ? pairs[i] : pairs[i + 2]) = other;
    }
}

/* A lane's part of a tile as it waits to be stored: pairs of its row, and of that 8 below. */
struct Made {
    u32 pairs[2][COLUMNS / 8];
    int row, column; /* the lane's first row, the tile's first column; -1 before the first tile */
};
typedef Pack<u32> Eight; // numbers next to each other, in pairs

/* Where the eight are, in the part of 32 columns that is stored at a time, which a lane stores; or -1. */
DEVICE i64 place(const Product &p, const Made &made, int part, int i) {
    const int row = made.row + i * 8, column = made.column + part * 32 + (int)threadIdx.x % 4 * 8;
    return row < p.rows && column < p.columns ? (i64)row * p.columns + column : -1;
}

/* What GELU's derivative is taken of, for one part of a tile. */
DEVICE void load_pre(Eight (&pre)[2], const Product &p, const Made &made, int part) {
#pragma unroll
    for (int i = 0; i < 2; i++) {
        const i64 at = place(p, made, part, i);
        pre[i] = at < 0 ? Eight() : load_pack(reinterpret_cast<const u32 *>((const bf16 *)p.pre + at));
    }
}

/* Adds up eight columns over a warp's rows; a lane gets the sum of one of its own:
 * column_of_lane(). */
DEVICE float sum_down(float (&columns)[8]) {
#pragma unroll
    for (int count = 4; count > 0; count /= 2) { // lanes 16, 8, and 4 away have the same columns
        const bool is_upper = threadIdx.x & (count * 4);
#pragma unroll
        for (int i = 0; i < count; i++) {
            const float sent = is_upper ? columns[i] : columns[count + i];
            const float kept = is_upper ? columns[count + i] : columns[i];
            columns[i] = kept + __shfl_xor_sync(ALL_LANES, sent, count * 4);
        }
    }
    return columns[0];
}
/* Which of a part's columns that is. */
DEVICE int column_of_lane() {
    const int lane = threadIdx.x % WARP;
    return lane % 4 * 8 + (lane & 16) / 4 + (lane & 8) / 4 + (lane & 4) / 4;
}

/* Stores a part, and adds up its columns where sums are asked for. */
template <ProductForm FORM>
DEVICE void store_part(const Product &p, const Made &made, Eight (&pre)[2], int part, float *board) {
    float columns[8] = {};
#pragma unroll
    for (int i = 0; i < 2; i++) {
        u32 pairs[4];
#pragma unroll
        for (int n = 0; n < 4; n++) pairs[n] = made.pairs[i][part * 4 + n];
        transpose(pairs);
        const i64 at = place(p, made, part, i);
        if (at < 0) continue;
        Eight x;
#pragma unroll
        for (int n = 0; n < 4; n++) x.at[n] = pairs[n];
        if (p.pre && FORM == FORWARD) {
            store_pack(reinterpret_cast<u32 *>((bf16 *)p.pre + at), x);
#pragma unroll
            for (int n = 0; n < 4; n++)
                x.at[n] = narrow_pair(gelu_fast(first_of(x.at[n])), gelu_fast(second_of(x.at[n])));
        } else if (p.pre) {
#pragma unroll
            for (int n = 0; n < 4; n++) {
                u32 of = pre[i].at[n];
                not_before(of);
                x.at[n] = narrow_pair(first_of(x.at[n]) * gelu_gradient_fast(first_of(of)),
                                      second_of(x.at[n]) * gelu_gradient_fast(second_of(of)));
            }
        }
        store_pack(reinterpret_cast<u32 *>((bf16 *)p.out + at), x);
#pragma unroll
        for (int n = 0; FORM == BACKWARD_INPUT && n < 4; n++) {
            columns[2 * n] += first_of(x.at[n]);
            columns[2 * n + 1] += second_of(x.at[n]);
        }
    }
    if (FORM == BACKWARD_INPUT && p.out_sums) board[part * 32 + column_of_lane()] = sum_down(columns);
}

#endif
