// Convolution, host half: shapes; cuDNN where it is there and has an engine that keeps our promises (conv_dnn.c), else our own kernels (conv.cu).

#include "gpu_worker/kernels/cuda/conv.h"

#include "gpu_worker/kernels/cuda/conv_dnn.h"
#include "gpu_worker/kernels/cuda/cuda.h"

enum { TILE = 64, THREADS = 256, GRID_Z_MAX = 65535, GRID_Y_MOST = 4096, GRID_X_MOST = 1 << 20, BIAS_EACH = 4 };

static int by_dtype(enum dtype dtype)
{
    return dtype == DTYPE_F32 ? 0 : dtype == DTYPE_F16 ? 1 : dtype == DTYPE_BF16 ? 2 : -1;
}

static bool conv_can(const struct kernel_call *call)
{
    enum dtype dtype = call->out[0].meta.dtype;
    uint32_t rank = call->in[1].meta.rank;
    for (uint32_t i = 0; i < call->n_in; i++)
        if (call->in[i].meta.dtype != DTYPE_NONE && call->in[i].meta.dtype != dtype)
            return false;
    return by_dtype(dtype) >= 0 && (rank == 3 || rank == 4) && call->attr[3].i == 0 && call->attr[5].i > 0;
}

// A list may be of one number for all dimensions, or empty.
static int64_t spatial(const struct attr *attr, uint32_t at, int64_t otherwise)
{
    return attr->count == 0 ? otherwise : attr->ints[attr->count == 1 ? 0 : at];
}

static struct conv_plane plane_of(const struct tensor_meta *meta)
{
    return (struct conv_plane){.image = meta->stride[0],
                               .channel = meta->stride[1],
                               .row = meta->rank == 4 ? meta->stride[2] : 0,
                               .column = meta->stride[meta->rank - 1]};
}

static struct conv_args args_of(const struct kernel_call *call, const struct tensor *x, const struct tensor *weight,
                                const struct tensor *y)
{
    uint32_t rank = x->meta.rank, last = rank - 1, w = rank - 3;
    bool is_plane = rank == 4;
    struct conv_args args = {.x = x->data, .weight = weight->data, .y = y->data, .slices = 1};
    args.x_stride = plane_of(&x->meta);
    args.y_stride = plane_of(&y->meta);
    args.weight_stride = plane_of(&weight->meta);
    args.groups = call->attr[5].i;
    args.images = x->meta.size[0];
    args.channels = weight->meta.size[1];
    args.outputs = weight->meta.size[0] / args.groups;
    args.in_h = is_plane ? x->meta.size[2] : 1;
    args.in_w = x->meta.size[last];
    args.out_h = is_plane ? y->meta.size[2] : 1;
    args.out_w = y->meta.size[last];
    args.kernel_h = is_plane ? weight->meta.size[2] : 1;
    args.kernel_w = weight->meta.size[last];
    args.stride_h = is_plane ? spatial(&call->attr[0], 0, 1) : 1;
    args.stride_w = spatial(&call->attr[0], w, 1);
    args.pad_h = is_plane ? spatial(&call->attr[1], 0, 0) : 0;
    args.pad_w = spatial(&call->attr[1], w, 0);
    args.step_h = is_plane ? spatial(&call->attr[2], 0, 1) : 1;
    args.step_w = spatial(&call->attr[2], w, 1);
    return args;
}

static struct cuda_shape shape_of(int64_t rows, int64_t columns, int64_t groups)
{
    return (struct cuda_shape){.grid_x = cuda_blocks(rows, TILE, GRID_X_MOST),
                               .grid_y = cuda_blocks(columns, TILE, GRID_Y_MOST),
                               .grid_z = cuda_blocks(groups, 1, GRID_Z_MAX),
                               .block = THREADS};
}

static enum dj_error emit_forward(const struct kernel_call *call, struct cuda_program *program)
{
    static const enum cuda_function by[] = {CUDA_conv_forward_f32, CUDA_conv_forward_f16, CUDA_conv_forward_bf16};
    static const enum cuda_function bias[] = {CUDA_conv_bias_f32, CUDA_conv_bias_f16, CUDA_conv_bias_bf16};
    struct conv_args args = args_of(call, &call->in[0], &call->in[1], &call->out[0]);

    if (tensor_count(&call->out[0].meta) == 0)
        return DJ_OK;
    if (call->n_in > 2 && call->in[2].meta.dtype != DTYPE_NONE) {
        args.bias = call->in[2].data;
        args.bias_stride = call->in[2].meta.stride[0];
    }
    int dtype = by_dtype(call->out[0].meta.dtype);
    if (!conv_dnn_emit(program, CONV_FORWARD, call->out[0].meta.dtype, &args)) {
        cuda_emit(program, by[dtype], shape_of(args.images * args.out_h * args.out_w, args.outputs, args.groups), &args,
                  sizeof args);
    } else if (args.bias != NULL) {
        struct cuda_shape shape = {.grid_x = cuda_blocks(tensor_count(&call->out[0].meta), THREADS * BIAS_EACH, GRID_X_MOST),
                                   .grid_y = 1,
                                   .grid_z = 1,
                                   .block = THREADS};
        cuda_emit(program, bias[dtype], shape, &args, sizeof args);
    }
    return DJ_OK;
}

static enum dj_error emit_input(const struct kernel_call *call, struct cuda_program *program)
{
    static const enum cuda_function by[] = {CUDA_conv_input_f32, CUDA_conv_input_f16, CUDA_conv_input_bf16};
    // Sizes of x are its gradient's; the gradient is written through its own strides.
    struct tensor x = call->out[0];
    struct conv_args args = args_of(call, &x, &call->in[2], &call->in[0]);

    if (tensor_count(&x.meta) == 0)
        return DJ_OK;
    args.out = x.data;
    if (conv_dnn_emit(program, CONV_INPUT, x.meta.dtype, &args))
        return DJ_OK;
    cuda_emit(program, by[by_dtype(x.meta.dtype)], shape_of(args.images * args.in_h * args.in_w, args.channels, args.groups),
              &args, sizeof args);
    return DJ_OK;
}

static struct conv_args weight_args(const struct kernel_call *call)
{
    struct tensor weight = call->out[0];
    struct conv_args args = args_of(call, &call->in[1], &weight, &call->in[0]);
    int64_t pixels = args.images * args.out_h * args.out_w;

    args.out = weight.data;
    if (pixels > 2 * CONV_SLICE)
        args.slices = (pixels + CONV_SLICE - 1) / CONV_SLICE;
    return args;
}

static size_t weight_scratch(const struct kernel_call *call)
{
    struct conv_args args = weight_args(call);
    return args.slices == 1 ? 0 : (size_t)(args.slices * tensor_count(&call->out[0].meta)) * sizeof(float);
}

static enum dj_error emit_weight(const struct kernel_call *call, struct cuda_program *program)
{
    static const enum cuda_function by[] = {CUDA_conv_weight_f32, CUDA_conv_weight_f16, CUDA_conv_weight_bf16};
    static const enum cuda_function join[] = {CUDA_conv_weight_join_f32, CUDA_conv_weight_join_f16, CUDA_conv_weight_join_bf16};
    struct conv_args args = weight_args(call);
    int64_t taps = args.channels * args.kernel_h * args.kernel_w, all = args.groups * args.outputs * taps;
    int dtype = by_dtype(call->out[0].meta.dtype);

    if (all == 0)
        return DJ_OK;
    if (conv_dnn_emit(program, CONV_WEIGHT, call->out[0].meta.dtype, &args))
        return DJ_OK;
    args.slice = args.slices == 1 ? NULL : call->scratch;
    cuda_emit(program, by[dtype], shape_of(args.outputs, taps, args.groups * args.slices), &args, sizeof args);
    if (args.slices > 1) {
        struct cuda_shape shape = {.grid_x = cuda_blocks(all, THREADS, GRID_X_MOST), .grid_y = 1, .grid_z = 1, .block = THREADS};
        cuda_emit(program, join[dtype], shape, &args, sizeof args);
    }
    return DJ_OK;
}

void cuda_table_conv(struct cuda_entry *entry)
{
    entry[OP_CONVOLUTION] = (struct cuda_entry){.emit = emit_forward, .can = conv_can};
    entry[OP_CONVOLUTION_BACKWARD_INPUT] = (struct cuda_entry){.emit = emit_input, .can = conv_can};
    entry[OP_CONVOLUTION_BACKWARD_WEIGHT] = (struct cuda_entry){.emit = emit_weight, .scratch = weight_scratch, .can = conv_can};
}
