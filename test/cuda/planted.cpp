/* Kernels with a mistake each, which the emulation has to show; `mended`, they are right. */
#include "../../cuda/hopper.h"

KERNEL reverse(float *out, int mended) {
    __shared__ float x[256];
    x[threadIdx.x] = (float)threadIdx.x;
    if (mended) __syncthreads();
    out[threadIdx.x] = x[255 - threadIdx.x];
}

/* What is read in one round is overwritten in the next. */
KERNEL rounds(float *out, int mended) {
    __shared__ float x[256];
    float sum = 0;
    for (int round = 0; round < 3; round++) {
        x[threadIdx.x] = (float)(threadIdx.x + round);
        __syncthreads();
        sum += x[255 - threadIdx.x] - (float)round;
        if (mended) __syncthreads();
    }
    out[threadIdx.x] = sum / 3;
}

/* Lanes of one warp, which run as one on most GPUs. */
KERNEL neighbours(float *out, int mended) {
    __shared__ float x[256];
    x[threadIdx.x] = (float)threadIdx.x;
    if (mended) __syncwarp();
    const int other = threadIdx.x ^ 31;
    out[threadIdx.x] = x[other] - (float)other + (float)(255 - threadIdx.x);
}

KERNEL part_of_block(float *out, int mended) {
    if (mended || threadIdx.x < 100) __syncthreads();
    out[threadIdx.x] = (float)(255 - threadIdx.x);
}

KERNEL part_of_warp(float *out, int mended) {
    const float x = (float)(255 - threadIdx.x);
    if (mended || threadIdx.x % 32 != 3) out[threadIdx.x] = __shfl_xor_sync(~0u, x, 0);
}

KERNEL fetched(float *out, const float *in, int mended) {
    __shared__ float x[2][256];
    for (int i = 0; i < 2; i++) {
        emulated_async_copy(&x[i][threadIdx.x], in + threadIdx.x, 4);
        emulated_async_commit();
    }
    emulated_async_wait(mended ? 0 : 1); // one wait too early for the second of two
    __syncthreads();
    out[threadIdx.x] = x[1][255 - threadIdx.x];
}

/* Two tiles, each with an mbarrier; how many are waited for before the second is read, and after. */
KERNEL tiles(float *out, const __grid_constant__ TensorMap map, int before, int after) {
    constexpr int SIZE = 64 * 64;
    DYNAMIC_SHARED(bf16, tile);
    __shared__ Barrier full[2];
    if (threadIdx.x == 0) {
        for (int i = 0; i < 2; i++) barrier_init(&full[i], 1);
        barriers_ready();
        for (int i = 0; i < 2; i++) {
            barrier_expect(&full[i], SIZE * (int)sizeof(bf16));
            copy_tile(tile + i * SIZE, &map, &full[i], 0, 0, 0);
        }
    }
    __syncthreads();
    for (int i = 0; i < before; i++) barrier_wait(&full[i], 0);
    out[threadIdx.x] = widen(*in_tile(tile + SIZE, 64, threadIdx.x / 64, threadIdx.x % 64));
    __syncthreads();
    for (int i = 0; i < after; i++) barrier_wait(&full[i], 0);
}

KERNEL past_the_end(float *out, int mended) {
    DYNAMIC_SHARED(float, x);
    x[threadIdx.x + (mended ? 0 : 1)] = 0;
    out[threadIdx.x] = (float)(255 - threadIdx.x);
}

KERNEL pairs(float *out, int mended) {
    float2 *const pair = reinterpret_cast<float2 *>(out + (mended ? 0 : 1)) + threadIdx.x;
    *pair = make_float2(255.f - 2 * threadIdx.x, 254.f - 2 * threadIdx.x);
}

/* What only AddressSanitizer sees. */
KERNEL far_write(float *out, const float *a, i64 n) {
    if (threadIdx.x == 77) out[n + (1 << 20)] = a[0];
}
KERNEL far_read(float *out, const float *a, i64 n) {
    if (threadIdx.x == 77) out[0] = a[n + (1 << 20)];
}
KERNEL beyond_dynamic(float *out) {
    DYNAMIC_SHARED(float, x);
    x[threadIdx.x] = 1;
    __syncthreads();
    out[0] = x[threadIdx.x + 1];
}
KERNEL beyond_static(float *out) {
    __shared__ float x[256], y[256];
    x[threadIdx.x] = y[threadIdx.x] = 1;
    __syncthreads();
    out[0] = x[threadIdx.x + 1] + y[threadIdx.x + 1];
}
KERNEL beyond_own(float *out) {
    float x[4];
    for (unsigned i = 0; i < 4; i++) x[(i + threadIdx.x) % (gridDim.x + 4)] = 1;
    __syncthreads();
    out[0] = x[threadIdx.x % 4];
}

KERNEL fill(float *out) {
    const unsigned i = (threadIdx.x + blockIdx.y) % 256;
    out[i] = (float)(255 - i);
}

KERNEL count(float *out) { out[threadIdx.x] = (float)threadIdx.x; }
KERNEL count_down(bf16 *out) { out[threadIdx.x] = narrow<bf16>((float)(255 - threadIdx.x)); }

static void copy_tiles(float *out, int before, int after) {
    bf16 *const in = (bf16 *)(out + 256);
    TensorMap map;
    if (!make_map(&map, in, 64, 4, 1)) return;
    launch(count_down, 1, 256, 0, in);
    launch(tiles, 1, 256, 2 * 64 * 64 * sizeof(bf16), out, map, before, after);
}

#pragma GCC visibility push(default)
extern "C" {
void planted_race(float *out, int mended) { launch(reverse, 1, 256, 0, out, mended); }
void planted_reuse(float *out, int mended) { launch(rounds, 1, 256, 0, out, mended); }
void planted_lanes(float *out, int mended) { launch(neighbours, 1, 256, 0, out, mended); }
void planted_barrier(float *out, int mended) { launch(part_of_block, 1, 256, 0, out, mended); }
void planted_shuffle(float *out, int mended) { launch(part_of_warp, 1, 256, 0, out, mended); }
void planted_copy(float *out, int mended) {
    launch(count, 1, 256, 0, out + 256);
    launch(fetched, 1, 256, 0, out, out + 256, mended);
}
void planted_tile(float *out, int mended) { copy_tiles(out, mended ? 2 : 1, 2); }
void planted_tile_left(float *out, int mended) { copy_tiles(out, mended ? 2 : 1, 1); }
void planted_overflow(float *out, int mended) {
    launch(past_the_end, 1, 256, 1024, out, mended);
}
void planted_address(float *out, int mended) { launch(pairs, 1, 128, 0, out, mended); }
void planted_grid(float *out, int mended) {
    launch(fill, dim3(1, mended ? 256 : 65536), 1, 0, out);
}
void planted_block(float *out, int mended) {
    launch(fill, 1, mended ? 1024 : 1056, 0, out);
}
void planted_memory(float *out, int mended) {
    launch(fill, 1, 256, mended ? 227 << 10 : (227 << 10) + 1, out);
}

void planted_far_write(float *out, const float *a, const float *, i64 n) {
    launch(far_write, 1, 256, 0, out, a, n);
}
void planted_far_read(float *out, const float *a, const float *, i64 n) {
    launch(far_read, 1, 256, 0, out, a, n);
}
void planted_dynamic(float *out, const float *, const float *, i64) {
    launch(beyond_dynamic, 1, 256, 1024, out);
}
void planted_static(float *out, const float *, const float *, i64) {
    launch(beyond_static, 1, 256, 0, out);
}
void planted_own(float *out, const float *, const float *, i64) {
    launch(beyond_own, 1, 256, 0, out);
}

/* A copy on a second stream, which the first must wait for. */
void planted_streams(float *out, int mended) {
    static cudaStream_t second;
    static cudaEvent_t counted, copied;
    static float *in;
    if (!second) {
        keep_error(cudaStreamCreate(&second));
        keep_error(cudaEventCreate(&counted));
        keep_error(cudaEventCreate(&copied));
        keep_error(cudaMalloc(&in, 1024));
    }
    keep_error(cudaMemset(in, 0, 1024));
    launch(count, 1, 256, 0, out + 256);
    keep_error(cudaEventRecord(counted, stream));
    keep_error(cudaStreamWaitEvent(second, counted));
    keep_error(cudaMemcpyAsync(in, out + 256, 1024, cudaMemcpyDeviceToDevice, second));
    keep_error(cudaEventRecord(copied, second));
    if (mended) keep_error(cudaStreamWaitEvent(stream, copied));
    launch(fetched, 1, 256, 0, out, (const float *)in, 1);
    keep_error(cudaStreamSynchronize(second));
}
}
#pragma GCC visibility pop
