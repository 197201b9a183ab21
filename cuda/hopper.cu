/* What the host does for hopper.h's kernels: maps of tensors for the copy engine, by the driver. */
#include "hopper.h"

/* Whether the GPU has what hopper.h names: compute capability 9.0, and only that. */
bool has_warpgroups() {
    int device = 0, major = 0;
    return cudaGetDevice(&device) == cudaSuccess &&
           cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device) ==
               cudaSuccess &&
           major == 9;
}

int multiprocessors() {
    int device = 0, count = 0;
    keep_error(cudaGetDevice(&device));
    keep_error(cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, device));
    return count;
}

#ifndef LLM_EMULATED
typedef CUresult Encode(CUtensorMap *, CUtensorMapDataType, cuuint32_t, void *, const cuuint64_t *,
                        const cuuint64_t *, const cuuint32_t *, const cuuint32_t *,
                        CUtensorMapInterleave, CUtensorMapSwizzle, CUtensorMapL2promotion,
                        CUtensorMapFloatOOBfill);

/* The driver is not linked: the run-time, which has opened it, finds the function. */
static Encode *find_encode() {
    void *function = nullptr;
    cudaDriverEntryPointQueryResult result;
    const char *const name = "cuTensorMapEncodeTiled";
#if CUDART_VERSION >= 12050
    const cudaError_t error =
        cudaGetDriverEntryPointByVersion(name, &function, 12000, cudaEnableDefault, &result);
#else
    const cudaError_t error = cudaGetDriverEntryPoint(name, &function, cudaEnableDefault, &result);
#endif
    return error == cudaSuccess && result == cudaDriverEntryPointSuccess ? (Encode *)function
                                                                         : nullptr;
}

bool make_map(TensorMap *map, const bf16 *tensor, int channels, int T, int B, int rows) {
    static Encode *const encode = find_encode();
    if (!encode || (unsigned long long)tensor % 16 || channels % 8) return false;
    const cuuint64_t sizes[] = {(cuuint64_t)channels, (cuuint64_t)T, (cuuint64_t)B};
    const cuuint64_t strides[] = {(cuuint64_t)channels * 2, (cuuint64_t)T * channels * 2}; // bytes
    const cuuint32_t box[] = {64, (cuuint32_t)rows, 1}, steps[] = {1, 1, 1};
    return encode(map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 3, (void *)tensor, sizes, strides, box,
                  steps, CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
                  CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
                  CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE) == CUDA_SUCCESS;
}
#endif
