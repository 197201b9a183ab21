/* What cuda/hopper.h does by one instruction each, lane by lane. */
#ifndef LLM_EMULATED_HOPPER_H
#define LLM_EMULATED_HOPPER_H

struct TensorMap {
    const bf16 *tensor;
    int channels, T, B, rows;
};
inline bool make_map(TensorMap *map, const bf16 *tensor, int channels, int T, int B, int rows = 64) {
    if ((uintptr_t)tensor % 16 || channels % 8) return false;
    *map = {tensor, channels, T, B, rows};
    return true;
}

/* Where a channel of a row of a tile lies. */
DEVICE const bf16 *in_tile(const bf16 *tile, int height, int row, int channel) {
    const int place = channel % 64 / 8 ^ row % 8;
    return tile + channel / 64 * height * 64 + row * 64 + place * 8 + channel % 8;
}

struct Operand {
    const bf16 *tile;
    int height, k;
};
DEVICE Operand along_rows(const bf16 *tile, int height, int k) { return {tile, height, k}; }
DEVICE Operand across_rows(const bf16 *tile, int height, int k) { return {tile, height, k}; }
DEVICE float along(Operand x, int row, int k) { return widen(*in_tile(x.tile, x.height, row, x.k * 16 + k)); }
DEVICE float across(Operand x, int k, int column) {
    return widen(*in_tile(x.tile, x.height, x.k * 16 + k, column));
}
DEVICE void check_operand(Operand x) {
    if ((uintptr_t)x.tile % 1024) emulated::fail("a tile is not on 1024 bytes");
}

/* Row and column of a lane's number. */
DEVICE int row_of(int i) { return threadIdx.x % WARP / 4 + i / 2 * 8; }
DEVICE int column_of(int n, int i) { return n * 8 + threadIdx.x % 4 * 2 + i % 2; }

/* out = or += a·b(k,column). */
template <int N, typename F>
DEVICE void multiply(float (&out)[N / 8][4], Operand a, F b, bool add) {
    check_operand(a);
    __syncwarp();
    const int first = threadIdx.x / WARP % 4 * 16;
    for (int n = 0; n < N / 8; n++)
        for (int i = 0; i < 4; i++) {
            double sum = add ? out[n][i] : 0;
            for (int k = 0; k < 16; k++)
                sum += (double)along(a, first + row_of(i), k) * b(k, column_of(n, i));
            out[n][i] = (float)sum;
        }
}
template <int N>
DEVICE void multiply_rows(float (&out)[N / 8][4], Operand a, Operand b, bool add) {
    check_operand(b);
    multiply<N>(out, a, [=](int k, int column) { return along(b, column, k); }, add);
}
template <int N>
DEVICE void multiply_across(float (&out)[N / 8][4], Operand a, Operand b, bool add) {
    check_operand(b);
    multiply<N>(out, a, [=](int k, int column) { return across(b, k, column); }, add);
}

template <int N>
DEVICE void add_weighted(float (&out)[N / 8][4], const u32 (&a)[4], Operand b) {
    struct Weights {
        u32 a[4];
    };
    check_operand(b);
    const Weights *of = warp_gather(Weights{{a[0], a[1], a[2], a[3]}});
    for (int n = 0; n < N / 8; n++)
        for (int i = 0; i < 4; i++) {
            double sum = out[n][i];
            for (int k = 0; k < 16; k++) {
                const Weights &weights = of[row_of(i) % 8 * 4 + k % 8 / 2];
                sum += (double)half_of(weights.a[i / 2 + k / 8 * 2], k % 2) *
                       across(b, k, column_of(n, i));
            }
            out[n][i] = (float)sum;
        }
}

DEVICE void start_products() { __syncwarp(); }
DEVICE void commit_products() {}
template <int N> DEVICE void wait_products() { __syncwarp(); }

struct Barrier {
    int arrivals, missing, bytes, phase;
};
DEVICE void barrier_init(Barrier *barrier, int arrivals) { *barrier = {arrivals, arrivals, 0, 0}; }
DEVICE void barriers_ready() {}
DEVICE void end_phase(Barrier *barrier) {
    if (barrier->missing || barrier->bytes) return;
    barrier->missing = barrier->arrivals;
    barrier->phase ^= 1;
    emulated::wake(barrier);
}
DEVICE void barrier_arrive(Barrier *barrier) {
    if (barrier->missing-- == 0) emulated::fail("a barrier has more arrivals than it expects");
    end_phase(barrier);
}
DEVICE void barrier_expect(Barrier *barrier, int bytes) {
    barrier->bytes += bytes;
    barrier_arrive(barrier);
}
DEVICE void barrier_wait(Barrier *barrier, int parity) {
    while (barrier->phase == parity) {
        emulated_bulk_land(barrier);
        if (barrier->phase == parity) emulated::wait(barrier);
    }
}

DEVICE void copy_tile(bf16 *to, const TensorMap *map, Barrier *barrier, int channel, int row, int b) {
    if ((uintptr_t)to % 1024) emulated::fail("a tile is not on 1024 bytes");
    const int rows = map->rows, bytes = rows * 64 * (int)sizeof(bf16);
    emulated_bulk_copy(to, bytes, barrier, [=, map = *map] {
        for (int r = 0; r < rows; r++)
            for (int c = 0; c < 64; c++) {
                const bool present = row + r < map.T && channel + c < map.channels;
                const i64 at = ((i64)b * map.T + row + r) * map.channels + channel + c;
                *const_cast<bf16 *>(in_tile(to, rows, r, c)) = present ? map.tensor[at] : (bf16)0;
            }
        barrier->bytes -= bytes;
        end_phase(barrier);
    });
}

DEVICE bool is_elected() { return threadIdx.x % WARP == 0; }
DEVICE void prefetch_line(const void *) {}
template <int N> DEVICE void take_registers() {}
template <int N> DEVICE void give_registers() {}

/* Blocks run one after the other: a cluster is one of them. */
constexpr int CLUSTER = 1;
#define IN_CLUSTERS
DEVICE int cluster_rank() { return 0; }
DEVICE void cluster_wait() { __syncthreads(); }
DEVICE void barrier_arrive_at(Barrier *barrier, int) { barrier_arrive(barrier); }
DEVICE void copy_tile_to_all(bf16 *to, const TensorMap *map, Barrier *barrier, int channel, int row) {
    copy_tile(to, map, barrier, channel, row, 0);
}

#endif
