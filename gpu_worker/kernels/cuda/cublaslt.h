// cuBLASLt: the functions and numbers of it that matmul_blas.c uses, declared by us (see libraries.h). The device fills the table from
// libcublasLt.so.13 (device/cuda/load.h), tests from their fake of it. Statuses are cublasStatus_t's numbers, data types cudaDataType's,
// compute types cublasComputeType_t's.
//
// tests/gpu_worker/kernels/cuda/cublaslt_headers.c compares this with NVIDIA's header where there is one.

#ifndef GPU_WORKER_KERNELS_CUDA_CUBLASLT_H
#define GPU_WORKER_KERNELS_CUDA_CUBLASLT_H

#include <stddef.h>
#include <stdint.h>

#include "gpu_worker/kernels/cuda/api.h"

enum cublas_status {
    CUBLAS_OK = 0,
    CUBLAS_NOT_INITIALIZED = 1,
    CUBLAS_ALLOC_FAILED = 3,
    CUBLAS_INVALID_VALUE = 7,
    CUBLAS_ARCH_MISMATCH = 8,
    CUBLAS_EXECUTION_FAILED = 13,
    CUBLAS_INTERNAL_ERROR = 14,
    CUBLAS_NOT_SUPPORTED = 15,
};

enum { CUBLAS_R_32F = 0, CUBLAS_R_64F = 1, CUBLAS_R_16F = 2, CUBLAS_R_16BF = 14 };
enum { CUBLAS_COMPUTE_F32 = 68, CUBLAS_COMPUTE_F64 = 70, CUBLAS_COMPUTE_TF32 = 77 };
enum { CUBLAS_N = 0, CUBLAS_T = 1 };
enum { CUBLASLT_LAYOUT_BATCH_COUNT = 5, CUBLASLT_LAYOUT_BATCH_OFFSET = 6 };      // int32_t, int64_t
enum {
    CUBLASLT_DESC_TRANSA = 3,           // int32_t
    CUBLASLT_DESC_TRANSB = 4,           // int32_t
    CUBLASLT_DESC_EPILOGUE = 7,         // uint32_t
    CUBLASLT_DESC_BIAS_POINTER = 8,     // const void *
};
enum {
    CUBLASLT_PREF_WORKSPACE = 1,        // uint64_t
    CUBLASLT_PREF_REDUCTION = 3,        // uint32_t
    CUBLASLT_PREF_ALIGNMENT_A = 5,      // uint32_t; then B, C, D
};
enum { CUBLASLT_REDUCTION_COMPUTE = 2 };                    // parts of a sum kept in the compute type, added in a step of its own
enum { CUBLASLT_PLAIN = 1, CUBLASLT_BIAS = 4 };             // epilogues

struct cublaslt_algo { uint64_t data[8]; };
struct cublaslt_heuristic {
    struct cublaslt_algo algo;
    size_t workspace_bytes;
    int state;                  // of the other fields: cublasStatus_t
    float waves;
    int reserved[4];
};

// X(type, name, (parameters)), by the library's own names. Descriptors are opaque.
#define CUBLASLT_FUNCTIONS(X)                                                                                                              \
    X(size_t, cublasLtGetVersion, (void))                                                                                                  \
    X(const char *, cublasLtGetStatusString, (int status))                                                                                 \
    X(int, cublasLtCreate, (void **ret))                                                                                                   \
    X(int, cublasLtDestroy, (void *handle))                                                                                                \
    X(int, cublasLtMatmulDescCreate, (void **ret, int compute, int scale_type))                                                            \
    X(int, cublasLtMatmulDescDestroy, (void *desc))                                                                                        \
    X(int, cublasLtMatmulDescSetAttribute, (void *desc, int attribute, const void *value, size_t bytes))                                   \
    X(int, cublasLtMatrixLayoutCreate, (void **ret, int type, uint64_t rows, uint64_t columns, int64_t leading))                           \
    X(int, cublasLtMatrixLayoutDestroy, (void *layout))                                                                                    \
    X(int, cublasLtMatrixLayoutSetAttribute, (void *layout, int attribute, const void *value, size_t bytes))                               \
    X(int, cublasLtMatmulPreferenceCreate, (void **ret))                                                                                   \
    X(int, cublasLtMatmulPreferenceDestroy, (void *preference))                                                                            \
    X(int, cublasLtMatmulPreferenceSetAttribute, (void *preference, int attribute, const void *value, size_t bytes))                       \
    X(int, cublasLtMatmulAlgoGetHeuristic, (void *handle, void *desc, void *a, void *b, void *c, void *d, void *preference, int wanted,    \
                                            struct cublaslt_heuristic *ret, int *ret_count))                                               \
    X(int, cublasLtMatmul, (void *handle, void *desc, const void *alpha, const void *a, void *a_layout, const void *b, void *b_layout,     \
                            const void *beta, const void *c, void *c_layout, void *d, void *d_layout, const struct cublaslt_algo *algo,    \
                            void *workspace, size_t workspace_bytes, cuda_stream stream))

struct cublaslt_api {
#define X(type, name, parameters) type(*name) parameters;
    CUBLASLT_FUNCTIONS(X)
#undef X
};

#endif
