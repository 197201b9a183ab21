/* Products with what is done to their results, for Hopper.
 *
 * A block of three warpgroups stays on its multiprocessor and makes one tile of the result after another,
 * of 128 rows and 256 columns. One group fetches, and two multiply, 64 rows each. What they have made
 * they keep in registers, rounded, and take it through GELU, or through its derivative, and store it, part
 * by part, while the tensor cores make the next tile. So they add up its columns too, by 64 rows. The
 * blocks of a cluster make tiles below one another: they share the right factor, of which each fetches
 * its part for all. */
#define LLM_BF16 // the only kind
#include "product_tile.h"
#include "ring.h"

namespace {

constexpr int ROWS = 128, DEPTH = 64, STAGES = 4;
constexpr int LEFT = ROWS * DEPTH, RIGHT = COLUMNS * DEPTH; // numbers of a step's factors
/* The rows of one copy of the right factor, and copies of each of a cluster's blocks. */
template <ProductForm FORM> constexpr int RIGHT_ROWS = FORM == FORWARD ? COLUMNS / CLUSTER : DEPTH;
template <ProductForm FORM> constexpr int COPIES = RIGHT / CLUSTER / (RIGHT_ROWS<FORM> * 64);
constexpr int SHARED = STAGES * (LEFT + RIGHT) * (int)sizeof(bf16);
constexpr int GROUPS = ROWS / GROUP_ROWS; // that multiply; the next one fetches
constexpr int THREADS = (GROUPS + 1) * GROUP;

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
        give_registers<24>();
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
        take_registers<240>();
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
    const size_t half = product_room.bytes / 2; // column_sums has the first one
    const bool has_room = p.out_sums && (size_t)lines * p.columns * sizeof(float) <= half;
    Product asked = p;
    if (!has_room) asked.out_sums = nullptr;
    float *const sums_of_64 = has_room ? (float *)((char *)product_room.at + half) : nullptr;
    const i64 tiles = ceil_div(p.rows, CLUSTER * ROWS) * ceil_div(p.columns, COLUMNS);
    const u32 clusters = (u32)min(tiles, (i64)(multiprocessors() / CLUSTER));
    launch(is_forward ? product_tiles<FORWARD> : product_tiles<BACKWARD_INPUT>, clusters * CLUSTER,
           THREADS, SHARED, left, right, asked, sums_of_64);
    if (has_room) column_sums(p.out_sums, sums_of_64, false, lines, p.columns, p.adds_sums);
    else if (p.out_sums) column_sums(p.out_sums, p.out, true, p.rows, p.columns, p.adds_sums);
    return true;
}
