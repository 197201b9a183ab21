/* Products with what is done to their results, for Hopper.
 *
 * A block of three warpgroups stays on its multiprocessor and makes one tile of the result after another,
 * of 128 rows and 256 columns. One group fetches, and two multiply, 64 rows each. What they have made
 * they keep in registers, rounded, and take it through GELU, or through its derivative, and store it, part
 * by part, while the tensor cores make the next tile. So they add up its columns too, by 64 rows. The
 * blocks of a cluster make tiles below one another: they share the right factor, of which each fetches
 * its part for all. */
#define LLM_BF16 // the only kind
#include "activation.h"
#include "mma.h"
#include "product.h"
#include "ring.h"

namespace {

constexpr int ROWS = 128, COLUMNS = 256, DEPTH = 64, STAGES = 4;
constexpr int LEFT = ROWS * DEPTH, RIGHT = COLUMNS * DEPTH; // numbers of a step's factors
/* The rows of one copy of the right factor, and copies of each of a cluster's blocks. */
template <ProductForm FORM> constexpr int RIGHT_ROWS = FORM == FORWARD ? COLUMNS / CLUSTER : DEPTH;
template <ProductForm FORM> constexpr int COPIES = RIGHT / CLUSTER / (RIGHT_ROWS<FORM> * 64);
constexpr int SHARED = STAGES * (LEFT + RIGHT) * (int)sizeof(bf16);
constexpr int GROUPS = ROWS / GROUP_ROWS; // that multiply; the next one fetches
constexpr int THREADS = (GROUPS + 1) * GROUP;
constexpr int PARTS = COLUMNS / 32; // of a tile, as it is stored

/* The numbers of a pair. */
DEVICE float first_of(u32 pair) { return __uint_as_float(pair << 16); }
DEVICE float second_of(u32 pair) { return __uint_as_float(pair & 0xffff0000); }

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
DEVICE float sum_rows(float (&columns)[8]) {
    float kept[8];
#pragma unroll
    for (int i = 0; i < 8; i++) kept[i] = columns[i];
#pragma unroll
    for (int count = 4; count > 0; count /= 2) { // lanes 16, 8, and 4 away have the same columns
        const bool is_upper = threadIdx.x & (count * 4);
#pragma unroll
        for (int i = 0; i < count; i++) {
            const float sent = is_upper ? kept[i] : kept[count + i];
            kept[i] = (is_upper ? kept[count + i] : kept[i]) + __shfl_xor_sync(ALL_LANES, sent, count * 4);
        }
    }
    return kept[0];
}
/* Which of a part's columns that is. */
DEVICE int column_of_lane() {
    const int lane = threadIdx.x % WARP;
    return lane % 4 * 8 + (lane & 16) / 4 + (lane & 8) / 4 + (lane & 4) / 4;
}

/* Stores a part, and adds up its columns. */
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
    if (FORM == BACKWARD_INPUT && p.out_sums) board[part * 32 + column_of_lane()] = sum_rows(columns);
}

template <ProductForm FORM>
KERNEL IN_CLUSTERS __launch_bounds__(THREADS, 1)
product_tiles(const __grid_constant__ TensorMap left, const __grid_constant__ TensorMap right, Product p,
              float *sums_of_64) {
#ifdef HAS_WARPGROUPS
    DYNAMIC_SHARED(bf16, lefts);
    bf16 *const rights = lefts + STAGES * LEFT;
    __shared__ Ring<STAGES> ring;
    // Of a tile and of the next one: a line a warp.
    constexpr int LINES = FORM == BACKWARD_INPUT ? GROUP / WARP : 1;
    __shared__ float boards[2][GROUPS][LINES][COLUMNS];
    __shared__ Barrier boards_full[GROUPS];
    const int group = threadIdx.x / GROUP, warp = threadIdx.x % GROUP / WARP, lane = threadIdx.x % WARP;
    const int rank = cluster_rank(), steps = (p.inner + DEPTH - 1) / DEPTH;
    if (threadIdx.x == 0) {
        ring_init(ring, 1, CLUSTER * GROUPS);
        for (Barrier &full : boards_full) barrier_init(&full, GROUP / WARP);
        barriers_ready();
    }
    cluster_wait();

    // f(row, column) for each of the block's tiles.
    const auto each_tile = [&](auto f) {
        const int across = (p.columns + COLUMNS - 1) / COLUMNS;
        const int down = (p.rows + CLUSTER * ROWS - 1) / (CLUSTER * ROWS);
        for (int tile = blockIdx.x / CLUSTER; tile < across * down; tile += gridDim.x / CLUSTER)
            f((tile / across * CLUSTER + rank) * ROWS, tile % across * COLUMNS);
    };
    if (group == GROUPS) {
        give_registers<40>();
        int step = 0;
        if (warp == 0)
            each_tile([&](int row, int column) {
                for (int k = 0; k < steps; k++, step++) {
                    const int stage = step % STAGES;
                    Barrier *const full = &ring.full[stage];
                    await_empty(ring, step);
                    if (!is_elected()) continue;
                    barrier_expect(full, (LEFT + RIGHT) * (int)sizeof(bf16));
                    copy_tile(lefts + stage * LEFT, &left, full, k * DEPTH, row, 0);
                    bf16 *const own = rights + stage * RIGHT + rank * (RIGHT / CLUSTER);
                    const int at = column + rank * (COLUMNS / CLUSTER);
                    for (int i = 0; i < COPIES<FORM>; i++)
                        copy_tile_to_all(own + i * RIGHT_ROWS<FORM> * 64, &right, full,
                                         FORM == FORWARD ? k * DEPTH : at + i * 64,
                                         FORM == FORWARD ? at : k * DEPTH);
                }
            });
    } else {
        take_registers<232>();
        int step = 0, parity = 0; // of the tile in `made`
        Made made;
        made.column = -1;
        const auto store = [&](int part, Eight (&pre)[2]) {
            store_part<FORM>(p, made, pre, part, boards[parity][group][warp % LINES]);
        };
        // When all parts of a tile are stored.
        const auto store_sums = [&] {
            if (FORM == FORWARD || !p.out_sums) return;
            __syncwarp();
            if (lane == 0) barrier_arrive(&boards_full[group]);
            barrier_wait(&boards_full[group], parity);
            const int first = made.row - warp * 16 - lane / 4;
            for (int c = threadIdx.x % GROUP; c < COLUMNS; c += GROUP) {
                float sum = 0;
                for (int line = 0; line < LINES; line++) sum += boards[parity][group][line][c];
                if (first < p.rows && made.column + c < p.columns)
                    sums_of_64[(i64)(first / GROUP_ROWS) * p.columns + made.column + c] = sum;
            }
            parity ^= 1;
        };
        const auto release_to_all = [&](int of) {
            if (lane < CLUSTER) barrier_arrive_at(&ring.empty[of % STAGES], lane);
        };
        each_tile([&](int row, int column) {
            float sums[COLUMNS / 8][4];
            int k = 0;
            const int own_row = row + group * GROUP_ROWS + warp * 16 + lane / 4;
            // What this tile will be multiplied by is on its way while it is made.
            const int near = column + lane % 4 * 64;
            for (int i = 0; FORM == BACKWARD_INPUT && p.pre && i < 2; i++)
                if (own_row + i * 8 < p.rows && near < p.columns)
                    prefetch_line((const bf16 *)p.pre + (i64)(own_row + i * 8) * p.columns + near);
            const bool is_there = made.column >= 0;
            const bool has_pre = FORM == BACKWARD_INPUT && is_there && p.pre;
            Eight pre[2][2]; // of a part, and of the one after it, which comes from memory meanwhile
            if (has_pre) load_pre(pre[0], p, made, 0);
#pragma unroll
            for (int part = 0; part < PARTS; part++) {
                if (has_pre && part + 1 < PARTS) load_pre(pre[(part + 1) % 2], p, made, part + 1);
                for (; k < steps * (part + 1) / PARTS; k++, step++) {
                    const bf16 *const own = lefts + step % STAGES * LEFT + group * GROUP_ROWS * DEPTH;
                    const bf16 *const other = rights + step % STAGES * RIGHT;
                    await_full(ring, step);
                    start_products();
#pragma unroll
                    for (int i = 0; i < DEPTH / 16; i++)
                        if constexpr (FORM == FORWARD)
                            multiply_rows<COLUMNS>(sums, along_rows(own, 64, i),
                                                   along_rows(other, COLUMNS, i), k + i > 0);
                        else
                            multiply_across<COLUMNS>(sums, along_rows(own, 64, i),
                                                     across_rows(other, DEPTH, i), k + i > 0);
                    commit_products();
                    wait_products<1>();
                    if (k > 0) release_to_all(step - 1);
                }
                if (is_there) store(part, pre[part % 2]);
            }
            if (made.column >= 0) store_sums();
            wait_products<0>();
            release_to_all(step - 1);
            made.row = own_row;
            made.column = column;
#pragma unroll
            for (int n = 0; n < COLUMNS / 8; n++) {
                const int at = column + n * 8 + lane % 4 * 2;
                u32 bias = 0;
                if (p.bias && at < p.columns)
                    bias = *reinterpret_cast<const u32 *>((const bf16 *)p.bias + at);
#pragma unroll
                for (int i = 0; i < 2; i++)
                    made.pairs[i][n] = narrow_pair(sums[n][2 * i] + first_of(bias),
                                                   sums[n][2 * i + 1] + second_of(bias));
            }
        });
#pragma unroll
        for (int part = 0; part < PARTS; part++) {
            Eight pre[2];
            if (FORM == BACKWARD_INPUT && p.pre) load_pre(pre, p, made, part);
            store(part, pre);
        }
        store_sums();
    }
    cluster_wait(); // until then another block may arrive at this one's barriers
#endif
}

} // namespace

bool product_hopper(const Product &p) {
    if (!has_warpgroups() || p.kind != BF16 || p.form == BACKWARD_WEIGHT || p.added) return false;
    if (p.columns % 8 || (size_t)p.out % 16 || (size_t)p.pre % 16) return false;
    const bool is_forward = p.form == FORWARD;
    TensorMap left, right;
    if (!make_map(&left, (const bf16 *)p.left, p.inner, p.rows, 1, ROWS)) return false;
    if (!make_map(&right, (const bf16 *)p.right, is_forward ? p.inner : p.columns,
                  is_forward ? p.columns : p.inner, 1,
                  is_forward ? RIGHT_ROWS<FORWARD> : RIGHT_ROWS<BACKWARD_INPUT>))
        return false;
    const int lines = (int)ceil_div(p.rows, GROUP_ROWS);
    if (p.out_sums && (size_t)lines * p.columns * sizeof(float) > product_room.bytes / 2) return false;
    float *const sums_of_64 = (float *)((char *)product_room.at + product_room.bytes / 2);
    const i64 tiles = ceil_div(p.rows, CLUSTER * ROWS) * ceil_div(p.columns, COLUMNS);
    const u32 clusters = (u32)min(tiles, (i64)(multiprocessors() / CLUSTER));
    launch(is_forward ? product_tiles<FORWARD> : product_tiles<BACKWARD_INPUT>, clusters * CLUSTER,
           THREADS, SHARED, left, right, p, sums_of_64);
    if (p.out_sums) column_sums(p.out_sums, sums_of_64, false, lines, p.columns, p.adds_sums);
    return true;
}
