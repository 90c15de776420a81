// Convolution by cuDNN: see conv_dnn.h. Three tensors, a convolution and one operation are a graph (dnn_graph.h).
//
// fp32 is computed without tensor cores unless TF32 is allowed: there they would round the inputs to 10 bits.

#include "gpu_worker/kernels/cuda/conv_dnn.h"

#include <string.h>

#include "gpu_worker/kernels/cuda/dnn_graph.h"

enum { UID_X = 'x', UID_W = 'w', UID_Y = 'y' };

// What a plan depends on.
struct conv_shape {
    int64_t graph, kind, dtype, allows_tf32;
    struct dnn_plane x, w, y;
    int64_t padding[2], stride[2], dilation[2];
};

struct conv_call {
    struct conv_shape shape;
    const void *x, *w, *y;
};

static void *make_convolution(struct dnn_builder *b, const struct conv_shape *shape)
{
    void *convolution = dnn_make(b, CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR);
    int compute = CUDNN_DATA_FLOAT, mode = CUDNN_CROSS_CORRELATION;
    int64_t dimensions = 2;
    dnn_set(b, convolution, CUDNN_ATTR_CONVOLUTION_SPATIAL_DIMS, CUDNN_TYPE_INT64, 1, &dimensions);
    dnn_set(b, convolution, CUDNN_ATTR_CONVOLUTION_COMP_TYPE, CUDNN_TYPE_DATA_TYPE, 1, &compute);
    dnn_set(b, convolution, CUDNN_ATTR_CONVOLUTION_CONV_MODE, CUDNN_TYPE_CONVOLUTION_MODE, 1, &mode);
    dnn_set(b, convolution, CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS, CUDNN_TYPE_INT64, 2, shape->padding);
    dnn_set(b, convolution, CUDNN_ATTR_CONVOLUTION_POST_PADDINGS, CUDNN_TYPE_INT64, 2, shape->padding);
    dnn_set(b, convolution, CUDNN_ATTR_CONVOLUTION_DILATIONS, CUDNN_TYPE_INT64, 2, shape->dilation);
    dnn_set(b, convolution, CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES, CUDNN_TYPE_INT64, 2, shape->stride);
    dnn_finalize(b, convolution);
    return convolution;
}

static void *make_tensor(struct dnn_builder *b, const struct conv_shape *shape, const struct dnn_plane *plane, int64_t uid)
{
    return dnn_make_tensor(b, &(struct dnn_tensor){.plane = *plane, .uid = uid, .type = dnn_data_type(shape->dtype)});
}

static uint32_t operate(struct dnn_builder *b, const void *problem, void **ret)
{
    static const struct {
        enum cudnn_descriptor type;
        enum cudnn_attribute x, w, y, convolution, alpha, beta;
    } operations[] = {
        [CONV_FORWARD] = {CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_X,
                          CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_W, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_Y,
                          CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_CONV_DESC, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_ALPHA,
                          CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_BETA},
        [CONV_INPUT] = {CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_DATA_DESCRIPTOR,
                        CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DX, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_W,
                        CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DY, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_CONV_DESC,
                        CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_ALPHA, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_BETA},
        [CONV_WEIGHT] = {CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_FILTER_DESCRIPTOR,
                         CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_X, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DW,
                         CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DY, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_CONV_DESC,
                         CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_ALPHA, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_BETA},
    };
    const struct conv_shape *shape = problem;
    float one = 1.0f, none = 0.0f;
    void *x = make_tensor(b, shape, &shape->x, UID_X), *w = make_tensor(b, shape, &shape->w, UID_W),
         *y = make_tensor(b, shape, &shape->y, UID_Y);
    void *convolution = make_convolution(b, shape), *operation = dnn_make(b, operations[shape->kind].type);
    dnn_set_object(b, operation, operations[shape->kind].x, x);
    dnn_set_object(b, operation, operations[shape->kind].w, w);
    dnn_set_object(b, operation, operations[shape->kind].y, y);
    dnn_set_object(b, operation, operations[shape->kind].convolution, convolution);
    dnn_set(b, operation, operations[shape->kind].alpha, CUDNN_TYPE_FLOAT, 1, &one);
    dnn_set(b, operation, operations[shape->kind].beta, CUDNN_TYPE_FLOAT, 1, &none);
    dnn_finalize(b, operation);
    ret[0] = operation;
    return 1;
}

static struct dnn_problem problem_of(const struct conv_shape *shape)
{
    return (struct dnn_problem){.shape = shape,
                                .shape_bytes = sizeof *shape,
                                .is_exact = shape->dtype == DTYPE_F32 && shape->allows_tf32 == 0,
                                .operate = operate};
}

static struct dnn_plane plane_of(int64_t images, int64_t channels, int64_t height, int64_t width, const struct conv_plane *stride)
{
    return dnn_plane_make((const int64_t[]){images, channels, height, width},
                          (const int64_t[]){stride->image, stride->channel, stride->row, stride->column});
}

static enum dj_error run(const void *context, const struct cuda_libraries *libraries, cuda_stream stream, struct fault *fault)
{
    const struct conv_call *call = context;
    struct dnn_problem problem = problem_of(&call->shape);
    struct dnn_pointers pointers = {.count = 3, .uid = {UID_X, UID_W, UID_Y}, .data = {call->x, call->w, call->y}};
    return dnn_run(libraries, &problem, &pointers, stream, fault);
}

bool conv_dnn_emit(struct cuda_program *program, enum conv_kind kind, enum dtype dtype, const struct conv_args *args)
{
    const struct cuda_libraries *libraries = program->libraries;
    struct conv_call call = {.shape = {.graph = DNN_CONVOLUTION, .kind = kind, .dtype = dtype},
                             .x = kind == CONV_INPUT ? args->out : args->x,
                             .w = kind == CONV_WEIGHT ? args->out : args->weight,
                             .y = args->y};
    struct conv_shape *shape = &call.shape;

    if (libraries == NULL || !dnn_is_aligned(call.x) || !dnn_is_aligned(call.w) || !dnn_is_aligned(call.y))
        return false;
    shape->allows_tf32 = libraries->allows_tf32;
    shape->x = plane_of(args->images, args->channels * args->groups, args->in_h, args->in_w, &args->x_stride);
    shape->w = plane_of(args->outputs * args->groups, args->channels, args->kernel_h, args->kernel_w, &args->weight_stride);
    shape->y = plane_of(args->images, args->outputs * args->groups, args->out_h, args->out_w, &args->y_stride);
    memcpy(shape->padding, (int64_t[]){args->pad_h, args->pad_w}, sizeof shape->padding);
    memcpy(shape->stride, (int64_t[]){args->stride_h, args->stride_w}, sizeof shape->stride);
    memcpy(shape->dilation, (int64_t[]){args->step_h, args->step_w}, sizeof shape->dilation);
    struct dnn_problem problem = problem_of(shape);
    if (!dnn_serves(libraries, &problem))
        return false;
    cuda_emit_call(program, run, &call, sizeof call);
    return true;
}
