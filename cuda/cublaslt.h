/* What of cuBLASLt's interface is used, declared here so that only the library itself is needed, and
 * only where it is used; the same from CUDA 11.8 to 13. Numbers are those of its header. */
#ifndef LLM_CUBLASLT_H
#define LLM_CUBLASLT_H

#include "product.h"

/* The library's own names, shortened: cublasLtMatmulAlgo_t, cublasLtMatmulHeuristicResult_t. */
struct Algorithm {
    unsigned long long data[8]; /* may be kept, for the same version of the library */
};
struct Heuristic {
    Algorithm algorithm;
    size_t room; /* bytes of workspace */
    int status;
    float waves;
    int reserved[4];
};
static_assert(sizeof(Heuristic) == 96, "as the library lays it out");

enum { R_32F = 0, R_16BF = 14, R_8F_E4M3 = 28, R_8F_E5M2 = 29 }; /* cudaDataType */
enum { COMPUTE_32F = 68, COMPUTE_TF32 = 77 };   /* cublasComputeType_t */
enum { STATUS_NOT_SUPPORTED = 15 };             /* cublasStatus_t */
enum Epilogue {                                 /* cublasLtEpilogue_t, a sum of: */
    PLAIN = 1,
    BIAS = 4,
    GELU = 32,
    DGELU = 64,
    AUX = 128, /* of GELU: what goes into it is written; of DGELU: is read */
    BGRADB = 512,
};
enum {                                          /* cublasLtMatmulDescAttributes_t */
    DESC_TRANSA = 3,
    DESC_TRANSB = 4,
    DESC_EPILOGUE = 7,
    DESC_BIAS_POINTER = 8,
    DESC_AUX_POINTER = 11,
    DESC_AUX_LD = 12,
    DESC_A_SCALE_POINTER = 17,
    DESC_B_SCALE_POINTER = 18,
    DESC_FAST_ACCUM = 25, /* sums of FP8 stay in the tensor cores' own few bits */
    DESC_BIAS_DATA_TYPE = 26,
};
enum {                                          /* cublasLtMatmulPreferenceAttributes_t */
    PREF_MAX_WORKSPACE_BYTES = 1,
    PREF_REDUCTION_SCHEME_MASK = 3,
    PREF_MIN_ALIGNMENT_A_BYTES = 5, /* then B, C, D */
};
/* Parts of a sum are kept in f32 and added in a step of their own, or the sum has no parts. */
enum { REDUCTION_COMPUTE_TYPE = 2 };            /* cublasLtReductionScheme_t */
enum {                                          /* cublasLtMatmulAlgoConfigAttributes_t */
    ALGO_ID = 0,
    ALGO_TILE = 1,
    ALGO_SPLIT_K = 2,
    ALGO_STAGES = 6,
};

/* Descriptors are pointers to what the library allocates. All return a cublasStatus_t. */
struct Cublaslt {
    size_t (*GetVersion)();
    int (*Create)(void **handle);
    int (*MatmulDescCreate)(void **operation, int compute, int scale_type);
    int (*MatmulDescSetAttribute)(void *operation, int attribute, const void *value, size_t bytes);
    int (*MatrixLayoutCreate)(void **layout, int type, unsigned long long rows,
                              unsigned long long columns, i64 stride);
    int (*MatmulPreferenceCreate)(void **preference);
    int (*MatmulPreferenceSetAttribute)(void *preference, int attribute, const void *value,
                                        size_t bytes);
    int (*MatmulAlgoGetHeuristic)(void *handle, void *operation, void *a, void *b, void *c, void *d,
                                  void *preference, int wanted, Heuristic *results, int *found);
    int (*MatmulAlgoConfigGetAttribute)(const Algorithm *algorithm, int attribute, void *value,
                                        size_t bytes, size_t *written);
    int (*Matmul)(void *handle, void *operation, const void *alpha, const void *A, void *a,
                  const void *B, void *b, const void *beta, const void *C, void *c, void *D, void *d,
                  const Algorithm *algorithm, void *room, size_t room_bytes, cudaStream_t stream);
};
extern Cublaslt cublaslt; /* all null until product_open has found all */

/* All that tells one product from another to cuBLASLt. Integers only: it is compared as memory. */
struct Key {
    int form, kind, compute, epilogue;
    int added;     /* 0; 1 to out itself; 2 something else */
    int out_sums;  /* whether they are asked for */
    int alignment; /* of the pointers: up to 16 bytes */
    int rows, columns, inner;
};
Key key_of(const Product &p);

/* The descriptors of a product, null where they could not be made. */
struct Described {
    void *operation, *a, *b, *d;
};
Described describe(const Key &key);

/* The first algorithms that cuBLASLt thinks fast for it; returns how many. */
int heuristics(Heuristic *found, int most, const Described &described, const Key &key,
               const Product &p);

/* Queues it; returns a cublasStatus_t. */
int run_product(const Described &described, const Algorithm &algorithm, const Product &p);

#endif
