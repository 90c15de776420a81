// Fake cuBLASLt: see fake_cublaslt.h.

#include "tests/lib/cuda/fake_cublaslt.h"

#include <stdlib.h>
#include <string.h>

#include "core/base/hash.h"
#include "gpu_worker/kernels/half.h"

struct fake_cublaslt_state fake_cublaslt;

struct layout {
    int type;
    int32_t batch;
    uint64_t rows, columns;
    int64_t leading, offset;
};

struct desc {
    int32_t compute, scale_type, trans[2];
    uint32_t epilogue, pad;    // no gap: it is hashed
    const void *bias;
};

struct preference {
    uint64_t workspace;
    uint32_t reduction, alignment[4];
};

void fake_cublaslt_reset(void)
{
    memset(&fake_cublaslt, 0, sizeof fake_cublaslt);
}

// The status with which this call fails, or CUBLAS_OK.
static int count_call(void)
{
    return ++fake_cublaslt.calls == fake_cublaslt.fail_at ? fake_cublaslt.fail_status : CUBLAS_OK;
}

static int make(void **ret, const void *object, size_t bytes)
{
    int status = count_call();
    if (status != CUBLAS_OK)
        return status;
    void *copy = malloc(bytes);
    if (copy == NULL)
        return CUBLAS_ALLOC_FAILED;
    memcpy(copy, object, bytes);
    fake_cublaslt.live++;
    *ret = copy;
    return CUBLAS_OK;
}

static int destroy(void *object)
{
    fake_cublaslt.live--;
    free(object);
    return CUBLAS_OK;
}

static int set(void *to, size_t size, const void *value, size_t bytes)
{
    if (value == NULL || bytes != size)
        return CUBLAS_INVALID_VALUE;
    memcpy(to, value, bytes);
    return CUBLAS_OK;
}

static size_t version(void)
{
    return FAKE_CUBLASLT_VERSION;
}

static const char *status_string(int status)
{
    return status == CUBLAS_NOT_SUPPORTED ? "CUBLAS_STATUS_NOT_SUPPORTED" : "an error of the fake";
}

static int handle_make(void **ret)
{
    return make(ret, "handle", 7);
}

static int desc_make(void **ret, int compute, int scale_type)
{
    struct desc desc = {.compute = compute, .scale_type = scale_type, .epilogue = CUBLASLT_PLAIN};
    return make(ret, &desc, sizeof desc);
}

static int desc_set(void *object, int attribute, const void *value, size_t bytes)
{
    struct desc *desc = object;
    int status = count_call();
    if (status != CUBLAS_OK)
        return status;
    switch (attribute) {
    case CUBLASLT_DESC_TRANSA: return set(&desc->trans[0], sizeof desc->trans[0], value, bytes);
    case CUBLASLT_DESC_TRANSB: return set(&desc->trans[1], sizeof desc->trans[1], value, bytes);
    case CUBLASLT_DESC_EPILOGUE: return set(&desc->epilogue, sizeof desc->epilogue, value, bytes);
    case CUBLASLT_DESC_BIAS_POINTER: return set(&desc->bias, sizeof desc->bias, value, bytes);
    default: return CUBLAS_INVALID_VALUE;
    }
}

static int layout_make(void **ret, int type, uint64_t rows, uint64_t columns, int64_t leading)
{
    struct layout layout = {.type = type, .rows = rows, .columns = columns, .leading = leading, .batch = 1};
    return make(ret, &layout, sizeof layout);
}

static int layout_set(void *object, int attribute, const void *value, size_t bytes)
{
    struct layout *layout = object;
    int status = count_call();
    if (status != CUBLAS_OK)
        return status;
    switch (attribute) {
    case CUBLASLT_LAYOUT_BATCH_COUNT: return set(&layout->batch, sizeof layout->batch, value, bytes);
    case CUBLASLT_LAYOUT_BATCH_OFFSET: return set(&layout->offset, sizeof layout->offset, value, bytes);
    default: return CUBLAS_INVALID_VALUE;
    }
}

static int preference_make(void **ret)
{
    struct preference preference = {.reduction = 7, .alignment = {256, 256, 256, 256}};
    return make(ret, &preference, sizeof preference);
}

static int preference_set(void *object, int attribute, const void *value, size_t bytes)
{
    struct preference *preference = object;
    int status = count_call(), which = attribute - CUBLASLT_PREF_ALIGNMENT_A;
    if (status != CUBLAS_OK)
        return status;
    if (attribute == CUBLASLT_PREF_WORKSPACE)
        return set(&preference->workspace, sizeof preference->workspace, value, bytes);
    if (attribute == CUBLASLT_PREF_REDUCTION)
        return set(&preference->reduction, sizeof preference->reduction, value, bytes);
    return which < 0 || which > 3 ? CUBLAS_INVALID_VALUE : set(&preference->alignment[which], sizeof(uint32_t), value, bytes);
}

// What an algorithm is good for: the descriptors without the bias's address. 0: they do not fit together.
static uint64_t problem_of(const struct desc *desc, const struct layout *const layout[4])
{
    const struct layout *d = layout[3];
    struct desc plain = *desc;
    uint64_t hash = 0, k = desc->trans[0] == CUBLAS_T ? layout[0]->rows : layout[0]->columns;
    bool fits = (desc->trans[0] == CUBLAS_T ? layout[0]->columns : layout[0]->rows) == d->rows &&
                (desc->trans[1] == CUBLAS_T ? layout[1]->rows : layout[1]->columns) == d->columns &&
                (desc->trans[1] == CUBLAS_T ? layout[1]->columns : layout[1]->rows) == k && layout[2]->rows == d->rows &&
                layout[2]->columns == d->columns;
    plain.bias = NULL;
    hash = hash64_seed(&plain, sizeof plain, hash);
    for (int i = 0; i < 4; i++) {
        fits = fits && layout[i]->leading >= (int64_t)layout[i]->rows && layout[i]->batch == d->batch &&
               layout[i]->type == d->type;
        hash = hash64_seed(layout[i], sizeof *layout[i], hash);
    }
    return fits ? hash | 1 : 0;
}

static int heuristic(void *handle, void *desc, void *a, void *b, void *c, void *d, void *preference, int wanted,
                     struct cublaslt_heuristic *ret, int *ret_count)
{
    const struct preference *asked = preference;
    int status = count_call();
    if (status != CUBLAS_OK)
        return status;
    fake_cublaslt.heuristics++;
    *ret_count = 0;
    if (fake_cublaslt.finds_nothing)
        return CUBLAS_NOT_SUPPORTED;
    uint64_t problem = problem_of(desc, (const struct layout *const[]){a, b, c, d});
    if (handle == NULL || wanted != 1 || problem == 0 || asked->reduction != CUBLASLT_REDUCTION_COMPUTE)
        return CUBLAS_INVALID_VALUE;
    memset(ret, 0, sizeof *ret);
    ret->algo.data[0] = problem;
    for (int i = 0; i < 4; i++)
        ret->algo.data[1 + i] = asked->alignment[i];
    ret->workspace_bytes = asked->workspace < FAKE_CUBLASLT_WORKSPACE ? 0 : FAKE_CUBLASLT_WORKSPACE;
    ret->algo.data[5] = ret->workspace_bytes;
    *ret_count = 1;
    return CUBLAS_OK;
}

static double number_at(const void *data, int type, int64_t at)
{
    switch (type) {
    case CUBLAS_R_64F: return ((const double *)data)[at];
    case CUBLAS_R_16F: return half_to_float(((const uint16_t *)data)[at]);
    case CUBLAS_R_16BF: return brain_to_float(((const uint16_t *)data)[at]);
    default: return ((const float *)data)[at];
    }
}

static void number_put(void *data, int type, int64_t at, double value)
{
    switch (type) {
    case CUBLAS_R_64F: ((double *)data)[at] = value; return;
    case CUBLAS_R_16F: ((uint16_t *)data)[at] = half_from_float((float)value); return;
    case CUBLAS_R_16BF: ((uint16_t *)data)[at] = brain_from_float((float)value); return;
    default: ((float *)data)[at] = (float)value;
    }
}

static int64_t place(const struct layout *layout, int32_t batch, int64_t row, int64_t column)
{
    return batch * layout->offset + column * layout->leading + row;
}

static int product(void *handle, void *desc_object, const void *alpha, const void *a, void *a_layout, const void *b,
                   void *b_layout, const void *beta, const void *c, void *c_layout, void *d, void *d_layout,
                   const struct cublaslt_algo *algo, void *workspace, size_t workspace_bytes, cuda_stream stream)
{
    const struct layout *const layout[4] = {a_layout, b_layout, c_layout, d_layout}, *out = d_layout;
    const struct desc *desc = desc_object;
    const void *const data[4] = {a, b, c, d};
    int status = count_call();
    (void)stream;
    if (status != CUBLAS_OK)
        return status;
    if (handle == NULL || algo->data[0] != problem_of(desc, layout) || workspace_bytes < algo->data[5] ||
        (algo->data[5] > 0 && workspace == NULL))
        return CUBLAS_INVALID_VALUE;
    for (int i = 0; i < 4; i++)
        if ((uintptr_t)data[i] % algo->data[1 + i] != 0)
            return CUBLAS_INVALID_VALUE;
    fake_cublaslt.products++;
    fake_cublaslt.last_compute = desc->compute;
    fake_cublaslt.last_epilogue = desc->epilogue;

    bool is_double = desc->scale_type == CUBLAS_R_64F, is_a_turned = desc->trans[0] == CUBLAS_T,
         is_b_turned = desc->trans[1] == CUBLAS_T;
    double by = is_double ? *(const double *)alpha : *(const float *)alpha,
           add_by = is_double ? *(const double *)beta : *(const float *)beta;
    int64_t depth = (int64_t)(is_a_turned ? layout[0]->rows : layout[0]->columns);
    for (int32_t batch = 0; batch < out->batch; batch++)
        for (int64_t i = 0; i < (int64_t)out->rows; i++)
            for (int64_t j = 0; j < (int64_t)out->columns; j++) {
                double sum = 0;
                for (int64_t k = 0; k < depth; k++)
                    sum += number_at(a, out->type, place(layout[0], batch, is_a_turned ? k : i, is_a_turned ? i : k)) *
                           number_at(b, out->type, place(layout[1], batch, is_b_turned ? j : k, is_b_turned ? k : j));
                sum *= by;
                if (add_by != 0)
                    sum += add_by * number_at(c, out->type, place(layout[2], batch, i, j));
                if (desc->epilogue == CUBLASLT_BIAS)
                    sum += number_at(desc->bias, out->type, i);
                number_put(d, out->type, place(out, batch, i, j), sum);
            }
    return CUBLAS_OK;
}

const struct cublaslt_api *fake_cublaslt_api(void)
{
    static const struct cublaslt_api api = {.cublasLtGetVersion = version,
                                            .cublasLtGetStatusString = status_string,
                                            .cublasLtCreate = handle_make,
                                            .cublasLtDestroy = destroy,
                                            .cublasLtMatmulDescCreate = desc_make,
                                            .cublasLtMatmulDescDestroy = destroy,
                                            .cublasLtMatmulDescSetAttribute = desc_set,
                                            .cublasLtMatrixLayoutCreate = layout_make,
                                            .cublasLtMatrixLayoutDestroy = destroy,
                                            .cublasLtMatrixLayoutSetAttribute = layout_set,
                                            .cublasLtMatmulPreferenceCreate = preference_make,
                                            .cublasLtMatmulPreferenceDestroy = destroy,
                                            .cublasLtMatmulPreferenceSetAttribute = preference_set,
                                            .cublasLtMatmulAlgoGetHeuristic = heuristic,
                                            .cublasLtMatmul = product};
    return &api;
}
