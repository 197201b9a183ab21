/* Attention of new tokens with a cache of the keys and values before them. Several tokens of a
 * sequence are a tile of queries as any other. A single token reads every row once, so that memory
 * decides how long it takes: the rows are worked on in pieces, a block each. */
#include "attention.h"

constexpr int THREADS = 256;

struct Decode {
    real *out, *kcache, *vcache;
    const real *qkv;
    const int *positions;
    float *scratch; // (B,NH,maxT): of each piece its sums, its largest score and its total
    int B, NH, HS, maxT, piece;
    float scale;
};

/* Rows of a piece: so many that its HS + 2 numbers, of one piece more than fit into maxT, fit into
 * scratch. A token's bits depend on it, so that nothing but HS may decide it. */
static int piece_rows(int HS) { return HS + 2 > 128 ? 2 * (HS + 2) : 256; }

template <int N> struct alignas(N * sizeof(real)) Some {
    real at[N];
};

/* Block (head, piece). A row's channels are shared by `lanes` lanes, N at a time. */
template <int N> KERNEL __launch_bounds__(THREADS) decode_piece(Decode x, int lanes) {
    DYNAMIC_SHARED(float, q); // (HS)
    float *const scores = q + (x.HS + 3) / 4 * 4;
    __shared__ float board[WARP], sums[THREADS / WARP][WARP * N];
    const int HS = x.HS, head = blockIdx.x, b = head / x.NH, h = head % x.NH;
    const int position = x.positions[b], first = blockIdx.y * x.piece;
    const int rows = min(x.piece, position + 1 - first);
    if (rows <= 0) return;
    const i64 C = (i64)x.NH * HS, at = (b * (i64)x.maxT + first) * C + (i64)h * HS;
    const real *const own = x.qkv + b * 3 * C + (i64)h * HS, *const k = own + C, *const v = k + C;
    real *const keys = x.kcache + at, *const values = x.vcache + at;
    const int newest = position - first; // row of the piece, if it is one of its rows
    for (int d = threadIdx.x; d < HS; d += THREADS) {
        q[d] = widen(own[d]) * x.scale;
        if (newest < rows) {
            keys[newest * C + d] = k[d];
            values[newest * C + d] = v[d];
        }
    }
    __syncthreads();

    const int warp = threadIdx.x / WARP, lane = threadIdx.x % lanes, group = threadIdx.x / lanes;
    const int groups = THREADS / lanes;
    float most = -INFINITY;
#pragma unroll 4
    for (int start = 0; start < rows; start += groups) {
        const int row = start + group;
        const real *const from = row == newest ? k : keys + row * C;
        float score = 0;
        if (row < rows)
            for (int d = lane * N; d < HS; d += lanes * N) {
                const Some<N> some = *reinterpret_cast<const Some<N> *>(from + d);
                for (int i = 0; i < N; i++) score = fmaf(q[d + i], widen(some.at[i]), score);
            }
        for (int distance = lanes / 2; distance > 0; distance /= 2)
            score += __shfl_xor_sync(ALL_LANES, score, distance);
        if (row >= rows) continue;
        if (lane == 0) scores[row] = score;
        most = most >= score || most != most ? most : score; // NaN wins
    }
    most = warp_max(most);
    if (threadIdx.x % WARP == 0) board[warp] = most;
    __syncthreads();
    most = warp_max(board[threadIdx.x % (THREADS / WARP)]);
    float total = 0;
    for (int row = threadIdx.x; row < rows; row += THREADS) {
        scores[row] = exp2f(scores[row] - most);
        total += scores[row];
    }
    __syncthreads();
    total = block_sum(total, board);

    const bool is_whole = gridDim.y == 1;
    float *const part = x.scratch + (i64)head * x.maxT + blockIdx.y * (HS + 2);
    for (int channel = 0; channel < HS; channel += lanes * N) {
        const int d = channel + lane * N;
        float sum[N] = {};
        if (d < HS) {
#pragma unroll 4
            for (int row = group; row < rows; row += groups) {
                const real *const from = row == newest ? v : values + row * C;
                const Some<N> some = *reinterpret_cast<const Some<N> *>(from + d);
                for (int i = 0; i < N; i++) sum[i] = fmaf(scores[row], widen(some.at[i]), sum[i]);
            }
        }
        for (int i = 0; i < N; i++) {
            for (int distance = lanes; distance < WARP; distance *= 2)
                sum[i] += __shfl_xor_sync(ALL_LANES, sum[i], distance);
            sums[warp][lane * N + i] = sum[i]; // the same from each of the warp's groups
        }
        __syncthreads();
        for (int i = threadIdx.x; i < min(lanes * N, HS - channel); i += THREADS) {
            float all = 0;
            for (int w = 0; w < THREADS / WARP; w++) all += sums[w][i];
            if (is_whole)
                x.out[b * C + (i64)h * HS + channel + i] = narrow<real>(all * (1 / total));
            else
                part[channel + i] = all;
        }
        __syncthreads();
    }
    if (!is_whole && threadIdx.x == 0) {
        part[HS] = most;
        part[HS + 1] = total;
    }
}

/* Block (head): the pieces' sums, scaled to the largest score of all. */
KERNEL __launch_bounds__(THREADS) decode_join(Decode x) {
    const int HS = x.HS, head = blockIdx.x, b = head / x.NH, h = head % x.NH;
    const int pieces = x.positions[b] / x.piece + 1;
    const float *const parts = x.scratch + (i64)head * x.maxT;
    float most = -INFINITY, total = 0;
    for (int i = 0; i < pieces; i++) {
        const float top = parts[i * (HS + 2) + HS];
        most = most >= top || most != most ? most : top; // NaN wins
    }
    for (int i = 0; i < pieces; i++)
        total += parts[i * (HS + 2) + HS + 1] * exp2f(parts[i * (HS + 2) + HS] - most);
    for (int d = threadIdx.x; d < HS; d += THREADS) {
        float sum = 0;
        for (int i = 0; i < pieces; i++)
            sum += parts[i * (HS + 2) + d] * exp2f(parts[i * (HS + 2) + HS] - most);
        x.out[((i64)b * x.NH + h) * HS + d] = narrow<real>(sum * (1 / total));
    }
}

template <int N> static void decode_one(const Decode &x) {
    int lanes = 1;
    while (lanes < WARP && lanes * N < x.HS) lanes *= 2;
    const dim3 grid(x.B * x.NH, (u32)ceil_div(x.maxT, x.piece));
    const size_t shared = (ceil_div(x.HS, 4) * 4 + x.piece) * sizeof(float);
    launch(decode_piece<N>, grid, THREADS, shared, x, lanes);
    if (grid.y > 1) launch(decode_join, x.B * x.NH, THREADS, 0, x);
}

/* Keys and values of new tokens go to their rows: a thread a number. */
KERNEL __launch_bounds__(THREADS) keep(Decode x, int T) {
    const i64 C = (i64)x.NH * x.HS, i = (i64)blockIdx.x * THREADS + threadIdx.x;
    const i64 token = i / C, b = token / T;
    if (b >= x.B) return;
    const i64 row = b * x.maxT + x.positions[b] + token % T;
    x.kcache[row * C + i % C] = x.qkv[token * 3 * C + C + i % C];
    x.vcache[row * C + i % C] = x.qkv[token * 3 * C + 2 * C + i % C];
}

extern "C" void REAL(attention_decode)(real *out, real *kcache, real *vcache, const real *qkv,
                                       const int *positions, float *scratch, int B, int T, int C,
                                       int NH, int maxT) {
    const int HS = C / NH;
    const Decode x = {out, kcache, vcache, qkv,  positions,      scratch,
                      B,   NH,     HS,     maxT, piece_rows(HS), score_scale(HS)};
    if (T == 1) {
        constexpr int PACK = Pack<real>::SIZE;
        return HS % PACK == 0 ? decode_one<PACK>(x) : decode_one<1>(x);
    }
    launch(keep, (u32)ceil_div((i64)B * T * C, THREADS), THREADS, 0, x, T);
    const i64 cached = (i64)maxT * C;
    const Rows q = {qkv, 3ll * T * C, 3 * C}, k = {kcache, cached, C}, v = {vcache, cached, C};
    REAL(attend)({out, nullptr, q, k, v, positions, B, T, NH, HS, score_scale(HS)});
}
