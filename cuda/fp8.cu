/* Tensors of eight bits: scales, and tensors stored by them. Memory bounds it, so one kernel reads a
 * tensor once, and writes it as it lies and transposed (calibrating, it has read it once before); what
 * is on its way is a tile a block. */
#include "activation.h"
#include "elements.h"
#include "fp8.h"
#include "product.h"

namespace {

DEVICE u32 size_of(float x) { return __float_as_uint(x) & 0x7fffffff; } // NaN is the largest

DEVICE u32 warp_most(u32 x) {
    for (int distance = WARP / 2; distance > 0; distance /= 2)
        x = max(x, __shfl_xor_sync(ALL_LANES, x, distance));
    return x;
}

/* The scale that brings `most` to `largest`, or up to half below it. */
DEVICE float scale_for(float most, float largest) {
    if (most != most) return most;
    const float ratio = largest / most;
    if (ratio < power_of_two(-126)) return power_of_two(-126);
    return power_of_two(min((int)(__float_as_uint(ratio) >> 23) - 127, 126));
}

DEVICE void set_scale(float *slot, float most, float largest) {
    if (most == 0 && slot[SCALE] != 0) return;
    const float scale = most == 0 ? 1 : scale_for(most, largest);
    slot[SCALE] = scale;
    slot[INVERSE] = 1 / scale;
}

/* A warp a slot, a lane a number. */
static_assert(LLM_FP8_SLOT == WARP, "a slot is a warp's");

KERNEL __launch_bounds__(WARP) next_scale(float *slots, float largest) {
    const int lane = threadIdx.x;
    float *const slot = slots + (i64)blockIdx.x * LLM_FP8_SLOT;
    const float number = slot[lane], before = __shfl_up_sync(ALL_LANES, number, 1);
    const bool is_in_window = lane > NOW && lane <= NOW + LLM_FP8_WINDOW;
    const float most = __uint_as_float(warp_most(is_in_window ? __float_as_uint(before) : 0));
    if (is_in_window) slot[lane] = before;
    if (lane == NOW) slot[lane] = 0;
    if (lane == SCALE) set_scale(slot, most, largest);
}

KERNEL first_scale(float *slot, float largest) { set_scale(slot, slot[NOW], largest); }

/* A tile's side; a thread has 4 rows of 8 columns of it. */
constexpr int SIDE = 128, ROWS = 4, COLUMNS = 8;
constexpr int ROW_GROUPS = SIDE / ROWS, COLUMN_GROUPS = SIDE / COLUMNS;
constexpr int THREADS = ROW_GROUPS * COLUMN_GROUPS, WARPS = THREADS / WARP;

enum Of { ITSELF, GELU_OF, GELU_GRADIENT };

struct Tensor {
    unsigned char *out, *transposed;
    float *slot, *sums; // sums of every SIDE rows, of C each
    const bf16 *inp, *pre;
    int N, C;
};

typedef Stored<bf16, COLUMNS> Loaded;

/* IS_WIDE: where a row begins on 16 bytes, and so its groups of columns are whole or not there. What is
 * beyond the edges is the last row or column again: no branch parts the loads. */
template <bool IS_WIDE>
DEVICE void load_rows(Loaded (&to)[ROWS], const bf16 *from, const Tensor &t, int row, int column) {
#pragma unroll
    for (int r = 0; r < ROWS; r++) {
        const bf16 *const at = from + (i64)min(row + r, t.N - 1) * t.C;
        if constexpr (IS_WIDE) {
            to[r] = load_stored<COLUMNS>(at + min(column, t.C - COLUMNS));
        } else {
#pragma unroll
            for (int c = 0; c < COLUMNS; c++) to[r].at[c] = at[min(column + c, t.C - 1)];
        }
    }
}

template <bool IS_WIDE>
DEVICE void store_rows(const u32 (&codes)[ROWS][2], const Tensor &t, int row, int column) {
#pragma unroll
    for (int r = 0; r < ROWS; r++) {
        if (row + r >= t.N) return;
        unsigned char *const to = t.out + (i64)(row + r) * t.C + column;
        if constexpr (IS_WIDE) {
            if (column < t.C) *(uint2 *)to = make_uint2(codes[r][0], codes[r][1]);
        } else {
#pragma unroll
            for (int c = 0; c < COLUMNS; c++)
                if (column + c < t.C) to[c] = (unsigned char)(codes[r][c / 4] >> 8 * (c % 4));
        }
    }
}

/* Where the word of 4 rows of a column is: lanes that write words of 16 column groups and 2 row groups
 * meet each of the 32 banks once, and so do those that read a column. */
DEVICE int word_at(int column, int row_group) {
    return column * ROW_GROUPS + (row_group + 2 * (column / COLUMNS)) % ROW_GROUPS;
}

/* Bytes of 4 words become words of 4 bytes: to[i] has byte i of each. */
DEVICE void turn(u32 (&to)[ROWS], u32 a, u32 b, u32 c, u32 d) {
    const u32 low_ab = __byte_perm(a, b, 0x5140), low_cd = __byte_perm(c, d, 0x5140);
    const u32 high_ab = __byte_perm(a, b, 0x7362), high_cd = __byte_perm(c, d, 0x7362);
    to[0] = __byte_perm(low_ab, low_cd, 0x5410);
    to[1] = __byte_perm(low_ab, low_cd, 0x7632);
    to[2] = __byte_perm(high_ab, high_cd, 0x5410);
    to[3] = __byte_perm(high_ab, high_cd, 0x7632);
}

/* The tile's columns, a warp one at a time, each a row of `transposed`. */
DEVICE void store_transposed(const Tensor &t, const u32 *tile, int first_row, int first_column) {
    const int lane = threadIdx.x % WARP, row = first_row + lane * ROWS;
    for (int c = threadIdx.x / WARP; c < SIDE && first_column + c < t.C; c += WARPS) {
        const u32 word = tile[word_at(c, lane)];
        unsigned char *const to = t.transposed + (i64)(first_column + c) * t.N + row;
        if (t.N % ROWS == 0) {
            if (row < t.N) *(u32 *)to = word;
        } else {
            for (int r = 0; r < ROWS && row + r < t.N; r++) to[r] = (unsigned char)(word >> 8 * r);
        }
    }
}

/* Two blocks beside each other: one loads while the other stores. Addresses number by number take the
 * registers of both. */
template <typename F, Of OF, bool IS_WIDE>
KERNEL __launch_bounds__(THREADS, IS_WIDE ? 2 : 1) quantize(Tensor t) {
    constexpr bool HAS_SUMS = F::FRACTION == E5m2::FRACTION; // of gradients
    __shared__ u32 tile[SIDE * ROW_GROUPS], most_of[WARPS];
    __shared__ __align__(16) float board[HAS_SUMS ? WARPS * SIDE : 1];
    const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    const int strips = (t.C - 1) / SIDE + 1, row_tile = blockIdx.x / strips;
    const int first_row = row_tile * SIDE, first_column = blockIdx.x % strips * SIDE;
    const int row_group = threadIdx.x / COLUMN_GROUPS, column_group = threadIdx.x % COLUMN_GROUPS;
    const int row = first_row + row_group * ROWS, column = first_column + column_group * COLUMNS;

    Loaded inp[ROWS], pre[ROWS];
    load_rows<IS_WIDE>(inp, t.inp, t, row, column);
    if constexpr (OF == GELU_GRADIENT) load_rows<IS_WIDE>(pre, t.pre, t, row, column);
    const float scale = t.slot[SCALE];

    u32 codes[ROWS][2], most = 0;
    Floats<COLUMNS> sum = {};
#pragma unroll
    for (int r = 0; r < ROWS; r++) {
        Floats<COLUMNS> x = widen(inp[r]);
        if constexpr (OF == GELU_GRADIENT) {
            const Floats<COLUMNS> at = widen(pre[r]);
#pragma unroll
            for (int c = 0; c < COLUMNS; c++) x.at[c] *= gelu_gradient_fast(at.at[c]);
        }
#pragma unroll
        for (int c = 0; c < COLUMNS; c++) {
            if constexpr (OF == GELU_OF) x.at[c] = gelu_fast(x.at[c]);
            most = max(most, size_of(x.at[c]));
            if (HAS_SUMS && row + r < t.N) sum.at[c] += x.at[c];
            x.at[c] *= scale;
        }
#pragma unroll
        for (int half = 0; half < 2; half++)
            codes[r][half] = narrow_pair<F>(x.at[4 * half], x.at[4 * half + 1]) |
                             narrow_pair<F>(x.at[4 * half + 2], x.at[4 * half + 3]) << 16;
    }

    if (t.out) store_rows<IS_WIDE>(codes, t, row, column);
    if (t.transposed) {
#pragma unroll
        for (int half = 0; half < 2; half++) {
            u32 words[ROWS];
            turn(words, codes[0][half], codes[1][half], codes[2][half], codes[3][half]);
#pragma unroll
            for (int c = 0; c < 4; c++)
                tile[word_at(column_group * COLUMNS + 4 * half + c, row_group)] = words[c];
        }
    }
    most = warp_most(most);
    if (lane == 0) most_of[warp] = most;
    if (HAS_SUMS && t.sums) {
        // Of the warp's two groups of rows, both add the same pair.
#pragma unroll
        for (int c = 0; c < COLUMNS; c++)
            sum.at[c] += __shfl_xor_sync(ALL_LANES, sum.at[c], COLUMN_GROUPS);
        if (lane < COLUMN_GROUPS) store(board + warp * SIDE + lane * COLUMNS, sum);
    }
    __syncthreads();

    if (warp == 0) {
        most = warp_most(lane < WARPS ? most_of[lane] : 0);
        if (lane == 0) atomicMax((u32 *)t.slot + NOW, most);
    }
    if (t.transposed) store_transposed(t, tile, first_row, first_column);
    const int summed = first_column + threadIdx.x;
    if (HAS_SUMS && t.sums && threadIdx.x < SIDE && summed < t.C) {
        float total = 0;
        for (int w = 0; w < WARPS; w++) total += board[w * SIDE + threadIdx.x];
        t.sums[(i64)row_tile * t.C + summed] = total;
    }
}

template <typename F, Of OF> void quantize_all(const Tensor &t, int calibrate) {
    const i64 tiles = ceil_div(t.N, SIDE) * ceil_div(t.C, SIDE);
    void (*const kernel)(Tensor) =
        t.C % COLUMNS == 0 ? quantize<F, OF, true> : quantize<F, OF, false>;
    if (calibrate) {
        const Tensor seen = {nullptr, nullptr, t.slot, nullptr, t.inp, t.pre, t.N, t.C};
        launch(kernel, (u32)tiles, THREADS, 0, seen);
        launch(first_scale, 1, 1, 0, t.slot, F::LARGEST);
    }
    launch(kernel, (u32)tiles, THREADS, 0, t);
}

} // namespace

void fp8_scales(float *slots, int count, float largest) {
    launch(next_scale, (u32)count, WARP, 0, slots, largest);
}

void e4m3_quantize(e4m3 *out, e4m3 *transposed, float *slot, const bf16 *inp, int N, int C, int gelu,
                   int calibrate) {
    const Tensor t = {out, transposed, slot, nullptr, inp, nullptr, N, C};
    if (gelu) quantize_all<E4m3, GELU_OF>(t, calibrate);
    else quantize_all<E4m3, ITSELF>(t, calibrate);
}

void e5m2_quantize(e5m2 *out, e5m2 *transposed, float *slot, float *sums, const bf16 *inp,
                   const bf16 *pre, float *scratch, int N, int C, int accumulate, int calibrate) {
    const Tensor t = {out, transposed, slot, sums ? scratch : nullptr, inp, pre, N, C};
    if (pre) quantize_all<E5m2, GELU_GRADIENT>(t, calibrate);
    else quantize_all<E5m2, ITSELF>(t, calibrate);
    if (sums) column_sums(sums, scratch, false, (int)ceil_div(N, SIDE), C, accumulate);
}
