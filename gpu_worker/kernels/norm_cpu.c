// Norms: y = (x - mean) / sqrt(var + eps) * weight + bias.
//
// Layer norm: mean and variance over the trailing dimensions of each row. Group norm: over each group of channels. Batch norm is the
// inference form: mean and variance are given for each channel (dimension 1), so that it is one multiply-add a value. Variances are
// of the centred values (two passes over a row that is in the cache), so that large means lose no digits.

#include "gpu_worker/kernels/cpu.h"

#include <math.h>

enum { ROWS_ELEMENTS = 1 << 14 };

struct norm {
    const float *x, *weight, *bias;
    float *y, *mean, *rstd;
    int64_t rows, length, rows_per_part;
    int64_t groups, channels;    // group norm: channels of one group
    double eps;
};

static bool norm_can(const struct kernel_call *call)
{
    for (uint32_t i = 0; i < call->n_in; i++)
        if (is_present(&call->in[i]) && (!dtype_is_float(call->in[i].meta.dtype) || call->in[i].meta.dtype == DTYPE_F64))
            return false;
    return true;
}

static void row_memory(const struct kernel_call *call, struct scratch *scratch, struct norm *ret)
{
    ret->x = dense_take(scratch, &call->in[0], DTYPE_F32, scratch->data != NULL, call->team);
    ret->weight = optional_take(scratch, call, 1);
    ret->bias = optional_take(scratch, call, 2);
    ret->y = dense_take(scratch, &call->out[0], DTYPE_F32, false, call->team);
    ret->mean = dense_take(scratch, &call->out[1], DTYPE_F32, false, call->team);
    ret->rstd = dense_take(scratch, &call->out[2], DTYPE_F32, false, call->team);
}

static size_t row_scratch(const struct kernel_call *call)
{
    struct scratch scratch = {0};
    struct norm norm;
    row_memory(call, &scratch, &norm);
    return scratch.used;
}

static void layer_part(void *context, uint32_t part)
{
    const struct norm *p = context;
    int64_t first = part * p->rows_per_part, last = i64_least(first + p->rows_per_part, p->rows);
    for (int64_t i = first; i < last; i++)
        simd()->layer_norm(p->x + i * p->length, p->weight, p->bias, p->eps, p->y + i * p->length, p->length, p->mean + i,
                           p->rstd + i);
}

// A row is a group: normalised as a whole, then each channel scaled.
static void group_part(void *context, uint32_t part)
{
    const struct norm *p = context;
    int64_t first = part * p->rows_per_part, last = i64_least(first + p->rows_per_part, p->rows);
    int64_t plane = p->length / i64_most(1, p->channels);
    for (int64_t i = first; i < last; i++) {
        float *y = p->y + i * p->length;
        simd()->layer_norm(p->x + i * p->length, NULL, NULL, p->eps, y, p->length, p->mean + i, p->rstd + i);
        for (int64_t c = 0; c < p->channels && (p->weight != NULL || p->bias != NULL); c++) {
            int64_t channel = i % p->groups * p->channels + c;
            simd()->scale(y + c * plane, y + c * plane, plane, p->weight == NULL ? 1.0f : p->weight[channel],
                          p->bias == NULL ? 0.0f : p->bias[channel]);
        }
    }
}

static enum dj_error row_run(const struct kernel_call *call)
{
    struct scratch scratch = {.data = call->scratch};
    struct norm norm;
    bool is_group = call->op->number == OP_GROUP_NORM;
    row_memory(call, &scratch, &norm);
    int64_t count = tensor_count(&call->in[0].meta);
    norm.rows = tensor_count(&call->out[1].meta);
    norm.length = norm.rows == 0 ? 0 : count / norm.rows;
    norm.eps = attr_double(&call->attr[is_group ? 4 : 1]);
    if (is_group) {
        norm.groups = attr_int(&call->attr[3]);
        norm.channels = attr_int(&call->attr[1]) / i64_most(1, norm.groups);
    }
    norm.rows_per_part = i64_most(1, ROWS_ELEMENTS / i64_most(1, norm.length));
    if (count > 0)
        team_run(call->team, (uint32_t)ceil_div(norm.rows, norm.rows_per_part), is_group ? group_part : layer_part, &norm);
    dense_return(norm.y, DTYPE_F32, &call->out[0], call->team);
    dense_return(norm.mean, DTYPE_F32, &call->out[1], call->team);
    dense_return(norm.rstd, DTYPE_F32, &call->out[2], call->team);
    return DJ_OK;
}

// Batch norm as x * scale[c] + shift[c]: the two vectors are in scratch, after the twins.
struct batch {
    const float *x, *scale, *shift;
    float *y;
    int64_t channels, plane, planes, planes_per_part;
};

static void batch_part(void *context, uint32_t part)
{
    const struct batch *p = context;
    int64_t first = part * p->planes_per_part, last = i64_least(first + p->planes_per_part, p->planes);
    for (int64_t i = first; i < last; i++)
        simd()->scale(p->x + i * p->plane, p->y + i * p->plane, p->plane, p->scale[i % p->channels], p->shift[i % p->channels]);
}

static size_t batch_scratch(const struct kernel_call *call)
{
    struct scratch scratch = {0};
    dense_take(&scratch, &call->in[0], DTYPE_F32, false, NULL);
    dense_take(&scratch, &call->out[0], DTYPE_F32, false, NULL);
    for (uint32_t i = 1; i < 5; i++)
        optional_take(&scratch, call, i);
    scratch_take(&scratch, 2 * (size_t)tensor_count(&call->in[3].meta) * sizeof(float));
    return scratch.used;
}

static enum dj_error batch_run(const struct kernel_call *call)
{
    struct scratch scratch = {.data = call->scratch};
    const struct tensor_meta *meta = &call->in[0].meta;
    int64_t channels = meta->rank < 2 ? 1 : meta->size[1], count = tensor_count(meta);
    const float *x = dense_take(&scratch, &call->in[0], DTYPE_F32, scratch.data != NULL, call->team);
    float *y = dense_take(&scratch, &call->out[0], DTYPE_F32, false, call->team);
    const float *weight = optional_take(&scratch, call, 1), *bias = optional_take(&scratch, call, 2);
    const float *mean = optional_take(&scratch, call, 3), *var = optional_take(&scratch, call, 4);
    float *scale = scratch_take(&scratch, 2 * (size_t)channels * sizeof(float)), *shift = scale + channels;
    if (count == 0)
        return DJ_OK;

    double eps = attr_double(&call->attr[0]);
    for (int64_t c = 0; c < channels; c++) {
        double factor = (weight == NULL ? 1.0 : (double)weight[c]) / sqrt((double)var[c] + eps);
        scale[c] = (float)factor;
        shift[c] = (float)((bias == NULL ? 0.0 : (double)bias[c]) - (double)mean[c] * factor);
    }
    struct batch batch = {.x = x, .y = y, .scale = scale, .shift = shift, .channels = channels};
    batch.planes = meta->size[0] * channels;
    batch.plane = count / batch.planes;
    batch.planes_per_part = i64_most(1, ROWS_ELEMENTS / batch.plane);
    team_run(call->team, (uint32_t)ceil_div(batch.planes, batch.planes_per_part), batch_part, &batch);
    dense_return(y, DTYPE_F32, &call->out[0], call->team);
    return DJ_OK;
}

void table_norm(struct kernel *kernel)
{
    kernel[OP_LAYER_NORM] = kernel[OP_GROUP_NORM] = (struct kernel){.run = row_run, .scratch = row_scratch, .can = norm_can};
    kernel[OP_BATCH_NORM] = (struct kernel){.run = batch_run, .scratch = batch_scratch, .can = norm_can};
}
