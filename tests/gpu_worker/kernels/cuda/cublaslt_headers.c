// Our declarations of cuBLASLt (gpu_worker/kernels/cuda/cublaslt.h) beside NVIDIA's, by the compiler: this file compiles only when they
// agree. Where their header is not installed there is nothing to compare: cmake leaves it out.
//
// How: each function's type stands here twice, as ours and as theirs, parameter by parameter, and both are compared with the
// declarations. Ours have void pointers for handles and ints for enumerations, so the pairs are what a reader checks.

#include "tests/lib/case.h"

#include <cublasLt.h>

#include "gpu_worker/kernels/cuda/cublaslt.h"

static const struct cublaslt_api *const ours;

#define SAME_TYPE(a, b) __builtin_types_compatible_p(__typeof__(a), __typeof__(b))
#define SAME(name, ours_returns, ours_takes, theirs_returns, theirs_takes) \
    _Static_assert(SAME_TYPE(*ours->name, ours_returns ours_takes), #name " is not so in cublaslt.h"); \
    _Static_assert(SAME_TYPE(name, theirs_returns theirs_takes), #name " is not so in NVIDIA's header")
#define STATUS(name, ours_takes, theirs_takes) SAME(name, int, ours_takes, cublasStatus_t, theirs_takes)

SAME(cublasLtGetVersion, size_t, (void), size_t, (void));
SAME(cublasLtGetStatusString, const char *, (int), const char *, (cublasStatus_t));
STATUS(cublasLtCreate, (void **), (cublasLtHandle_t *));
STATUS(cublasLtDestroy, (void *), (cublasLtHandle_t));
STATUS(cublasLtMatmulDescCreate, (void **, int, int), (cublasLtMatmulDesc_t *, cublasComputeType_t, cudaDataType_t));
STATUS(cublasLtMatmulDescDestroy, (void *), (cublasLtMatmulDesc_t));
STATUS(cublasLtMatmulDescSetAttribute, (void *, int, const void *, size_t),
       (cublasLtMatmulDesc_t, cublasLtMatmulDescAttributes_t, const void *, size_t));
STATUS(cublasLtMatrixLayoutCreate, (void **, int, uint64_t, uint64_t, int64_t),
       (cublasLtMatrixLayout_t *, cudaDataType, uint64_t, uint64_t, int64_t));
STATUS(cublasLtMatrixLayoutDestroy, (void *), (cublasLtMatrixLayout_t));
STATUS(cublasLtMatrixLayoutSetAttribute, (void *, int, const void *, size_t),
       (cublasLtMatrixLayout_t, cublasLtMatrixLayoutAttribute_t, const void *, size_t));
STATUS(cublasLtMatmulPreferenceCreate, (void **), (cublasLtMatmulPreference_t *));
STATUS(cublasLtMatmulPreferenceDestroy, (void *), (cublasLtMatmulPreference_t));
STATUS(cublasLtMatmulPreferenceSetAttribute, (void *, int, const void *, size_t),
       (cublasLtMatmulPreference_t, cublasLtMatmulPreferenceAttributes_t, const void *, size_t));
STATUS(cublasLtMatmulAlgoGetHeuristic,
       (void *, void *, void *, void *, void *, void *, void *, int, struct cublaslt_heuristic *, int *),
       (cublasLtHandle_t, cublasLtMatmulDesc_t, cublasLtMatrixLayout_t, cublasLtMatrixLayout_t, cublasLtMatrixLayout_t,
        cublasLtMatrixLayout_t, cublasLtMatmulPreference_t, int, cublasLtMatmulHeuristicResult_t *, int *));
STATUS(cublasLtMatmul,
       (void *, void *, const void *, const void *, void *, const void *, void *, const void *, const void *, void *, void *,
        void *, const struct cublaslt_algo *, void *, size_t, cuda_stream),
       (cublasLtHandle_t, cublasLtMatmulDesc_t, const void *, const void *, cublasLtMatrixLayout_t, const void *,
        cublasLtMatrixLayout_t, const void *, const void *, cublasLtMatrixLayout_t, void *, cublasLtMatrixLayout_t,
        const cublasLtMatmulAlgo_t *, void *, size_t, cudaStream_t));

#define IS_INT(type) _Static_assert(sizeof(type) == sizeof(int), #type " is no int")
IS_INT(cublasStatus_t);
IS_INT(cublasComputeType_t);
IS_INT(cudaDataType_t);
IS_INT(cublasLtMatmulDescAttributes_t);
IS_INT(cublasLtMatrixLayoutAttribute_t);
IS_INT(cublasLtMatmulPreferenceAttributes_t);

#define IS_AT(our_member, their_member) \
    _Static_assert(offsetof(struct cublaslt_heuristic, our_member) == offsetof(cublasLtMatmulHeuristicResult_t, their_member), \
                   #our_member " lies elsewhere")
_Static_assert(sizeof(struct cublaslt_algo) == sizeof(cublasLtMatmulAlgo_t), "an algorithm has another size");
_Static_assert(sizeof(struct cublaslt_heuristic) == sizeof(cublasLtMatmulHeuristicResult_t), "an answer has another size");
IS_AT(algo, algo);
IS_AT(workspace_bytes, workspaceSize);
IS_AT(state, state);
IS_AT(waves, wavesCount);
IS_AT(reserved, reserved);

#define EQUAL(ours, theirs) _Static_assert((int)(ours) == (int)(theirs), #ours " is not " #theirs)
EQUAL(CUBLAS_OK, CUBLAS_STATUS_SUCCESS);
EQUAL(CUBLAS_NOT_INITIALIZED, CUBLAS_STATUS_NOT_INITIALIZED);
EQUAL(CUBLAS_ALLOC_FAILED, CUBLAS_STATUS_ALLOC_FAILED);
EQUAL(CUBLAS_INVALID_VALUE, CUBLAS_STATUS_INVALID_VALUE);
EQUAL(CUBLAS_ARCH_MISMATCH, CUBLAS_STATUS_ARCH_MISMATCH);
EQUAL(CUBLAS_EXECUTION_FAILED, CUBLAS_STATUS_EXECUTION_FAILED);
EQUAL(CUBLAS_INTERNAL_ERROR, CUBLAS_STATUS_INTERNAL_ERROR);
EQUAL(CUBLAS_NOT_SUPPORTED, CUBLAS_STATUS_NOT_SUPPORTED);
EQUAL(CUBLAS_R_32F, CUDA_R_32F);
EQUAL(CUBLAS_R_64F, CUDA_R_64F);
EQUAL(CUBLAS_R_16F, CUDA_R_16F);
EQUAL(CUBLAS_R_16BF, CUDA_R_16BF);
EQUAL(CUBLAS_COMPUTE_F32, CUBLAS_COMPUTE_32F);
EQUAL(CUBLAS_COMPUTE_F64, CUBLAS_COMPUTE_64F);
EQUAL(CUBLAS_COMPUTE_TF32, CUBLAS_COMPUTE_32F_FAST_TF32);
EQUAL(CUBLAS_N, CUBLAS_OP_N);
EQUAL(CUBLAS_T, CUBLAS_OP_T);
EQUAL(CUBLASLT_LAYOUT_BATCH_COUNT, CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT);
EQUAL(CUBLASLT_LAYOUT_BATCH_OFFSET, CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET);
EQUAL(CUBLASLT_DESC_TRANSA, CUBLASLT_MATMUL_DESC_TRANSA);
EQUAL(CUBLASLT_DESC_TRANSB, CUBLASLT_MATMUL_DESC_TRANSB);
EQUAL(CUBLASLT_DESC_EPILOGUE, CUBLASLT_MATMUL_DESC_EPILOGUE);
EQUAL(CUBLASLT_DESC_BIAS_POINTER, CUBLASLT_MATMUL_DESC_BIAS_POINTER);
EQUAL(CUBLASLT_PREF_WORKSPACE, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES);
EQUAL(CUBLASLT_PREF_REDUCTION, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK);
EQUAL(CUBLASLT_PREF_ALIGNMENT_A, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES);
EQUAL(CUBLASLT_PREF_ALIGNMENT_A + 1, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES);
EQUAL(CUBLASLT_PREF_ALIGNMENT_A + 2, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES);
EQUAL(CUBLASLT_PREF_ALIGNMENT_A + 3, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES);
EQUAL(CUBLASLT_REDUCTION_COMPUTE, CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE);
EQUAL(CUBLASLT_PLAIN, CUBLASLT_EPILOGUE_DEFAULT);
EQUAL(CUBLASLT_BIAS, CUBLASLT_EPILOGUE_BIAS);

static void our_declarations_of_cublaslt_are_nvidias(void **state)
{
    (void)state;
    // The compiler has compared; the version says with what.
    print_message("compared with cuBLAS %d.%d.%d\n", CUBLAS_VER_MAJOR, CUBLAS_VER_MINOR, CUBLAS_VER_PATCH);
    assert_int_equal(CUBLAS_VER_MAJOR, 13);
}

CASES(our_declarations_of_cublaslt_are_nvidias)
