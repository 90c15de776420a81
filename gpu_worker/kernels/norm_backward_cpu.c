// Gradients of layer norm and group norm, from x, the mean and rstd that the forward gave, and g, the gradient of the result.
//
//     xhat = (x - mean) * rstd,  h = g * weight
//     dx   = rstd * (h - mean(h) - xhat * mean(h * xhat))     means over what was normalised together
//     dw   = sum of g * xhat,  db = sum of g                  over all rows, for each normalised position or channel
//
// dx is cut by rows, dw and db by columns: a column is summed by one part, its rows in order.

#include "gpu_worker/kernels/cpu.h"

#include <string.h>

enum { ROWS_ELEMENTS = 1 << 14, PART_COLUMNS = 128 };

struct gradient {
    const float *g, *x, *mean, *rstd, *weight;
    float *dx, *dw, *db;
    int64_t rows, length, rows_per_part;
    int64_t groups, channels, plane;    // group norm: channels of one group
};

static bool gradient_can(const struct kernel_call *call)
{
    for (uint32_t i = 0; i < call->n_in; i++)
        if (is_present(&call->in[i]) && (!dtype_is_float(call->in[i].meta.dtype) || call->in[i].meta.dtype == DTYPE_F64))
            return false;
    return true;
}

static void gradient_memory(const struct kernel_call *call, struct scratch *scratch, struct gradient *ret)
{
    ret->g = optional_take(scratch, call, 0);
    ret->x = optional_take(scratch, call, 1);
    ret->mean = optional_take(scratch, call, 2);
    ret->rstd = optional_take(scratch, call, 3);
    ret->weight = optional_take(scratch, call, 4);
    ret->rows = tensor_count(&call->in[2].meta);
    ret->length = ret->rows == 0 ? 0 : tensor_count(&call->in[1].meta) / ret->rows;
    ret->rows_per_part = i64_most(1, ROWS_ELEMENTS / i64_most(1, ret->length));
}

// Layer norm ---------------------------------------------------------------------------------------------------------------

static size_t layer_scratch(const struct kernel_call *call)
{
    struct scratch scratch = {0};
    struct gradient p;
    gradient_memory(call, &scratch, &p);
    for (uint32_t i = 0; i < call->n_out; i++)
        dense_take(&scratch, &call->out[i], DTYPE_F32, false, NULL);
    return scratch.used;
}

static void layer_part(void *context, uint32_t part)
{
    const struct gradient *p = context;
    int64_t first = part * p->rows_per_part, last = i64_least(first + p->rows_per_part, p->rows);
    for (int64_t i = first; i < last; i++)
        simd()->layer_norm_backward(p->g + i * p->length, p->x + i * p->length, p->weight, p->mean[i], p->rstd[i],
                                    p->dx + i * p->length, p->length);
}

static enum dj_error layer_run(const struct kernel_call *call)
{
    struct scratch scratch = {.data = call->scratch};
    struct gradient p = {0};
    gradient_memory(call, &scratch, &p);
    p.dx = dense_take(&scratch, &call->out[0], DTYPE_F32, false, call->team);
    if (p.length > 0)
        team_run(call->team, (uint32_t)ceil_div(p.rows, p.rows_per_part), layer_part, &p);
    dense_return(p.dx, DTYPE_F32, &call->out[0], call->team);
    return DJ_OK;
}

static void columns_part(void *context, uint32_t part)
{
    const struct gradient *p = context;
    int64_t first = part * PART_COLUMNS, n = i64_least(PART_COLUMNS, p->length - first);
    double dw[PART_COLUMNS] = {0}, db[PART_COLUMNS] = {0};
    simd()->norm_columns(p->g + first, p->x + first, p->length, p->mean, p->rstd, p->rows, n, dw, db);
    for (int64_t j = 0; j < n; j++) {
        p->dw[first + j] = (float)dw[j];
        p->db[first + j] = (float)db[j];
    }
}

static enum dj_error params_run(const struct kernel_call *call)
{
    struct scratch scratch = {.data = call->scratch};
    struct gradient p = {0};
    gradient_memory(call, &scratch, &p);
    p.dw = dense_take(&scratch, &call->out[0], DTYPE_F32, false, call->team);
    p.db = dense_take(&scratch, &call->out[1], DTYPE_F32, false, call->team);
    p.length = tensor_count(&call->out[0].meta);    // also where there are no rows
    team_run(call->team, (uint32_t)ceil_div(p.length, PART_COLUMNS), columns_part, &p);
    dense_return(p.dw, DTYPE_F32, &call->out[0], call->team);
    dense_return(p.db, DTYPE_F32, &call->out[1], call->team);
    return DJ_OK;
}

// Group norm ---------------------------------------------------------------------------------------------------------------

// A group's channels have one weight each, so h is made in dx first, and then replaced by the gradient.
static void group_part(void *context, uint32_t part)
{
    const struct gradient *p = context;
    int64_t first = part * p->rows_per_part, last = i64_least(first + p->rows_per_part, p->rows);
    for (int64_t i = first; i < last; i++) {
        const float *g = p->g + i * p->length, *x = p->x + i * p->length;
        float *dx = p->dx + i * p->length;
        for (int64_t c = 0; c < p->channels; c++)
            simd()->scale(g + c * p->plane, dx + c * p->plane, p->plane,
                          p->weight == NULL ? 1.0f : p->weight[i % p->groups * p->channels + c], 0.0f);
        simd()->layer_norm_backward(dx, x, NULL, p->mean[i], p->rstd[i], dx, p->length);
    }
}

// One channel: sum of g * xhat = rstd * (sum of g * x - mean * sum of g), with the products' sum about the mean.
static void channel_part(void *context, uint32_t channel)
{
    const struct gradient *p = context;
    int64_t group = channel / p->channels, batch = p->rows / p->groups, channels = p->groups * p->channels;
    double dw = 0, db = 0;
    for (int64_t n = 0; n < batch; n++) {
        int64_t row = n * p->groups + group, at = (n * channels + channel) * p->plane;
        double sum = 0, product = 0;
        for (int64_t i = 0; i < p->plane; i++) {
            sum += (double)p->g[at + i];
            product += (double)p->g[at + i] * ((double)p->x[at + i] - (double)p->mean[row]);
        }
        dw += product * (double)p->rstd[row];
        db += sum;
    }
    p->dw[channel] = (float)dw;
    p->db[channel] = (float)db;
}

static enum dj_error group_run(const struct kernel_call *call)
{
    struct scratch scratch = {.data = call->scratch};
    struct gradient p = {0};
    gradient_memory(call, &scratch, &p);
    p.dx = dense_take(&scratch, &call->out[0], DTYPE_F32, false, call->team);
    p.dw = dense_take(&scratch, &call->out[1], DTYPE_F32, false, call->team);
    p.db = dense_take(&scratch, &call->out[2], DTYPE_F32, false, call->team);
    p.groups = attr_int(&call->attr[3]);
    p.channels = attr_int(&call->attr[1]) / p.groups;
    p.plane = attr_int(&call->attr[2]);
    if (p.length > 0)
        team_run(call->team, (uint32_t)ceil_div(p.rows, p.rows_per_part), group_part, &p);
    team_run(call->team, (uint32_t)(p.groups * p.channels), channel_part, &p);
    dense_return(p.dx, DTYPE_F32, &call->out[0], call->team);
    dense_return(p.dw, DTYPE_F32, &call->out[1], call->team);
    dense_return(p.db, DTYPE_F32, &call->out[2], call->team);
    return DJ_OK;
}

void table_norm_backward(struct kernel *kernel)
{
    kernel[OP_LAYER_NORM_BACKWARD] = (struct kernel){.run = layer_run, .scratch = layer_scratch, .can = gradient_can};
    kernel[OP_LAYER_NORM_BACKWARD_PARAMS] = (struct kernel){.run = params_run, .scratch = layer_scratch, .can = gradient_can};
    kernel[OP_GROUP_NORM_BACKWARD] = (struct kernel){.run = group_run, .scratch = layer_scratch, .can = gradient_can};
}
