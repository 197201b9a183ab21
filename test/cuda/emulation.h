/* CUDA's execution model on the host, for machines without a GPU: cuda/launch.h includes this instead
 * of CUDA's headers where LLM_EMULATED is defined.
 *
 * A thread of a block is a fiber with a stack of its own; one fiber runs at a time, until it waits for
 * others or ends. Which runs first is drawn by a seed, blocks' order too, so that results which depend
 * on it differ between seeds. Shared memory is NaN at each block's start, and what is wrong beyond a
 * doubt ends the launch with an error that says it: a barrier that not all threads reach, a warp-wide
 * call that a lane of its mask misses, writing past dynamic shared memory. */
#ifndef LLM_EMULATION_H
#define LLM_EMULATION_H

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <tuple>

#define __global__
#define __device__
#define __host__
#define __constant__ static
#define __forceinline__ inline
#define __grid_constant__
#define __launch_bounds__(...)
#define __align__(n) __attribute__((aligned(n)))
/* One block runs at a time; the section is what a block finds filled with NaN. */
#define __shared__ static __attribute__((section("emulated_shared")))

struct uint3 {
    unsigned x, y, z;
};
struct dim3 {
    unsigned x, y, z;
    dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};
extern uint3 threadIdx, blockIdx;
extern dim3 blockDim, gridDim;
constexpr int warpSize = 32;

#include "runtime.h"

namespace emulated {

enum class Call { SHUFFLE, BALLOT, SYNC, GATHER };
constexpr int GATHERED = 512; // bytes a lane can hand to warp_gather

/* Waits for the mask's lanes to make the same call. SHUFFLE gives the source lane's value, BALLOT
 * the lanes whose value is not 0, GATHER the address of the 32 lanes' values, `stride` bytes each. */
uint64_t warp_call(Call call, uint32_t mask, uint64_t value, int source);
uint64_t gather(const void *value, size_t bytes);
int lane();

/* Waits for the whole block; gives how many threads' value was not 0. */
int barrier(int value);

/* Waits until somebody wakes those who wait for that place. */
void wait(const void *place);
void wake(const void *place);

char *dynamic_shared();
/* Queues a grid; `thread` is what each thread runs. */
cudaError_t launch(dim3 grid, dim3 block, size_t shared, std::function<void()> thread);

/* Ends the launch with this error, like printf. */
[[noreturn]] void fail(const char *format, ...) __attribute__((format(printf, 1, 2)));

template <typename T> inline T shuffle(uint32_t mask, T value, int source) {
    static_assert(sizeof(T) <= 8, "a shuffle moves at most 8 bytes");
    uint64_t bits = 0;
    memcpy(&bits, &value, sizeof value);
    bits = warp_call(Call::SHUFFLE, mask, bits, source);
    memcpy(&value, &bits, sizeof value);
    return value;
}

} // namespace emulated

/* Sets the order in which fibers and blocks run; by default $LLM_EMULATION_SEED, or 1. */
extern "C" __attribute__((visibility("default"))) void emulated_seed(unsigned seed);
/* The major number of the emulated GPU's compute capability, 9 until set: kernels may have other ways
 * on later GPUs, and cannot run on those before 8. */
extern "C" __attribute__((visibility("default"))) void emulated_capability(int major);

/* cp.async as late as the hardware may be: the destination in shared memory is NaN from the call to
 * the wait. Of `bytes` (4, 8 or 16), the first `valid` are copied, the others 0. wait(n) waits for
 * all groups but the last n. */
void emulated_async_copy(void *to, const void *from, int bytes, int valid);
inline void emulated_async_copy(void *to, const void *from, int bytes) {
    emulated_async_copy(to, from, bytes, bytes);
}
void emulated_async_commit();
void emulated_async_wait(int n);
/* A copy of Hopper's engine, as late too: `land` runs when the mbarrier is next waited for, before which
 * the destination is NaN. */
void emulated_bulk_copy(void *to, int bytes, const void *barrier, std::function<void()> land);
void emulated_bulk_land(const void *barrier);

/* Every lane hands in a T, all get the warp's 32, until their next warp-wide call. */
template <typename T> inline const T *warp_gather(const T &mine) {
    static_assert(sizeof(T) <= emulated::GATHERED, "more than a lane can hand in");
    return reinterpret_cast<const T *>(emulated::gather(&mine, sizeof(T)));
}

/* As cuda/launch.h has it. */
template <typename... P, typename... A>
static inline void launch(void (*kernel)(P...), dim3 grid, dim3 block, size_t shared, A... args) {
    const std::tuple<P...> values(static_cast<P>(args)...);
    keep_error(emulated::launch(grid, block, shared, [=] { std::apply(kernel, values); }));
}
#define DYNAMIC_SHARED(type, name) \
    type *const name = reinterpret_cast<type *>(emulated::dynamic_shared())

/* ---- barriers, warp-wide calls ---- */

static inline void __syncthreads() { emulated::barrier(0); }
static inline int __syncthreads_count(int p) { return emulated::barrier(p); }
static inline int __syncthreads_or(int p) { return emulated::barrier(p) != 0; }
static inline int __syncthreads_and(int p) { return emulated::barrier(!p) == 0; }
static inline void __syncwarp(uint32_t mask = 0xffffffffu) {
    emulated::warp_call(emulated::Call::SYNC, mask, 0, 0);
}
static inline uint32_t __ballot_sync(uint32_t mask, int p) {
    return emulated::warp_call(emulated::Call::BALLOT, mask, p != 0, 0);
}
static inline int __any_sync(uint32_t mask, int p) { return __ballot_sync(mask, p) != 0; }
static inline int __all_sync(uint32_t mask, int p) { return __ballot_sync(mask, p) == mask; }

template <typename T> inline T __shfl_sync(uint32_t mask, T v, int source, int width = 32) {
    const int first = emulated::lane() & -width;
    return emulated::shuffle(mask, v, first | (source & (width - 1)));
}
template <typename T> inline T __shfl_xor_sync(uint32_t mask, T v, int bits, int width = 32) {
    const int own = emulated::lane(), other = own ^ bits;
    return emulated::shuffle(mask, v, other <= (own | (width - 1)) ? other : own);
}
template <typename T> inline T __shfl_up_sync(uint32_t mask, T v, unsigned by, int width = 32) {
    const int own = emulated::lane(), other = own - (int)by;
    return emulated::shuffle(mask, v, other >= (own & -width) ? other : own);
}
template <typename T> inline T __shfl_down_sync(uint32_t mask, T v, unsigned by, int width = 32) {
    const int own = emulated::lane(), other = own + (int)by;
    return emulated::shuffle(mask, v, other <= (own | (width - 1)) ? other : own);
}

#include "intrinsics.h"

#endif
