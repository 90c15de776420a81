// Batch norm in training, and its gradients. For each channel (dimension 1), over all M values of all images:
//
//     mean, var = mean of (x - mean)^2, rstd = 1 / sqrt(var + eps),  y = (x - mean) * rstd * weight + bias
//     dw = rstd * sum of g (x - mean),  db = sum of g
//     dx = rstd * weight * (g - db / M - (x - mean) * rstd * dw / M);  with given statistics dx = rstd * weight * g
//
// A part is a channel: its planes are walked in order, in blocks whose sums are added in double.

#include "gpu_worker/kernels/cpu.h"

#include <math.h>

enum { BLOCK = 1024 };

struct channels {
    const float *x, *g, *weight, *bias, *mean, *rstd;
    float *y, *ret_mean, *ret_rstd, *ret_var, *dw, *db;
    int64_t images, channels, plane;
    double eps;
    bool is_training;
};

static bool channels_can(const struct kernel_call *call)
{
    for (uint32_t i = 0; i < call->n_in; i++)
        if (is_present(&call->in[i]) && (!dtype_is_float(call->in[i].meta.dtype) || call->in[i].meta.dtype == DTYPE_F64))
            return false;
    return true;
}

static void channels_of(const struct tensor_meta *meta, struct channels *ret)
{
    ret->images = meta->size[0];
    ret->channels = meta->size[1];
    ret->plane = 1;
    for (uint32_t d = 2; d < meta->rank; d++)
        ret->plane *= meta->size[d];
}

static void train_part(void *context, uint32_t channel)
{
    const struct channels *p = context;
    const struct simd *s = simd();
    double total = 0, squares = 0, count = (double)p->images * (double)p->plane;
    float block[BLOCK];
    for (int64_t n = 0; n < p->images; n++)
        total += s->sum(p->x + (n * p->channels + channel) * p->plane, p->plane);
    float mean = (float)(total / count);
    for (int64_t n = 0; n < p->images; n++)
        for (int64_t i = 0; i < p->plane; i += BLOCK) {
            int64_t length = i64_least(BLOCK, p->plane - i);
            s->scale(p->x + (n * p->channels + channel) * p->plane + i, block, length, 1.0f, -mean);
            squares += (double)s->dot(block, block, length);
        }
    double rstd = 1.0 / sqrt(squares / count + p->eps), factor = rstd * (p->weight == NULL ? 1.0 : (double)p->weight[channel]);
    float shift = (float)((p->bias == NULL ? 0.0 : (double)p->bias[channel]) - (double)mean * factor);
    for (int64_t n = 0; n < p->images; n++) {
        int64_t at = (n * p->channels + channel) * p->plane;
        s->scale(p->x + at, p->y + at, p->plane, (float)factor, shift);
    }
    p->ret_mean[channel] = mean;
    p->ret_rstd[channel] = (float)rstd;
    p->ret_var[channel] = (float)(squares / (count - 1.0));
}

static void train_memory(const struct kernel_call *call, struct scratch *scratch, struct channels *ret)
{
    ret->x = optional_take(scratch, call, 0);
    ret->weight = optional_take(scratch, call, 1);
    ret->bias = optional_take(scratch, call, 2);
    ret->y = dense_take(scratch, &call->out[0], DTYPE_F32, false, call->team);
    ret->ret_mean = dense_take(scratch, &call->out[1], DTYPE_F32, false, call->team);
    ret->ret_rstd = dense_take(scratch, &call->out[2], DTYPE_F32, false, call->team);
    ret->ret_var = dense_take(scratch, &call->out[3], DTYPE_F32, false, call->team);
    channels_of(&call->in[0].meta, ret);
}

static size_t train_scratch(const struct kernel_call *call)
{
    struct scratch scratch = {0};
    struct channels p;
    train_memory(call, &scratch, &p);
    return scratch.used;
}

static enum dj_error train_run(const struct kernel_call *call)
{
    struct scratch scratch = {.data = call->scratch};
    struct channels p = {.eps = attr_double(&call->attr[0])};
    train_memory(call, &scratch, &p);
    team_run(call->team, (uint32_t)p.channels, train_part, &p);
    dense_return(p.y, DTYPE_F32, &call->out[0], call->team);
    dense_return(p.ret_mean, DTYPE_F32, &call->out[1], call->team);
    dense_return(p.ret_rstd, DTYPE_F32, &call->out[2], call->team);
    dense_return(p.ret_var, DTYPE_F32, &call->out[3], call->team);
    return DJ_OK;
}

static void backward_part(void *context, uint32_t channel)
{
    const struct channels *p = context;
    const struct simd *s = simd();
    double db = 0, product = 0, count = (double)p->images * (double)p->plane;
    float block[BLOCK], mean = p->mean[channel];
    for (int64_t n = 0; n < p->images; n++)
        for (int64_t i = 0; i < p->plane; i += BLOCK) {
            int64_t length = i64_least(BLOCK, p->plane - i), at = (n * p->channels + channel) * p->plane + i;
            s->scale(p->x + at, block, length, 1.0f, -mean);
            product += (double)s->dot(block, p->g + at, length);
            db += s->sum(p->g + at, length);
        }
    double rstd = (double)p->rstd[channel], factor = rstd * (p->weight == NULL ? 1.0 : (double)p->weight[channel]);
    float slope = p->is_training ? (float)(-factor * rstd * rstd * product / count) : 0.0f;
    float shift = p->is_training ? (float)(-factor * db / count) : 0.0f;
    for (int64_t n = 0; n < p->images; n++)
        for (int64_t i = 0; i < p->plane; i += BLOCK) {
            int64_t length = i64_least(BLOCK, p->plane - i), at = (n * p->channels + channel) * p->plane + i;
            s->scale(p->x + at, block, length, 1.0f, -mean);
            s->scale(block, block, length, slope, shift);
            s->axpy(block, p->g + at, (float)factor, length);
            s->scale(block, p->y + at, length, 1.0f, 0.0f);
        }
    p->dw[channel] = (float)(product * rstd);
    p->db[channel] = (float)db;
}

static void backward_memory(const struct kernel_call *call, struct scratch *scratch, struct channels *ret)
{
    ret->g = optional_take(scratch, call, 0);
    ret->x = optional_take(scratch, call, 1);
    ret->weight = optional_take(scratch, call, 2);
    ret->mean = optional_take(scratch, call, 3);
    ret->rstd = optional_take(scratch, call, 4);
    ret->y = dense_take(scratch, &call->out[0], DTYPE_F32, false, call->team);
    ret->dw = dense_take(scratch, &call->out[1], DTYPE_F32, false, call->team);
    ret->db = dense_take(scratch, &call->out[2], DTYPE_F32, false, call->team);
    channels_of(&call->in[1].meta, ret);
}

static size_t backward_scratch(const struct kernel_call *call)
{
    struct scratch scratch = {0};
    struct channels p;
    backward_memory(call, &scratch, &p);
    return scratch.used;
}

static enum dj_error backward_run(const struct kernel_call *call)
{
    struct scratch scratch = {.data = call->scratch};
    struct channels p = {.is_training = attr_int(&call->attr[0]) != 0};
    backward_memory(call, &scratch, &p);
    team_run(call->team, (uint32_t)p.channels, backward_part, &p);
    dense_return(p.y, DTYPE_F32, &call->out[0], call->team);
    dense_return(p.dw, DTYPE_F32, &call->out[1], call->team);
    dense_return(p.db, DTYPE_F32, &call->out[2], call->team);
    return DJ_OK;
}

void table_batch_norm(struct kernel *kernel)
{
    kernel[OP_BATCH_NORM_TRAIN] = (struct kernel){.run = train_run, .scratch = train_scratch, .can = channels_can};
    kernel[OP_BATCH_NORM_BACKWARD] = (struct kernel){.run = backward_run, .scratch = backward_scratch, .can = channels_can};
}
