// Gradients of pools: each output's gradient goes to the value that was the largest of its window, or in equal shares to all of the
// window. A plane belongs to one part, which adds the outputs' shares in their order.

#include "gpu_worker/kernels/cpu.h"
#include "gpu_worker/kernels/index.h"

#include <string.h>

enum { PART_ELEMENTS_MIN = 1 << 13 };

struct window {
    int64_t kernel, stride, padding;
};

struct pool {
    const float *g;
    const int64_t *index;
    float *dx;
    int64_t planes, in[2], out[2], planes_per_part;
    struct window w[2];    // vertical, horizontal
    bool counts_padding;
    int64_t divisor;    // 0: the window's size
    uint32_t op;
};

static void max_plane(const struct pool *p, const float *g, const int64_t *index, float *dx)
{
    for (int64_t i = 0; i < p->out[0] * p->out[1]; i++)
        dx[index[i]] += g[i];
}

static void share(const struct pool *p, float *dx, const int64_t from[2], const int64_t to[2], float value)
{
    for (int64_t r = from[0]; r < to[0]; r++)
        for (int64_t c = from[1]; c < to[1]; c++)
            dx[r * p->in[1] + c] += value;
}

// As the forward: windows reach into the padding, but not beyond it.
static void avg_plane(const struct pool *p, const float *g, float *dx)
{
    for (int64_t i = 0; i < p->out[0]; i++)
        for (int64_t j = 0; j < p->out[1]; j++) {
            int64_t from[2], to[2], size = 1, o[2] = {i, j};
            for (int d = 0; d < 2; d++) {
                from[d] = o[d] * p->w[d].stride - p->w[d].padding;
                to[d] = i64_least(from[d] + p->w[d].kernel, p->in[d] + p->w[d].padding);
                int64_t padded = to[d] - from[d];
                from[d] = i64_most(from[d], 0);
                to[d] = i64_least(to[d], p->in[d]);
                size *= p->counts_padding ? padded : i64_most(0, to[d] - from[d]);
            }
            if (from[0] < to[0] && from[1] < to[1])
                share(p, dx, from, to, g[i * p->out[1] + j] / (float)(p->divisor != 0 ? p->divisor : size));
        }
}

static void adaptive_plane(const struct pool *p, const float *g, float *dx)
{
    for (int64_t i = 0; i < p->out[0]; i++)
        for (int64_t j = 0; j < p->out[1]; j++) {
            int64_t from[2], to[2], o[2] = {i, j};
            for (int d = 0; d < 2; d++) {
                from[d] = o[d] * p->in[d] / p->out[d];
                to[d] = ceil_div((o[d] + 1) * p->in[d], p->out[d]);
            }
            share(p, dx, from, to, g[i * p->out[1] + j] / (float)((to[0] - from[0]) * (to[1] - from[1])));
        }
}

static void planes_part(void *context, uint32_t part)
{
    const struct pool *p = context;
    int64_t first = part * p->planes_per_part, last = i64_least(first + p->planes_per_part, p->planes);
    int64_t in = p->in[0] * p->in[1], out = p->out[0] * p->out[1];
    for (int64_t i = first; i < last; i++) {
        float *dx = p->dx + i * in;
        memset(dx, 0, (size_t)in * sizeof *dx);
        if (p->op == OP_MAX_POOL2D_BACKWARD)
            max_plane(p, p->g + i * out, p->index + i * out, dx);
        else if (p->op == OP_AVG_POOL2D_BACKWARD)
            avg_plane(p, p->g + i * out, dx);
        else
            adaptive_plane(p, p->g + i * out, dx);
    }
}

static struct pool pool_of(const struct kernel_call *call, struct scratch *scratch)
{
    const struct tensor_meta *out = &call->in[0].meta, *in = &call->in[1].meta;
    struct pool p = {.planes = 1, .op = call->op->number};
    for (uint32_t d = 0; d + 2 < in->rank; d++)
        p.planes *= in->size[d];
    for (uint32_t d = 0; d < 2; d++) {
        p.in[d] = in->size[in->rank - 2 + d];
        p.out[d] = out->size[out->rank - 2 + d];
    }
    p.g = optional_take(scratch, call, 0);
    if (p.op == OP_MAX_POOL2D_BACKWARD)
        p.index = dense_take(scratch, &call->in[2], DTYPE_I64, scratch->data != NULL, call->team);
    p.dx = dense_take(scratch, &call->out[0], DTYPE_F32, false, call->team);
    p.planes_per_part = i64_most(1, PART_ELEMENTS_MIN / i64_most(1, p.in[0] * p.in[1]));
    return p;
}

static size_t pool_scratch(const struct kernel_call *call)
{
    struct scratch scratch = {0};
    pool_of(call, &scratch);
    return scratch.used;
}

static int64_t int_of(const struct attr *attr, int at, int64_t if_absent)
{
    return attr->kind != ATTR_INTS || attr->count == 0 ? if_absent : attr->ints[attr->count == 1 ? 0 : at];
}

static enum dj_error pool_run(const struct kernel_call *call)
{
    struct scratch scratch = {.data = call->scratch};
    if (call->op->number == OP_MAX_POOL2D_BACKWARD) {
        const struct tensor_meta *in = &call->in[1].meta;
        enum dj_error error = index_check(call, &call->in[2], in->size[in->rank - 1] * in->size[in->rank - 2], false);
        if (error != DJ_OK)
            return error;
    }
    struct pool p = pool_of(call, &scratch);
    for (int d = 0; d < 2 && p.op == OP_AVG_POOL2D_BACKWARD; d++) {
        p.w[d].kernel = int_of(&call->attr[0], d, 1);
        p.w[d].stride = int_of(&call->attr[1], d, p.w[d].kernel);
        p.w[d].padding = int_of(&call->attr[2], d, 0);
        p.counts_padding = attr_int(&call->attr[4]) != 0;
        p.divisor = call->attr[5].kind == ATTR_ABSENT ? 0 : attr_int(&call->attr[5]);
    }
    team_run(call->team, (uint32_t)ceil_div(p.planes, p.planes_per_part), planes_part, &p);
    dense_return(p.dx, DTYPE_F32, &call->out[0], call->team);
    return DJ_OK;
}

static bool pool_can(const struct kernel_call *call)
{
    enum dtype dtype = call->in[0].meta.dtype;
    return dtype_is_float(dtype) && dtype != DTYPE_F64;
}

void table_pool_backward(struct kernel *kernel)
{
    kernel[OP_MAX_POOL2D_BACKWARD] = kernel[OP_AVG_POOL2D_BACKWARD] = kernel[OP_ADAPTIVE_AVG_POOL2D_BACKWARD] = (struct kernel){
        .run = pool_run, .scratch = pool_scratch, .can = pool_can};
}
