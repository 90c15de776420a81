// Matmul blas: see matmul_blas.h. cuBLASLt thinks in columns: our out^T = b^T a^T is what it computes, so its A is our b, its B our a,
// its m our n, and a vector along n is the bias of its epilogue.
//
// The cache: sets of a few entries, the least recently used of a set makes room. An entry holds the descriptors and the algorithm, or
// that there is none. Sums of split products are kept in the compute type and added in a step of their own, so an algorithm gives the
// same bits from run to run.

#include "gpu_worker/kernels/cuda/matmul_blas.h"

#include <stdlib.h>
#include <string.h>

#include "core/base/hash.h"
#include "gpu_worker/kernels/cuda/cublaslt.h"
#include "gpu_worker/kernels/cuda/libraries.h"

enum { A, B, C, D, MATRICES };
enum { WAYS = 4, SETS = MATMUL_CACHE_ENTRIES / WAYS, ALIGNMENT_MOST = 16 };

// Everything that decides an algorithm. No padding: it is hashed and compared as bytes.
struct blas_key {
    int64_t rows, columns, k, batch;    // of D as cuBLASLt sees it
    int64_t leading[MATRICES], offset[MATRICES];
    uint32_t alignment[MATRICES];
    int32_t is_transposed[2];    // A, B
    int32_t type, compute, scale_type;
    uint32_t epilogue, bias_alignment;
    uint32_t is_zero_beta;    // C is not read
};

struct blas_call {
    struct blas_key key;
    const void *matrix[MATRICES];
    const void *bias;
    double alpha, beta;
};

struct blas_entry {
    struct blas_key key;
    uint64_t used;    // the cache's clock; 0: free
    bool is_refused;
    void *desc, *layout[MATRICES];
    struct cublaslt_algo algo;
    size_t workspace_bytes;
};

struct matmul_cache {
    uint64_t clock;
    struct blas_entry entry[SETS][WAYS];
};

enum dj_error matmul_cache_make(struct matmul_cache **ret)
{
    struct matmul_cache *cache = calloc(1, sizeof *cache);
    if (cache == NULL)
        return DJ_E_NO_MEMORY;
    *ret = cache;
    return DJ_OK;
}

static void entry_clear(struct blas_entry *entry, const struct cublaslt_api *blas)
{
    if (entry->desc != NULL)
        blas->cublasLtMatmulDescDestroy(entry->desc);
    for (int i = 0; i < MATRICES; i++)
        if (entry->layout[i] != NULL)
            blas->cublasLtMatrixLayoutDestroy(entry->layout[i]);
    memset(entry, 0, sizeof *entry);
}

void matmul_cache_free(struct matmul_cache *cache, const struct cublaslt_api *blas)
{
    for (uint32_t i = 0; cache != NULL && i < MATMUL_CACHE_ENTRIES; i++)
        entry_clear(&cache->entry[i / WAYS][i % WAYS], blas);
    free(cache);
}

uint64_t matmul_numerics(const struct cuda_libraries *libraries)
{
    if (libraries->blas == NULL)
        return 0;
    const uint64_t facts[] = {libraries->blas->cublasLtGetVersion(),
                              libraries->workspace_bytes,
                              libraries->allows_tf32,
                              libraries->processors,
                              libraries->capability,
                              CUBLASLT_REDUCTION_COMPUTE,
                              ALIGNMENT_MOST};
    return hash64(facts, sizeof facts);
}

// A product as cuBLASLt is told it --------------------------------------------------------------------------------------

// A matrix of `rows` neighbours: by columns, or, transposed, by rows.
static bool is_dense(int64_t rows, int64_t columns, int64_t row_step, int64_t column_step, int64_t *leading)
{
    if ((rows > 1 && row_step != 1) || (columns > 1 && column_step < rows))
        return false;
    *leading = columns == 1 ? rows : column_step;
    return *leading <= INT32_MAX;
}

static bool take_factor(struct blas_key *key, int which, int64_t rows, int64_t columns, int64_t row_step, int64_t column_step)
{
    if (is_dense(rows, columns, row_step, column_step, &key->leading[which]))
        return true;
    key->is_transposed[which] = CUBLAS_T;
    return is_dense(columns, rows, column_step, row_step, &key->leading[which]);
}

static uint32_t alignment_of(const void *data)
{
    uintptr_t lowest = (uintptr_t)data & -(uintptr_t)data;
    return lowest == 0 || lowest > ALIGNMENT_MOST ? ALIGNMENT_MOST : (uint32_t)lowest;
}

static bool take_types(struct blas_key *key, enum dtype dtype, bool allows_tf32)
{
    key->compute = CUBLAS_COMPUTE_F32;
    key->scale_type = CUBLAS_R_32F;
    switch (dtype) {
    case DTYPE_F16: key->type = CUBLAS_R_16F; return true;
    case DTYPE_BF16: key->type = CUBLAS_R_16BF; return true;
    case DTYPE_F32:
        key->type = CUBLAS_R_32F;
        key->compute = allows_tf32 ? CUBLAS_COMPUTE_TF32 : CUBLAS_COMPUTE_F32;
        return true;
    case DTYPE_F64:
        key->type = key->scale_type = CUBLAS_R_64F;
        key->compute = CUBLAS_COMPUTE_F64;
        return true;
    default: return false;
    }
}

// What is added: nothing, a vector along n, or a matrix.
static bool take_added(struct blas_call *call, const struct matmul_args *args)
{
    struct blas_key *key = &call->key;
    key->epilogue = CUBLASLT_PLAIN;
    key->is_zero_beta = 1;
    key->leading[C] = key->leading[D];
    key->offset[C] = key->offset[D];
    call->matrix[C] = call->matrix[D];
    if (args->add == NULL)
        return true;
    bool is_vector = args->add_m == 0 && args->add_batch == 0 && (args->add_n == 1 || args->n == 1);
    if (is_vector && args->beta == 1) {
        key->epilogue = CUBLASLT_BIAS;
        key->bias_alignment = alignment_of(args->add);
        call->bias = args->add;
        return true;
    }
    call->matrix[C] = args->add;
    call->beta = args->beta;
    key->is_zero_beta = 0;
    key->offset[C] = args->add_batch;
    return is_dense(args->n, args->m, args->add_n, args->add_m, &key->leading[C]);
}

// False: not something that cuBLASLt takes. `ret` is zero before.
static bool call_make(const struct cuda_libraries *libraries, enum dtype dtype, const struct matmul_args *args,
                      struct blas_call *ret)
{
    struct blas_key *key = &ret->key;
    if (args->n > INT32_MAX || args->m > INT32_MAX || args->k > INT32_MAX || args->batch > INT32_MAX || args->k == 0)
        return false;
    key->rows = args->n;
    key->columns = args->m;
    key->k = args->k;
    key->batch = args->batch;
    key->offset[A] = args->b_batch;
    key->offset[B] = args->a_batch;
    key->offset[D] = args->out_batch;
    ret->matrix[A] = args->b;
    ret->matrix[B] = args->a;
    ret->matrix[D] = args->out;
    ret->alpha = args->alpha;
    if (!take_types(key, dtype, libraries->allows_tf32) || !take_factor(key, A, args->n, args->k, args->b_n, args->b_k) ||
        !take_factor(key, B, args->k, args->m, args->a_k, args->a_m) ||
        !is_dense(args->n, args->m, args->out_n, args->out_m, &key->leading[D]) || !take_added(ret, args))
        return false;
    for (int i = 0; i < MATRICES; i++)
        key->alignment[i] = alignment_of(ret->matrix[i]);
    return true;
}

// Descriptors and algorithms ----------------------------------------------------------------------------------------------

static int layout_make(const struct cublaslt_api *blas, const struct blas_key *key, int which, void **ret)
{
    int64_t rows = which == B ? key->k : key->rows, columns = which == A ? key->k : key->columns;
    bool is_transposed = which < C && key->is_transposed[which] == CUBLAS_T;
    int status = blas->cublasLtMatrixLayoutCreate(ret, key->type, (uint64_t)(is_transposed ? columns : rows),
                                                  (uint64_t)(is_transposed ? rows : columns), key->leading[which]);
    if (status != CUBLAS_OK)
        *ret = NULL;
    if (status != CUBLAS_OK || key->batch == 1)
        return status;
    int32_t batch = (int32_t)key->batch;
    status = blas->cublasLtMatrixLayoutSetAttribute(*ret, CUBLASLT_LAYOUT_BATCH_COUNT, &batch, sizeof batch);
    if (status == CUBLAS_OK)
        status = blas->cublasLtMatrixLayoutSetAttribute(*ret, CUBLASLT_LAYOUT_BATCH_OFFSET, &key->offset[which],
                                                        sizeof key->offset[which]);
    return status;
}

static int desc_make(const struct cublaslt_api *blas, const struct blas_key *key, void **ret)
{
    int status = blas->cublasLtMatmulDescCreate(ret, key->compute, key->scale_type);
    if (status != CUBLAS_OK) {
        *ret = NULL;
        return status;
    }
    const struct {
        int attribute;
        const void *value;
    } attributes[] = {{CUBLASLT_DESC_TRANSA, &key->is_transposed[A]},
                      {CUBLASLT_DESC_TRANSB, &key->is_transposed[B]},
                      {CUBLASLT_DESC_EPILOGUE, &key->epilogue}};
    for (size_t i = 0; i < sizeof attributes / sizeof attributes[0] && status == CUBLAS_OK; i++)
        status = blas->cublasLtMatmulDescSetAttribute(*ret, attributes[i].attribute, attributes[i].value, sizeof(int32_t));
    return status;
}

static int bias_set(const struct cublaslt_api *blas, void *desc, const struct blas_call *call)
{
    if (call->key.epilogue != CUBLASLT_BIAS)
        return CUBLAS_OK;
    return blas->cublasLtMatmulDescSetAttribute(desc, CUBLASLT_DESC_BIAS_POINTER, &call->bias, sizeof call->bias);
}

static int preference_fill(const struct cuda_libraries *libraries, const struct blas_key *key, void *preference)
{
    const struct cublaslt_api *blas = libraries->blas;
    uint64_t workspace = libraries->workspace_bytes;
    uint32_t reduction = CUBLASLT_REDUCTION_COMPUTE;
    int status = blas->cublasLtMatmulPreferenceSetAttribute(preference, CUBLASLT_PREF_WORKSPACE, &workspace, sizeof workspace);
    if (status == CUBLAS_OK)
        status = blas->cublasLtMatmulPreferenceSetAttribute(preference, CUBLASLT_PREF_REDUCTION, &reduction, sizeof reduction);
    for (int i = 0; i < MATRICES && status == CUBLAS_OK; i++)
        status = blas->cublasLtMatmulPreferenceSetAttribute(preference, CUBLASLT_PREF_ALIGNMENT_A + i, &key->alignment[i],
                                                            sizeof key->alignment[i]);
    return status;
}

// Asks for the algorithm of an entry whose descriptors are made.
static int algorithm_ask(const struct cuda_libraries *libraries, struct blas_entry *entry)
{
    const struct cublaslt_api *blas = libraries->blas;
    struct cublaslt_heuristic found = {.state = CUBLAS_NOT_SUPPORTED};
    void *preference;
    int count = 0;
    int status = blas->cublasLtMatmulPreferenceCreate(&preference);
    if (status != CUBLAS_OK)
        return status;
    status = preference_fill(libraries, &entry->key, preference);
    if (status == CUBLAS_OK)
        status = blas->cublasLtMatmulAlgoGetHeuristic(libraries->blas_handle, entry->desc, entry->layout[A], entry->layout[B],
                                                      entry->layout[C], entry->layout[D], preference, 1, &found, &count);
    blas->cublasLtMatmulPreferenceDestroy(preference);
    entry->is_refused = status == CUBLAS_NOT_SUPPORTED || (status == CUBLAS_OK && (count < 1 || found.state != CUBLAS_OK));
    entry->algo = found.algo;
    entry->workspace_bytes = found.workspace_bytes;
    return entry->is_refused ? CUBLAS_OK : status;
}

static int entry_make(const struct cuda_libraries *libraries, const struct blas_call *call, struct blas_entry *entry)
{
    int status = CUBLAS_OK;
    entry->key = call->key;
    for (int i = 0; i < MATRICES && status == CUBLAS_OK; i++)
        status = layout_make(libraries->blas, &entry->key, i, &entry->layout[i]);
    if (status == CUBLAS_OK)
        status = desc_make(libraries->blas, &entry->key, &entry->desc);
    if (status == CUBLAS_OK)
        status = bias_set(libraries->blas, entry->desc, call);
    return status == CUBLAS_OK ? algorithm_ask(libraries, entry) : status;
}

// The entry of a call, made if it is not there. On failure *ret is untouched and the place is free.
static int entry_get(const struct cuda_libraries *libraries, const struct blas_call *call, struct blas_entry **ret)
{
    struct matmul_cache *cache = libraries->matmuls;
    struct blas_entry *set = cache->entry[hash64(&call->key, sizeof call->key) % SETS], *oldest = set;
    for (int i = 0; i < WAYS; i++) {
        if (set[i].used > 0 && memcmp(&set[i].key, &call->key, sizeof call->key) == 0) {
            set[i].used = ++cache->clock;
            *ret = &set[i];
            return CUBLAS_OK;
        }
        oldest = set[i].used < oldest->used ? &set[i] : oldest;
    }
    entry_clear(oldest, libraries->blas);
    int status = entry_make(libraries, call, oldest);
    if (status != CUBLAS_OK) {
        entry_clear(oldest, libraries->blas);
        return status;
    }
    oldest->used = ++cache->clock;
    *ret = oldest;
    return CUBLAS_OK;
}

// The step ------------------------------------------------------------------------------------------------------------------

static enum dj_error failed(const struct cuda_libraries *libraries, const struct blas_key *key, int status, struct fault *fault)
{
    return fault_set(fault, status == CUBLAS_ALLOC_FAILED ? DJ_E_DEVICE_MEMORY : DJ_E_DEVICE,
                     "cuBLASLt %zu could not multiply %lld matrices [%lld, %lld] by [%lld, %lld]: %s (status %d)",
                     libraries->blas->cublasLtGetVersion(), (long long)key->batch, (long long)key->columns, (long long)key->k,
                     (long long)key->k, (long long)key->rows, libraries->blas->cublasLtGetStatusString(status), status);
}

static enum dj_error run(const void *context, const struct cuda_libraries *libraries, cuda_stream stream, struct fault *fault)
{
    const struct blas_call *call = context;
    const struct cublaslt_api *blas = libraries->blas;
    struct blas_entry *entry = NULL;
    float alpha = (float)call->alpha, beta = (float)call->beta;
    bool is_double = call->key.scale_type == CUBLAS_R_64F;

    int status = entry_get(libraries, call, &entry);
    if (status == CUBLAS_OK)
        status = entry->is_refused ? CUBLAS_NOT_SUPPORTED : bias_set(blas, entry->desc, call);
    if (status == CUBLAS_OK)
        status = blas->cublasLtMatmul(libraries->blas_handle, entry->desc, is_double ? (const void *)&call->alpha : &alpha,
                                      call->matrix[A], entry->layout[A], call->matrix[B], entry->layout[B],
                                      is_double ? (const void *)&call->beta : &beta, call->matrix[C], entry->layout[C],
                                      (void *)(uintptr_t)call->matrix[D], entry->layout[D], &entry->algo, libraries->workspace,
                                      entry->workspace_bytes, stream);
    return status == CUBLAS_OK ? DJ_OK : failed(libraries, &call->key, status, fault);
}

bool matmul_blas_emit(struct cuda_program *program, enum dtype dtype, const struct matmul_args *args)
{
    const struct cuda_libraries *libraries = program->libraries;
    struct blas_entry *entry = NULL;
    struct blas_call call;

    if (libraries == NULL || libraries->blas == NULL || libraries->matmuls == NULL)
        return false;
    memset(&call, 0, sizeof call);
    if (!call_make(libraries, dtype, args, &call))
        return false;
    // Asked here, so that what it does not take goes to a kernel of ours. If asking fails, the step says why.
    if (entry_get(libraries, &call, &entry) == CUBLAS_OK && entry->is_refused)
        return false;
    cuda_emit_call(program, run, &call, sizeof call);
    return true;
}
