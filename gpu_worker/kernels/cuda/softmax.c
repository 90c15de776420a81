// Softmax, host half: rows along `dim`, any strides; dtypes of input and output equal.

#include "gpu_worker/kernels/cuda/softmax.h"

#include "gpu_worker/kernels/cuda/cuda.h"

enum { ROW_THREADS_MAX = 1024, WARP = 32, ROWS_MOST = 1 << 16 };

static enum cuda_function choose(enum dtype dtype, bool is_backward)
{
    switch (dtype) {
    case DTYPE_F32: return is_backward ? CUDA_softmax_backward_f32 : CUDA_softmax_f32;
    case DTYPE_F64: return is_backward ? CUDA_softmax_backward_f64 : CUDA_softmax_f64;
    case DTYPE_F16: return is_backward ? CUDA_softmax_backward_f16 : CUDA_softmax_f16;
    case DTYPE_BF16: return is_backward ? CUDA_softmax_backward_bf16 : CUDA_softmax_bf16;
    default: return CUDA_FUNCTION_NONE;
    }
}

static bool softmax_can(const struct kernel_call *call)
{
    enum dtype dtype = call->out[0].meta.dtype;
    for (uint32_t i = 0; i < call->n_in; i++)
        if (call->in[i].meta.dtype != dtype)
            return false;
    return choose(dtype, false) != CUDA_FUNCTION_NONE;
}

// The sizes without `dim`.
static struct tensor_meta without(const struct tensor_meta *meta, uint32_t dim)
{
    struct tensor_meta rows = *meta;
    if (meta->rank == 0)
        return rows;
    rows.rank--;
    for (uint32_t d = dim; d < rows.rank; d++) {
        rows.size[d] = meta->size[d + 1];
        rows.stride[d] = meta->stride[d + 1];
    }
    return rows;
}

static enum dj_error emit(const struct kernel_call *call, struct cuda_program *program, bool is_backward)
{
    const struct tensor *x = &call->in[0], *y = &call->in[is_backward ? 1 : 0], *out = &call->out[0];
    uint32_t dim = cuda_dim_wrap(call->attr[0].i, x->meta.rank);
    struct tensor_meta rows[3] = {without(&x->meta, dim), without(&y->meta, dim), without(&out->meta, dim)};
    struct softmax_args args = {.x = x->data, .y = y->data, .out = out->data, .length = 1};

    if (tensor_count(&x->meta) == 0)
        return DJ_OK;
    if (x->meta.rank > 0) {
        args.length = x->meta.size[dim];
        args.stride[0] = x->meta.stride[dim];
        args.stride[1] = y->meta.stride[dim];
        args.stride[2] = out->meta.stride[dim];
    }
    args.is_log = call->op->number == OP_LOG_SOFTMAX || call->op->number == OP_LOG_SOFTMAX_BACKWARD;
    if (!cuda_loop_make(&rows[0], (const struct tensor_meta *const[]){&rows[0], &rows[1], &rows[2]}, 3, &args.rows))
        return DJ_E_INTERNAL;
    uint32_t warps = cuda_blocks(args.length, WARP, ROW_THREADS_MAX / WARP);
    struct cuda_shape shape = {
        .grid_x = cuda_blocks(args.rows.count, 1, ROWS_MOST), .grid_y = 1, .grid_z = 1, .block = warps * WARP};
    cuda_emit(program, choose(x->meta.dtype, is_backward), shape, &args, sizeof args);
    return DJ_OK;
}

static enum dj_error emit_forward(const struct kernel_call *call, struct cuda_program *program)
{
    return emit(call, program, false);
}

static enum dj_error emit_backward(const struct kernel_call *call, struct cuda_program *program)
{
    return emit(call, program, true);
}

void cuda_table_softmax(struct cuda_entry *entry)
{
    entry[OP_SOFTMAX] = entry[OP_LOG_SOFTMAX] = (struct cuda_entry){.emit = emit_forward, .can = softmax_can};
    entry[OP_SOFTMAX_BACKWARD] = entry[OP_LOG_SOFTMAX_BACKWARD] = (struct cuda_entry){.emit = emit_backward, .can = softmax_can};
}
