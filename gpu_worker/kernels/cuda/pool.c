// Pools, host half: tensors as [images, channels, rows, columns] with any strides, and windows from the attributes.

#include "gpu_worker/kernels/cuda/pool.h"

#include "gpu_worker/kernels/cuda/cuda.h"

enum { WARP = 32, BLOCKS_MOST = 1 << 14, WARP_CELLS_LEAST = 32 };

struct functions {
    enum cuda_function max, mean, max_backward, mean_backward;
};

static struct functions functions_of(enum dtype dtype)
{
    switch (dtype) {
#define FUNCTIONS(suffix) \
    { \
        CUDA_max_pool_##suffix, CUDA_mean_pool_##suffix, CUDA_max_pool_backward_##suffix, CUDA_mean_pool_backward_##suffix \
    }
    case DTYPE_F32: return (struct functions)FUNCTIONS(f32);
    case DTYPE_F16: return (struct functions)FUNCTIONS(f16);
    case DTYPE_BF16: return (struct functions)FUNCTIONS(bf16);
    default: return (struct functions){0};
    }
}

static bool pool_can(const struct kernel_call *call)
{
    enum dtype dtype = call->in[0].meta.dtype;
    uint32_t op = call->op->number, rank = call->in[0].meta.rank;
    bool has_index = op == OP_MAX_POOL2D_BACKWARD;
    if (functions_of(dtype).max == CUDA_FUNCTION_NONE || call->out[0].meta.dtype != dtype || rank < 2 || rank > 4)
        return false;
    return !has_index || call->in[2].meta.dtype == DTYPE_I64;
}

static struct pool_tensor tensor_of(const struct tensor_meta *meta)
{
    struct pool_tensor ret = {.size = {1, 1, 1, 1}};
    uint32_t missing = 4 - meta->rank;
    for (uint32_t d = 0; d < meta->rank; d++) {
        ret.size[missing + d] = meta->size[d];
        ret.stride[missing + d] = meta->stride[d];
    }
    return ret;
}

static int64_t int_of(const struct attr *attr, int at, int64_t if_absent)
{
    return attr->kind != ATTR_INTS || attr->count == 0 ? if_absent : attr->ints[attr->count == 1 ? 0 : at];
}

// Attributes: kernel, stride, padding, then dilation and ceil_mode of the largest, or ceil_mode, count_include_pad and divisor of the mean.
static void windows_of(const struct kernel_call *call, bool is_max, struct pool_args *args)
{
    for (int d = 0; d < 2; d++) {
        struct pool_window *window = &args->window[d];
        window->kernel = int_of(&call->attr[0], d, 1);
        window->stride = int_of(&call->attr[1], d, window->kernel);
        window->padding = int_of(&call->attr[2], d, 0);
        window->dilation = is_max ? int_of(&call->attr[3], d, 1) : 1;
    }
    if (!is_max) {
        args->counts_padding = call->attr[4].i != 0;
        args->divisor = call->attr[5].kind == ATTR_ABSENT ? 0 : call->attr[5].i;
    }
}

static int64_t count_of(const struct pool_tensor *tensor)
{
    return tensor->size[0] * tensor->size[1] * tensor->size[2] * tensor->size[3];
}

// Whether a window has so many values that a warp shares it; lanes then walk along its rows.
static bool are_windows_large(const struct pool_args *args)
{
    int64_t cells = 1;
    for (int d = 0; d < 2; d++)
        cells *= args->is_adaptive ? args->from.size[2 + d] / args->to.size[2 + d] : args->window[d].kernel;
    return cells >= WARP_CELLS_LEAST;
}

static void emit(struct cuda_program *program, struct pool_args *args, enum cuda_function function, bool may_share)
{
    int64_t count = count_of(&args->to), largest = count_of(&args->from) > count ? count_of(&args->from) : count;
    if (count == 0)
        return;
    args->is_channels_last = args->to.stride[1] < args->to.stride[3] && args->to.size[1] > 1;
    args->is_small = largest <= INT32_MAX;
    args->by_warps = may_share && !args->is_channels_last && are_windows_large(args);
    struct cuda_shape shape = {.grid_x = cuda_blocks(count, args->by_warps ? POOL_THREADS / WARP : POOL_THREADS, BLOCKS_MOST),
                               .grid_y = 1,
                               .grid_z = 1,
                               .block = POOL_THREADS};
    cuda_emit(program, function, shape, args, sizeof *args);
}

static enum dj_error emit_pool(const struct kernel_call *call, struct cuda_program *program)
{
    struct functions functions = functions_of(call->in[0].meta.dtype);
    bool is_max = call->op->number == OP_MAX_POOL2D;
    struct pool_args args = {.x = call->in[0].data,
                             .out = call->out[0].data,
                             .from = tensor_of(&call->in[0].meta),
                             .to = tensor_of(&call->out[0].meta),
                             .is_adaptive = call->op->number == OP_ADAPTIVE_AVG_POOL2D};
    if (!args.is_adaptive)
        windows_of(call, is_max, &args);
    if (is_max) {
        args.ret_index = call->out[1].data;
        args.at = tensor_of(&call->out[1].meta);
    }
    emit(program, &args, is_max ? functions.max : functions.mean, !is_max);
    return DJ_OK;
}

static enum dj_error emit_backward(const struct kernel_call *call, struct cuda_program *program)
{
    struct functions functions = functions_of(call->in[0].meta.dtype);
    bool is_max = call->op->number == OP_MAX_POOL2D_BACKWARD;
    struct pool_args args = {.x = call->in[0].data,
                             .out = call->out[0].data,
                             .from = tensor_of(&call->in[0].meta),
                             .to = tensor_of(&call->out[0].meta),
                             .is_adaptive = call->op->number == OP_ADAPTIVE_AVG_POOL2D_BACKWARD};
    if (!args.is_adaptive)
        windows_of(call, is_max, &args);
    if (is_max) {
        args.index = call->in[2].data;
        args.at = tensor_of(&call->in[2].meta);
        program->may_fault = true;
    }
    emit(program, &args, is_max ? functions.max_backward : functions.mean_backward, false);
    return DJ_OK;
}

void cuda_table_pool(struct cuda_entry *entry)
{
    entry[OP_MAX_POOL2D] = entry[OP_AVG_POOL2D] = entry[OP_ADAPTIVE_AVG_POOL2D] = (struct cuda_entry){.emit = emit_pool,
                                                                                                      .can = pool_can};
    entry[OP_MAX_POOL2D_BACKWARD] = entry[OP_AVG_POOL2D_BACKWARD] = entry[OP_ADAPTIVE_AVG_POOL2D_BACKWARD] = (struct cuda_entry){
        .emit = emit_backward, .can = pool_can};
}
