// Pools: the largest or the mean value of each window of a plane (max_pool2d with the position of the largest, avg_pool2d,
// _adaptive_avg_pool2d). One plane of one channel after the other, in float32.

#include "gpu_worker/kernels/cpu.h"

#include <math.h>
#include <string.h>

struct window {
    int64_t kernel, stride, padding, dilation;
};

struct pool {
    const float *x;
    float *y;
    int64_t *index;
    int64_t planes, in[2], out[2], planes_per_part;
    struct window w[2];    // vertical, horizontal
    bool counts_padding;
    int64_t divisor;    // 0: the window's size
};

enum { PART_OUTPUTS = 1 << 13, POOL_BLOCK = 512 };

static int64_t int_of(const struct attr *attr, int at, int64_t if_absent)
{
    return attr->kind != ATTR_INTS || attr->count == 0 ? if_absent : attr->ints[attr->count == 1 ? 0 : at];
}

// The part of a window that lies inside: first and last + 1 position of the input, in steps of the dilation.
static void inside(const struct window *w, int64_t out, int64_t size, int64_t *first, int64_t *last)
{
    int64_t start = out * w->stride - w->padding, end = i64_least(start + (w->kernel - 1) * w->dilation + 1, size);
    if (start < 0)
        start += ceil_div(-start, w->dilation) * w->dilation;
    *first = start;
    *last = end;
}

// The outputs [first, last) of a row whose windows have column c of the kernel inside the plane.
static void columns_inside(const struct pool *p, int64_t c, int64_t *first, int64_t *last)
{
    const struct window *w = &p->w[1];
    int64_t shift = c * w->dilation - w->padding;    // the input column of output 0
    *first = shift >= 0 ? 0 : ceil_div(-shift, w->stride);
    *last = p->in[1] - shift <= 0 ? 0 : i64_least(p->out[1], (p->in[1] - shift - 1) / w->stride + 1);
}

// Row by row of outputs, one position of the window after the other, in blocks that fit the stack.
static void max_plane(const struct pool *p, const float *x, float *y, int64_t *index)
{
    float best[POOL_BLOCK];
    int32_t at[POOL_BLOCK];
    for (int64_t i = 0; i < p->out[0]; i++) {
        int64_t top, bottom;
        inside(&p->w[0], i, p->in[0], &top, &bottom);
        for (int64_t block = 0; block < p->out[1]; block += POOL_BLOCK) {
            int64_t end = i64_least(block + POOL_BLOCK, p->out[1]);
            for (int64_t j = block; j < end; j++) {
                int64_t left, right;
                inside(&p->w[1], j, p->in[1], &left, &right);
                best[j - block] = -INFINITY;
                at[j - block] = (int32_t)(top * p->in[1] + left);    // what an all -inf window answers
            }
            for (int64_t r = top; r < bottom; r += p->w[0].dilation)
                for (int64_t c = 0; c < p->w[1].kernel; c++) {
                    int64_t first, last;
                    columns_inside(p, c, &first, &last);
                    first = i64_most(first, block);
                    last = i64_least(last, end);
                    int64_t from = r * p->in[1] + first * p->w[1].stride - p->w[1].padding + c * p->w[1].dilation;
                    if (first < last)
                        simd()->pool(x + from, p->w[1].stride, last - first, (int32_t)from, best + first - block,
                                     at + first - block);
                }
            for (int64_t j = block; j < end; j++) {
                y[i * p->out[1] + j] = best[j - block];
                index[i * p->out[1] + j] = at[j - block];
            }
        }
    }
}

static void avg_plane(const struct pool *p, const float *x, float *y)
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
            double sum = 0;
            for (int64_t r = from[0]; r < to[0]; r++)
                for (int64_t c = from[1]; c < to[1]; c++)
                    sum += (double)x[r * p->in[1] + c];
            int64_t divisor = p->divisor != 0 ? p->divisor : size;
            y[i * p->out[1] + j] = from[0] >= to[0] || from[1] >= to[1] ? 0.0f : (float)(sum / (double)divisor);
        }
}

static void adaptive_plane(const struct pool *p, const float *x, float *y)
{
    for (int64_t i = 0; i < p->out[0]; i++) {
        int64_t top = i * p->in[0] / p->out[0], bottom = ceil_div((i + 1) * p->in[0], p->out[0]);
        for (int64_t j = 0; j < p->out[1]; j++) {
            int64_t left = j * p->in[1] / p->out[1], right = ceil_div((j + 1) * p->in[1], p->out[1]);
            double sum = 0;
            if (right - left == p->in[1]) {
                sum = simd()->sum(x + top * p->in[1], (bottom - top) * p->in[1]);
            } else {
                for (int64_t r = top; r < bottom; r++)
                    for (int64_t c = left; c < right; c++)
                        sum += (double)x[r * p->in[1] + c];
            }
            y[i * p->out[1] + j] = (float)(sum / (double)((bottom - top) * (right - left)));
        }
    }
}

static void max_part(void *context, uint32_t part)
{
    const struct pool *p = context;
    int64_t first = part * p->planes_per_part, last = i64_least(first + p->planes_per_part, p->planes);
    for (int64_t i = first; i < last; i++)
        max_plane(p, p->x + i * p->in[0] * p->in[1], p->y + i * p->out[0] * p->out[1], p->index + i * p->out[0] * p->out[1]);
}

static void avg_part(void *context, uint32_t part)
{
    const struct pool *p = context;
    int64_t first = part * p->planes_per_part, last = i64_least(first + p->planes_per_part, p->planes);
    for (int64_t i = first; i < last; i++)
        avg_plane(p, p->x + i * p->in[0] * p->in[1], p->y + i * p->out[0] * p->out[1]);
}

static void adaptive_part(void *context, uint32_t part)
{
    const struct pool *p = context;
    int64_t first = part * p->planes_per_part, last = i64_least(first + p->planes_per_part, p->planes);
    for (int64_t i = first; i < last; i++)
        adaptive_plane(p, p->x + i * p->in[0] * p->in[1], p->y + i * p->out[0] * p->out[1]);
}

static struct pool pool_of(const struct kernel_call *call, struct scratch *scratch)
{
    const struct tensor_meta *in = &call->in[0].meta, *out = &call->out[0].meta;
    struct pool p = {.planes = 1};
    for (uint32_t d = 0; d + 2 < in->rank; d++)
        p.planes *= in->size[d];
    for (uint32_t d = 0; d < 2; d++) {
        p.in[d] = in->size[in->rank - 2 + d];
        p.out[d] = out->size[out->rank - 2 + d];
    }
    p.x = dense_take(scratch, &call->in[0], DTYPE_F32, scratch->data != NULL, call->team);
    p.y = dense_take(scratch, &call->out[0], DTYPE_F32, false, call->team);
    if (call->op->number == OP_MAX_POOL2D)
        p.index = dense_take(scratch, &call->out[1], DTYPE_I64, false, call->team);
    p.planes_per_part = i64_most(1, PART_OUTPUTS / i64_most(1, p.out[0] * p.out[1]));
    return p;
}

static size_t pool_scratch(const struct kernel_call *call)
{
    struct scratch scratch = {0};
    pool_of(call, &scratch);
    return scratch.used;
}

static enum dj_error pool_run(const struct kernel_call *call)
{
    struct scratch scratch = {.data = call->scratch};
    struct pool p = pool_of(call, &scratch);
    uint32_t op = call->op->number, parts = (uint32_t)ceil_div(p.planes, p.planes_per_part);
    for (int d = 0; d < 2 && op != OP_ADAPTIVE_AVG_POOL2D; d++) {
        p.w[d].kernel = int_of(&call->attr[0], d, 1);
        p.w[d].stride = int_of(&call->attr[1], d, p.w[d].kernel);
        p.w[d].padding = int_of(&call->attr[2], d, 0);
        p.w[d].dilation = op == OP_MAX_POOL2D ? int_of(&call->attr[3], d, 1) : 1;
    }
    if (op == OP_AVG_POOL2D) {
        p.counts_padding = attr_int(&call->attr[4]) != 0;
        p.divisor = call->attr[5].kind == ATTR_ABSENT ? 0 : attr_int(&call->attr[5]);
    }
    if (p.planes > 0 && p.out[0] > 0 && p.out[1] > 0)
        team_run(call->team, parts, op == OP_MAX_POOL2D ? max_part : op == OP_AVG_POOL2D ? avg_part : adaptive_part, &p);
    dense_return(p.y, DTYPE_F32, &call->out[0], call->team);
    if (op == OP_MAX_POOL2D)
        dense_return(p.index, DTYPE_I64, &call->out[1], call->team);
    return DJ_OK;
}

static bool pool_can(const struct kernel_call *call)
{
    enum dtype dtype = call->in[0].meta.dtype;
    const struct tensor_meta *in = &call->in[0].meta;
    return dtype_is_float(dtype) && dtype != DTYPE_F64 && in->rank >= 2 &&
           (in->size[in->rank - 1] == 0 || in->size[in->rank - 2] <= INT32_MAX / in->size[in->rank - 1]);
}

void table_pool(struct kernel *kernel)
{
    kernel[OP_MAX_POOL2D] = kernel[OP_AVG_POOL2D] = kernel[OP_ADAPTIVE_AVG_POOL2D] = (struct kernel){
        .run = pool_run, .scratch = pool_scratch, .can = pool_can};
}
