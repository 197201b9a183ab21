/* What every kernel file starts with: the contract, how a kernel is queued, and how a failure is kept.
 *
 * The sources are plain C++ but for CUDA's qualifiers: launch() stands for the <<<>>> syntax, so that
 * with LLM_EMULATED they compile against an emulation of the execution model, and run on a machine
 * without a GPU. */
#ifndef LLM_LAUNCH_H
#define LLM_LAUNCH_H

/* The contract's functions are what the library shows; all else is compiled hidden. */
#pragma GCC visibility push(default)
extern "C" {
#include "../c/llm.h"
}
#pragma GCC visibility pop

#ifdef LLM_EMULATED
#include "emulation.h"
#else
#include <cuda_runtime.h>

/* The one stream that all work is queued on, and what keeps the first error until device_status is
 * asked (device.cu). */
extern cudaStream_t stream;
void keep_error(cudaError_t error);

/* Queues kernel(args...) on grid × block threads with `shared` bytes of dynamic shared memory. */
template <typename... P, typename... A>
static inline void launch(void (*kernel)(P...), dim3 grid, dim3 block, size_t shared, A... args) {
    // Above 48 KB, its static shared memory included, a kernel must be allowed to.
    if (shared > 32 * 1024)
        keep_error(cudaFuncSetAttribute((const void *)kernel,
                                        cudaFuncAttributeMaxDynamicSharedMemorySize, (int)shared));
    cudaLaunchConfig_t config = {};
    config.gridDim = grid;
    config.blockDim = block;
    config.dynamicSmemBytes = shared;
    config.stream = stream;
    keep_error(cudaLaunchKernelEx(&config, kernel, static_cast<P>(args)...));
}

/* Names a kernel's dynamic shared memory, aligned for the copy engine. */
#define DYNAMIC_SHARED(type, name)                        \
    extern __shared__ __align__(1024) char dynamic_shared[]; \
    type *const name = reinterpret_cast<type *>(dynamic_shared)
#endif

/* Keeps a failure in words of our own. */
void keep_failure(const char *what, cudaError_t error = cudaErrorUnknown);

#define DEVICE static __device__ __forceinline__
#define KERNEL static __global__ void

static inline i64 ceil_div(i64 a, i64 b) { return (a + b - 1) / b; }

#endif
