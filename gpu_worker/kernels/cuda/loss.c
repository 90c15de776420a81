// Loss of classes, host half: one block adds all rows up, in one order; gradients take a block a row.

#include "gpu_worker/kernels/cuda/loss.h"

#include "gpu_worker/kernels/cuda/cuda.h"

enum { WARP = 32, ROWS_MOST = 1 << 16 };

static enum cuda_function function_of(enum dtype dtype, bool is_backward)
{
    switch (dtype) {
    case DTYPE_F32: return is_backward ? CUDA_nll_loss_backward_f32 : CUDA_nll_loss_f32;
    case DTYPE_F64: return is_backward ? CUDA_nll_loss_backward_f64 : CUDA_nll_loss_f64;
    case DTYPE_F16: return is_backward ? CUDA_nll_loss_backward_f16 : CUDA_nll_loss_f16;
    case DTYPE_BF16: return is_backward ? CUDA_nll_loss_backward_bf16 : CUDA_nll_loss_bf16;
    default: return CUDA_FUNCTION_NONE;
    }
}

static bool loss_can(const struct kernel_call *call)
{
    bool is_backward = call->op->number == OP_NLL_LOSS_BACKWARD;
    enum dtype dtype = call->in[is_backward].meta.dtype, class = call->in[is_backward + 1].meta.dtype;
    for (uint32_t i = 0; i < call->n_in; i++)
        if (i != is_backward + 1u && call->in[i].meta.dtype != DTYPE_NONE && call->in[i].meta.dtype != dtype)
            return false;
    return function_of(dtype, is_backward) != CUDA_FUNCTION_NONE && (class == DTYPE_I64 || class == DTYPE_U8);
}

// `values` is the input that the loss is of; classes and weight follow it.
static struct nll_args loss_args(const struct kernel_call *call, const struct tensor *values)
{
    const struct tensor *class = values + 1, *weight = values + 2;
    uint32_t last = values->meta.rank - 1;
    bool has_rows = values->meta.rank == 2;
    struct nll_args args = {.x = values->data, .classes_of = class->data, .rows = 1, .classes = values->meta.size[last]};
    if (has_rows) {
        args.rows = values->meta.size[0];
        args.x_row = values->meta.stride[0];
        args.of_step = class->meta.stride[0];
    }
    args.x_column = values->meta.stride[last];
    if (weight->meta.dtype != DTYPE_NONE) {
        args.weight = weight->data;
        args.weight_step = weight->meta.stride[0];
    }
    args.is_byte = class->meta.dtype == DTYPE_U8;
    args.is_each = call->attr[0].i == REDUCTION_NONE && has_rows;
    args.is_mean = call->attr[0].i == REDUCTION_MEAN;
    args.ignored = call->attr[1].i;
    args.out = call->out[0].data;
    return args;
}

static enum dj_error emit_loss(const struct kernel_call *call, struct cuda_program *program)
{
    struct nll_args args = loss_args(call, &call->in[0]);
    args.ret_total = call->out[1].data;
    args.out_row = args.is_each ? call->out[0].meta.stride[0] : 0;
    // One block adds all rows up, in one order.
    uint32_t warps = cuda_blocks(args.rows, WARP, LOSS_THREADS / WARP);
    struct cuda_shape shape = {
        .grid_x = args.is_each ? cuda_blocks(args.rows, LOSS_THREADS, ROWS_MOST) : 1, 1, 1, .block = warps * WARP};
    program->may_fault = true;
    cuda_emit(program, function_of(call->in[0].meta.dtype, false), shape, &args, sizeof args);
    return DJ_OK;
}

static enum dj_error emit_loss_backward(const struct kernel_call *call, struct cuda_program *program)
{
    struct nll_args args = loss_args(call, &call->in[1]);
    const struct tensor_meta *out = &call->out[0].meta;
    if (args.rows == 0 || args.classes == 0)
        return DJ_OK;
    args.gradient = call->in[0].data;
    args.gradient_step = args.is_each ? call->in[0].meta.stride[0] : 0;
    args.total = call->in[4].data;
    args.out_row = out->rank == 2 ? out->stride[0] : 0;
    args.out_column = out->stride[out->rank - 1];
    uint32_t warps = cuda_blocks(args.classes, WARP, LOSS_ROW_THREADS / WARP);
    struct cuda_shape shape = {.grid_x = cuda_blocks(args.rows, 1, ROWS_MOST), 1, 1, .block = warps * WARP};
    program->may_fault = true;
    cuda_emit(program, function_of(call->in[1].meta.dtype, true), shape, &args, sizeof args);
    return DJ_OK;
}

void cuda_table_loss(struct cuda_entry *entry)
{
    entry[OP_NLL_LOSS] = (struct cuda_entry){.emit = emit_loss, .can = loss_can};
    entry[OP_NLL_LOSS_BACKWARD] = (struct cuda_entry){.emit = emit_loss_backward, .can = loss_can};
}
