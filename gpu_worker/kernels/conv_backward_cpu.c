// Gradients of convolution, as products (one image and one group at a time, g the gradient of the result):
//
//     taps[k][o]  the value of x that weight k = (channel, row, column) meets at output o; 0 in the padding
//     dw  = sum over images of g taps^T      g [channels out][outputs]
//     dx  = w^T g, each tap added to the value that it came from
//
// Images are taken in order, a plane of dx is summed by one part in the order of taps. A kernel of one pixel without stride or padding
// needs no unfolding: taps are x itself. One-dimensional convolutions are planes of one row.

#include "gpu_worker/kernels/cpu.h"

#include <string.h>

struct unfold {
    int64_t images, groups, in_channels, out_channels;    // channels of one group
    int64_t in[2], out[2], kernel[2], stride[2], padding[2], dilation[2];
    int64_t taps, outputs;
    const float *x;
    float *dx, *column;
    bool is_plain;    // taps are x
};

struct memory {
    const float *g, *x, *w;
    float *out, *part;    // part: what one image adds to dw
    void *rest;
};

static bool conv_can(const struct kernel_call *call)
{
    uint32_t rank = call->in[1].meta.rank;
    for (uint32_t i = 0; i < call->n_in; i++)
        if (!dtype_is_float(call->in[i].meta.dtype) || call->in[i].meta.dtype == DTYPE_F64)
            return false;
    return call->attr[3].i == 0 && (rank == 3 || rank == 4);
}

static int64_t spatial(const struct attr *attr, uint32_t at)
{
    return attr->ints[attr->count == 1 ? 0 : at];
}

static struct unfold unfold_of(const struct kernel_call *call)
{
    const struct tensor_meta *g = &call->in[0].meta, *x = &call->in[1].meta, *w = &call->in[2].meta;
    struct unfold u = {.images = x->size[0],
                       .groups = call->attr[5].i,
                       .in = {1, 1},
                       .out = {1, 1},
                       .kernel = {1, 1},
                       .stride = {1, 1},
                       .dilation = {1, 1}};
    u.in_channels = w->size[1];
    u.out_channels = w->size[0] / u.groups;
    for (uint32_t d = 2; d < x->rank; d++) {
        uint32_t at = d + 2 - x->rank;
        u.in[at] = x->size[d];
        u.out[at] = g->size[d];
        u.kernel[at] = w->size[d];
        u.stride[at] = spatial(&call->attr[0], d - 2);
        u.padding[at] = spatial(&call->attr[1], d - 2);
        u.dilation[at] = spatial(&call->attr[2], d - 2);
    }
    u.taps = u.in_channels * u.kernel[0] * u.kernel[1];
    u.outputs = u.out[0] * u.out[1];
    u.is_plain = u.kernel[0] * u.kernel[1] == 1 && u.stride[0] == 1 && u.stride[1] == 1 && u.padding[0] == 0 && u.padding[1] == 0;
    return u;
}

// The outputs [first, last) of one dimension whose tap at `kernel` lies inside the input.
static void outputs_inside(const struct unfold *u, int d, int64_t kernel, int64_t *first, int64_t *last)
{
    int64_t shift = kernel * u->dilation[d] - u->padding[d];    // the input position of output 0
    *first = shift >= 0 ? 0 : ceil_div(-shift, u->stride[d]);
    *last = u->in[d] - shift <= 0 ? 0 : i64_least(u->out[d], (u->in[d] - shift - 1) / u->stride[d] + 1);
    if (*last < *first)
        *last = *first;
}

// One row of taps.
static void unfold_part(void *context, uint32_t tap)
{
    const struct unfold *u = context;
    int64_t column = tap % u->kernel[1], row = tap / u->kernel[1] % u->kernel[0], channel = tap / (u->kernel[1] * u->kernel[0]);
    const float *x = u->x + channel * u->in[0] * u->in[1];
    float *to = u->column + tap * u->outputs;
    int64_t top, bottom, left, right;
    outputs_inside(u, 0, row, &top, &bottom);
    outputs_inside(u, 1, column, &left, &right);
    memset(to, 0, (size_t)u->outputs * sizeof *to);
    for (int64_t i = top; i < bottom; i++) {
        const float *from = x + (i * u->stride[0] + row * u->dilation[0] - u->padding[0]) * u->in[1] + column * u->dilation[1] -
                            u->padding[1];
        float *line = to + i * u->out[1];
        if (u->stride[1] == 1)
            memcpy(line + left, from + left, (size_t)(right - left) * sizeof *line);
        else
            for (int64_t j = left; j < right; j++)
                line[j] = from[j * u->stride[1]];
    }
}

// One channel of the input: the taps are added where they came from.
static void fold_part(void *context, uint32_t channel)
{
    const struct unfold *u = context;
    float *dx = u->dx + channel * u->in[0] * u->in[1];
    memset(dx, 0, (size_t)(u->in[0] * u->in[1]) * sizeof *dx);
    for (int64_t row = 0; row < u->kernel[0]; row++)
        for (int64_t column = 0; column < u->kernel[1]; column++) {
            int64_t tap = (channel * u->kernel[0] + row) * u->kernel[1] + column;
            const float *from = u->column + tap * u->outputs;
            int64_t top, bottom, left, right;
            outputs_inside(u, 0, row, &top, &bottom);
            outputs_inside(u, 1, column, &left, &right);
            for (int64_t i = top; i < bottom; i++) {
                float *line = dx + (i * u->stride[0] + row * u->dilation[0] - u->padding[0]) * u->in[1] +
                              column * u->dilation[1] - u->padding[1];
                for (int64_t j = left; j < right; j++)
                    line[j * u->stride[1]] += from[i * u->out[1] + j];
            }
        }
}

// taps = w^T g
static struct gemm input_gemm(const struct unfold *u)
{
    return (struct gemm){.batch = 1,
                         .m = u->taps,
                         .n = u->outputs,
                         .k = u->out_channels,
                         .alpha = 1,
                         .a_m = 1,
                         .a_k = u->taps,
                         .b_k = u->outputs,
                         .b_n = 1,
                         .c_m = u->outputs};
}

// dw = g taps^T
static struct gemm weight_gemm(const struct unfold *u)
{
    return (struct gemm){.batch = 1,
                         .m = u->out_channels,
                         .n = u->taps,
                         .k = u->outputs,
                         .alpha = 1,
                         .a_m = u->outputs,
                         .a_k = 1,
                         .b_k = 1,
                         .b_n = u->outputs,
                         .c_m = u->taps};
}

static bool is_input(const struct kernel_call *call)
{
    return call->op->number == OP_CONVOLUTION_BACKWARD_INPUT;
}

static bool is_empty(const struct unfold *u)
{
    return u->images == 0 || u->taps == 0 || u->outputs == 0 || u->out_channels == 0;
}

static void conv_memory(const struct kernel_call *call, struct unfold *u, const struct gemm *gemm, struct scratch *scratch,
                        struct memory *ret)
{
    ret->g = optional_take(scratch, call, 0);
    ret->x = is_input(call) ? NULL : optional_take(scratch, call, 1);
    ret->w = is_input(call) ? optional_take(scratch, call, 2) : NULL;
    ret->out = dense_take(scratch, &call->out[0], DTYPE_F32, false, call->team);
    if (!u->is_plain)
        u->column = scratch_take(scratch, (size_t)(u->taps * u->outputs) * sizeof(float));
    if (!is_input(call))
        ret->part = scratch_take(scratch, (size_t)(u->out_channels * u->taps) * sizeof(float));
    ret->rest = scratch_take(scratch, is_empty(u) ? 0 : gemv_fits(gemm) ? gemv_scratch(gemm) : gemm_scratch(gemm));
}

static size_t conv_scratch(const struct kernel_call *call)
{
    struct scratch scratch = {0};
    struct unfold u = unfold_of(call);
    struct gemm gemm = is_input(call) ? input_gemm(&u) : weight_gemm(&u);
    struct memory memory;
    conv_memory(call, &u, &gemm, &scratch, &memory);
    return scratch.used;
}

static void multiply(const struct gemm *gemm, void *rest, struct team *team)
{
    (gemv_fits(gemm) ? gemv_run : gemm_run)(gemm, rest, team);
}

static void input_gradient(struct unfold *u, struct gemm *gemm, const struct memory *memory, struct team *team)
{
    int64_t plane = u->in[0] * u->in[1];
    for (int64_t i = 0; i < u->images * u->groups; i++) {
        u->dx = memory->out + i * u->in_channels * plane;
        gemm->a = memory->w + i % u->groups * u->out_channels * u->taps;
        gemm->b = memory->g + i * u->out_channels * u->outputs;
        gemm->c = u->is_plain ? u->dx : u->column;
        multiply(gemm, memory->rest, team);
        if (!u->is_plain)
            team_run(team, (uint32_t)u->in_channels, fold_part, u);
    }
}

static void weight_gradient(struct unfold *u, struct gemm *gemm, const struct memory *memory, struct team *team)
{
    int64_t plane = u->in[0] * u->in[1], weights = u->out_channels * u->taps;
    for (int64_t i = 0; i < u->images * u->groups; i++) {
        float *dw = memory->out + i % u->groups * weights;
        u->x = memory->x + i * u->in_channels * plane;
        if (!u->is_plain)
            team_run(team, (uint32_t)u->taps, unfold_part, u);
        gemm->a = memory->g + i * u->out_channels * u->outputs;
        gemm->b = u->is_plain ? u->x : u->column;
        gemm->c = i < u->groups ? dw : memory->part;
        multiply(gemm, memory->rest, team);
        if (i >= u->groups)
            simd()->axpy(dw, memory->part, 1.0f, weights);
    }
}

static enum dj_error conv_run(const struct kernel_call *call)
{
    struct scratch scratch = {.data = call->scratch};
    struct unfold u = unfold_of(call);
    struct gemm gemm = is_input(call) ? input_gemm(&u) : weight_gemm(&u);
    struct memory memory = {0};
    conv_memory(call, &u, &gemm, &scratch, &memory);
    if (is_empty(&u)) {
        size_t bytes = (size_t)tensor_count(&call->out[0].meta) * sizeof(float);
        if (bytes > 0)
            memset(memory.out, 0, bytes);
    } else if (is_input(call)) {
        input_gradient(&u, &gemm, &memory, call->team);
    } else {
        weight_gradient(&u, &gemm, &memory, call->team);
    }
    dense_return(memory.out, DTYPE_F32, &call->out[0], call->team);
    return DJ_OK;
}

void table_conv_backward(struct kernel *kernel)
{
    kernel[OP_CONVOLUTION_BACKWARD_INPUT] = kernel[OP_CONVOLUTION_BACKWARD_WEIGHT] = (struct kernel){
        .run = conv_run, .scratch = conv_scratch, .can = conv_can};
}
