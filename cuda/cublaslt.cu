/* cuBLASLt, opened at run time, and a product put into its terms.
 *
 * It reads matrices by columns, so a row-major matrix is its own transpose to it: out = left·right is
 * asked for as outᵀ = rightᵀ·leftᵀ, with A = right, B = left and D = out. */
#include "cublaslt.h"

#include <dlfcn.h>
#include <stdio.h>

#pragma GCC visibility push(default)
extern "C" {
#include "device.h"
}
#pragma GCC visibility pop

Cublaslt cublaslt;
Room product_room;
static void *handle, *preference;
static int f32_compute = COMPUTE_32F;

extern "C" void device_tf32(int on) { f32_compute = on ? COMPUTE_TF32 : COMPUTE_32F; }

#ifndef LLM_EMULATED // where test/cuda/product.cpp stands in its place
template <typename F> static bool find(void *library, const char *name, F *&function) {
    function = reinterpret_cast<F *>(dlsym(library, name));
    return function != nullptr;
}

static bool find_all(void *library, Cublaslt &all) {
    return find(library, "cublasLtGetVersion", all.GetVersion) &&
           find(library, "cublasLtCreate", all.Create) &&
           find(library, "cublasLtMatmulDescCreate", all.MatmulDescCreate) &&
           find(library, "cublasLtMatmulDescSetAttribute", all.MatmulDescSetAttribute) &&
           find(library, "cublasLtMatrixLayoutCreate", all.MatrixLayoutCreate) &&
           find(library, "cublasLtMatmulPreferenceCreate", all.MatmulPreferenceCreate) &&
           find(library, "cublasLtMatmulPreferenceSetAttribute", all.MatmulPreferenceSetAttribute) &&
           find(library, "cublasLtMatmulAlgoGetHeuristic", all.MatmulAlgoGetHeuristic) &&
           find(library, "cublasLtMatmulAlgoConfigGetAttribute", all.MatmulAlgoConfigGetAttribute) &&
           find(library, "cublasLtMatmul", all.Matmul);
}

int product_open(const char *path) {
    int device = 0, major = 0;
    cudaGetDevice(&device);
    cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device);
    // Of which Hopper's kernels and later ones make use.
    product_room.bytes = (size_t)(major >= 9 ? 64 : 32) << 20;
    const cudaError_t error = cudaMalloc(&product_room.at, product_room.bytes);
    if (error != cudaSuccess) return error;
    if (!path || !*path) return cudaSuccess;

    char words[256];
    void *const library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!library) {
        snprintf(words, sizeof words, "cuBLASLt: %s", dlerror());
        keep_failure(words);
        return cudaErrorUnknown;
    }
    Cublaslt found = {};
    if (!find_all(library, found)) {
        snprintf(words, sizeof words, "%s is no cuBLASLt of CUDA 11.8 or later", path);
        keep_failure(words);
        return cudaErrorUnknown;
    }
    int status = found.Create(&handle);
    if (!status) status = found.MatmulPreferenceCreate(&preference);
    if (status) {
        snprintf(words, sizeof words, "%s does not start (its status is %d)", path, status);
        keep_failure(words);
        return cudaErrorUnknown;
    }
    cublaslt = found;
    return cudaSuccess;
}
#endif

static int alignment_of(const Product &p) {
    const void *const pointers[] = {p.out, p.left,  p.right, p.bias,       p.pre,
                                    p.added, p.sums, p.left_scale, p.right_scale};
    size_t bits = 16;
    for (const void *pointer : pointers) bits |= (size_t)pointer;
    return (int)(bits & -bits);
}

Key key_of(const Product &p) {
    int epilogue = (p.bias ? BIAS : 0) + (p.sums ? BGRADB : 0);
    if (p.pre) epilogue += (p.form == FORWARD ? GELU : DGELU) + AUX;
    const int added = !p.added ? 0 : p.added == p.out ? 1 : 2;
    return {p.form, p.kind, p.kind == F32 ? f32_compute : COMPUTE_32F, epilogue ? epilogue : PLAIN,
            added,  p.out_sums != nullptr, alignment_of(p), p.rows, p.columns, p.inner};
}

template <typename T> static bool set(void *operation, int attribute, T value) {
    return cublaslt.MatmulDescSetAttribute(operation, attribute, &value, sizeof value) == 0;
}

// A matrix that lies in memory as (size,inner), or as (inner,size); what is next to each other is a
// column to cuBLASLt.
static bool lay(void **layout, int type, int size, int inner, bool inner_last) {
    const int near = inner_last ? inner : size, far = inner_last ? size : inner;
    return cublaslt.MatrixLayoutCreate(layout, type, near, far, near) == 0;
}

Described describe(const Key &key) {
    const ProductForm form = (ProductForm)key.form;
    const Kind kind = (Kind)key.kind;
    const int type = kind == F32 ? R_32F : R_16BF;
    const int out_type = form == BACKWARD_WEIGHT ? (int)R_32F : type;
    const int right_type = kind == FP8 ? (int)R_8F_E4M3 : type;
    const int left_type = kind == FP8 && form != FORWARD ? (int)R_8F_E5M2 : right_type;
    const int transposes_a = right_last(form, kind); // CUBLAS_OP_T is 1
    const int transposes_b = !left_last(form, kind);
    Described made = {};
    bool is_made =
        cublaslt.MatmulDescCreate(&made.operation, key.compute, R_32F) == 0 &&
        set(made.operation, DESC_TRANSA, transposes_a) &&
        set(made.operation, DESC_TRANSB, transposes_b) &&
        set(made.operation, DESC_EPILOGUE, key.epilogue) &&
        lay(&made.a, right_type, key.columns, key.inner, right_last(form, kind)) &&
        lay(&made.b, left_type, key.rows, key.inner, left_last(form, kind)) &&
        lay(&made.d, out_type, key.rows, key.columns, true);
    // Gradients are what few bits would be felt in.
    if (kind == FP8)
        is_made = is_made && set(made.operation, DESC_FAST_ACCUM, (signed char)(form == FORWARD));
    if (key.epilogue & (BIAS | BGRADB))
        is_made = is_made && set(made.operation, DESC_BIAS_DATA_TYPE, out_type);
    if (key.epilogue & AUX)
        is_made = is_made && set(made.operation, DESC_AUX_LD, (i64)key.columns);
    return is_made ? made : Described{};
}

// Scales, and the vectors and matrices that an epilogue takes, are part of the descriptor.
static bool point(const Described &described, const Product &p) {
    const void *const vector = p.sums ? p.sums : p.bias;
    return (!vector || set(described.operation, DESC_BIAS_POINTER, vector)) &&
           (!p.pre || set(described.operation, DESC_AUX_POINTER, p.pre)) &&
           (!p.right_scale || set(described.operation, DESC_A_SCALE_POINTER, p.right_scale)) &&
           (!p.left_scale || set(described.operation, DESC_B_SCALE_POINTER, p.left_scale));
}

int heuristics(Heuristic *found, int most, const Described &described, const Key &key,
               const Product &p) {
    const auto prefer = [](int attribute, auto value) {
        return cublaslt.MatmulPreferenceSetAttribute(preference, attribute, &value, sizeof value) == 0;
    };
    bool is_set = point(described, p) &&
                  prefer(PREF_MAX_WORKSPACE_BYTES, (unsigned long long)product_room.bytes) &&
                  prefer(PREF_REDUCTION_SCHEME_MASK, (u32)REDUCTION_COMPUTE_TYPE);
    for (int matrix = 0; matrix < 4; matrix++)
        is_set = is_set && prefer(PREF_MIN_ALIGNMENT_A_BYTES + matrix, (u32)key.alignment);
    if (!is_set) return 0;
    int count = 0;
    const int status = cublaslt.MatmulAlgoGetHeuristic(
        handle, described.operation, described.a, described.b, described.d, described.d, preference,
        most, found, &count);
    return status ? 0 : count;
}

int run_product(const Described &described, const Algorithm &algorithm, const Product &p) {
    if (!point(described, p)) return STATUS_NOT_SUPPORTED;
    const float alpha = 1, beta = p.added ? 1 : 0;
    return cublaslt.Matmul(handle, described.operation, &alpha, p.right, described.a, p.left,
                           described.b, &beta, p.added ? p.added : p.out, described.d, p.out,
                           described.d, &algorithm, product_room.at, product_room.bytes, stream);
}
