/* What the attention kernels for Hopper share: blocks of W warpgroups, each with 64 rows of its own, past
 * which tiles of other rows stream, fetched by the copy engine STAGES tiles ahead. Several blocks share
 * a multiprocessor, so that one computes while another begins, waits or ends. */
#ifndef LLM_ATTENTION_HOPPER_H
#define LLM_ATTENTION_HOPPER_H

#include "attention.h"
#include "ring.h"

template <int W> constexpr int THREADS = W * GROUP;

/* Starts to copy a tile: `height` rows of D channels from `row` and `channel` on. */
template <int D>
DEVICE void fetch(bf16 *tile, int height, const TensorMap &map, Barrier *full, int channel, int row,
                  int b) {
    for (int half = 0; half < D / 64; half++)
        for (int part = 0; part < height; part += GROUP_ROWS)
            copy_tile(tile + half * height * 64 + part * 64, &map, full, channel + half * 64,
                      row + part, b);
}

/* out = rows of `a` times rows of `b`: a group's 64 rows of a tile, N rows of another. */
template <int D, int N>
DEVICE void dot_tiles(float (&out)[N / 8][4], const bf16 *a, int height, const bf16 *b) {
#pragma unroll
    for (int k = 0; k < D / 16; k++)
        multiply_rows<N>(out, along_rows(a, height, k), along_rows(b, N, k), k > 0);
}

/* out += weights·rows of a tile of N. */
template <int D, int N>
DEVICE void add_tile(float (&out)[D / 8][4], const u32 (&weights)[N / 16][4], const bf16 *tile) {
#pragma unroll
    for (int k = 0; k < N / 16; k++) add_weighted<D>(out, weights[k], across_rows(tile, N, k));
}

/* A product's result, rounded, as the left operand of the next. */
template <int N> DEVICE void to_operand(u32 (&to)[N / 16][4], const float (&from)[N / 8][4]) {
#pragma unroll
    for (int n = 0; n < N / 8; n++)
#pragma unroll
        for (int i = 0; i < 2; i++)
            to[n / 2][n % 2 * 2 + i] = narrow_pair(from[n][2 * i], from[n][2 * i + 1]);
}

/* Writes a lane's share of (64,D) sums, times a factor for each of its two rows, to the rows below T;
 * `row` is its first. */
template <int D>
DEVICE void store_sums(bf16 *to, i64 stride, int row, int T, const float (&sums)[D / 8][4],
                       float first, float second) {
#pragma unroll
    for (int i = 0; i < 2; i++) {
        if (row + i * 8 >= T) continue;
        bf16 *const at = to + (row + i * 8) * stride + threadIdx.x % 4 * 2;
        const float factor = i ? second : first;
#pragma unroll
        for (int n = 0; n < D / 8; n++)
            *reinterpret_cast<u32 *>(at + n * 8) =
                narrow_pair(sums[n][2 * i] * factor, sums[n][2 * i + 1] * factor);
    }
}

/* A group's first row of those that its block has from `first` on, and the first of a lane's two, the
 * other being 8 below. */
DEVICE int group_row(int first) { return first + (int)threadIdx.x / GROUP * GROUP_ROWS; }
DEVICE int lane_row(int group) {
    return group + (int)threadIdx.x % GROUP / WARP * 16 + (int)threadIdx.x % WARP / 4;
}

#endif
