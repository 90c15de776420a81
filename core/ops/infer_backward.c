// Losses and gradients. A gradient's sizes are those of what it is the gradient of; what the forward would have given is inferred again
// and must be what the gradient that comes in looks like.

#include "core/ops/infer.h"

#include <inttypes.h>

static enum dj_error fault_gradient(const struct op_call *call, struct fault *fault)
{
    return fault_shape(call, "the gradient does not have the sizes that the forward gave", fault);
}

// threshold and leaky_relu: TensorIterator sees the values before the gradient.
INFER(values_first)
{
    const struct tensor_meta *in[2] = {&call->in[1], &call->in[0]};
    return iter_output(in, 2, &ret->out[0], fault);
}

INFER(softmax_backward)
{
    uint32_t dim = 0;
    if (!tensor_same_sizes(&call->in[0], &call->in[1]))
        return fault_shape(call, "grad and output must have the same sizes", fault);
    if (!dim_wrap(call->attr[0].i, call->in[0].rank, &dim))
        return fault_dim(call, call->attr[0].i, call->in[0].rank, fault);
    return infer_like_contiguous(call, ret, fault);
}

// Norms ------------------------------------------------------------------------------------------------------------------

// Inputs grad, self, mean, rstd: whether they are what layer_norm over `shape` took and gave. *rows: its dimensions before the normalised.
static enum dj_error check_layer_norm(const struct op_call *call, uint32_t *rows, struct fault *fault)
{
    const struct tensor_meta *in = &call->in[1];
    const struct attr *shape = &call->attr[0];
    if (!tensor_same_sizes(&call->in[0], in))
        return fault_gradient(call, fault);
    if (shape->count == 0 || shape->count > in->rank)
        return fault_shape(call, "normalized_shape must have 1 to as many dimensions as the input", fault);
    *rows = in->rank - shape->count;
    int64_t count = 1;
    for (uint32_t i = 0; i < in->rank; i++) {
        if (i >= *rows && shape->ints[i - *rows] != in->size[i])
            return fault_shape(call, "the input's last dimensions are not normalized_shape", fault);
        if (i < *rows && !i64_mul(count, in->size[i], &count))    // other sizes may be 0, so this may exceed what the input has
            return fault_large(call, fault);
    }
    if (tensor_count(&call->in[2]) != count || tensor_count(&call->in[3]) != count)
        return fault_shape(call, "mean and rstd must have an element for each row", fault);
    return DJ_OK;
}

INFER(layer_norm_backward)
{
    uint32_t rows = 0;
    enum dj_error error = check_layer_norm(call, &rows, fault);
    if (error != DJ_OK)
        return error;
    const struct tensor_meta *weight = &call->in[4];
    for (uint32_t i = 0; weight->dtype != DTYPE_NONE && i < call->attr[0].count; i++)
        if (weight->rank != call->attr[0].count || weight->size[i] != call->attr[0].ints[i])
            return fault_shape(call, "Expected weight to be of the same shape as normalized_shape", fault);
    return infer_like_contiguous(call, ret, fault);
}

INFER(layer_norm_params)
{
    uint32_t rows = 0;
    enum dj_error error = check_layer_norm(call, &rows, fault);
    for (uint32_t k = 0; error == DJ_OK && k < 2; k++) {
        struct tensor_meta *out = &ret->out[k];
        out->rank = call->attr[0].count;
        for (uint32_t i = 0; i < out->rank; i++)
            out->size[i] = call->attr[0].ints[i];
        if (!layout_contiguous(out))
            return fault_large(call, fault);
    }
    return error;
}

static bool is_vector_of(const struct tensor_meta *meta, int64_t size)
{
    return meta->dtype == DTYPE_NONE || (meta->rank == 1 && meta->size[0] == size);
}

static void vectors_of(struct op_result *ret, uint32_t first, uint32_t last, int64_t size)
{
    for (uint32_t k = first; k < last; k++) {
        ret->out[k].rank = 1;
        ret->out[k].size[0] = size;
        ret->out[k].stride[0] = 1;
    }
}

// The values, the mean and 1 / std of each channel, and its variance without bias, for the running statistics.
INFER(batch_norm_train)
{
    const struct tensor_meta *in = &call->in[0];
    if (in->rank < 2)
        return fault_shape(call, "expected an input of at least 2 dimensions", fault);
    if (!is_vector_of(&call->in[1], in->size[1]) || !is_vector_of(&call->in[2], in->size[1]))
        return fault_shape(call, "weight and bias must have as many elements as the input has channels", fault);
    vectors_of(ret, 1, 4, in->size[1]);
    copy_sizes(&ret->out[0], in);
    return layout_format(&ret->out[0], layout_suggest(in)) ? DJ_OK : fault_large(call, fault);
}

// The gradients of the values, of the weight and of the bias.
INFER(batch_norm_backward)
{
    const struct tensor_meta *in = &call->in[1];
    if (in->rank < 2)
        return fault_shape(call, "expected an input of at least 2 dimensions", fault);
    if (!tensor_same_sizes(&call->in[0], in))
        return fault_gradient(call, fault);
    for (uint32_t i = 2; i < 5; i++)
        if (!is_vector_of(&call->in[i], in->size[1]))
            return fault_shape(call, "weight, mean and rstd must have as many elements as the input has channels", fault);
    vectors_of(ret, 1, 3, in->size[1]);
    copy_sizes(&ret->out[0], in);
    return layout_format(&ret->out[0], layout_suggest(in)) ? DJ_OK : fault_large(call, fault);
}

INFER(group_norm_backward)
{
    const struct tensor_meta *in = &call->in[1];
    int64_t n = call->attr[0].i, c = call->attr[1].i, hxw = call->attr[2].i, group = call->attr[3].i, count = 1, groups = 0;
    if (n < 0 || c < 0 || hxw < 0 || !i64_mul(n, c, &count) || !i64_mul(count, hxw, &count) || count != tensor_count(in))
        return fault_shape(call, "N * C * HxW must be the input's element count", fault);
    if (!tensor_same_sizes(&call->in[0], in))
        return fault_gradient(call, fault);
    if (group <= 0 || c % group != 0 || !i64_mul(n, group, &groups))
        return fault_shape(call, "the number of channels must be divisible by the number of groups", fault);
    if (tensor_count(&call->in[2]) != groups || tensor_count(&call->in[3]) != groups || !is_vector_of(&call->in[4], c))
        return fault_shape(call, "mean and rstd must have an element for each group, weight one for each channel", fault);
    vectors_of(ret, 1, 3, c);
    copy_sizes(&ret->out[0], in);
    return c <= TENSOR_COUNT_MAX && layout_format(&ret->out[0], layout_suggest(in)) ? DJ_OK : fault_large(call, fault);
}

// Losses, embedding ------------------------------------------------------------------------------------------------------

// Values [N, C] or [C], classes [N] or none, an optional weight [C].
static enum dj_error check_nll(const struct op_call *call, const struct tensor_meta *values, struct fault *fault)
{
    const struct tensor_meta *classes = values + 1, *weight = values + 2;
    if (values->rank != 1 && values->rank != 2)
        return fault_shape(call, "input tensor should be 1D or 2D", fault);
    if (classes->rank > 1 || (values->rank == 1 && classes->rank == 1))
        return fault_shape(call, "0D or 1D target tensor expected, multi-target not supported", fault);
    if (values->rank == 2 && (classes->rank == 0 || classes->size[0] != values->size[0]))
        return fault_shape(call, "the input and the classes must have the same batch size", fault);
    if (!is_vector_of(weight, values->size[values->rank - 1]))
        return fault_shape(call, "weight tensor should be defined either for all classes or no classes", fault);
    if (call->attr[0].i < REDUCTION_NONE || call->attr[0].i > REDUCTION_SUM)
        return fault_set(fault, DJ_E_BINDINGS_INVALID, "%s: %" PRId64 " is not a reduction", call->op->name, call->attr[0].i);
    return DJ_OK;
}

INFER(nll_loss)
{
    enum dj_error error = check_nll(call, &call->in[0], fault);
    struct tensor_meta *out = &ret->out[0];
    ret->out[1].rank = 0;
    out->rank = call->attr[0].i == REDUCTION_NONE && call->in[0].rank == 2;
    out->size[0] = call->in[0].size[0];
    out->stride[0] = 1;
    return error;
}

INFER(nll_loss_backward)
{
    const struct tensor_meta *grad = &call->in[0], *values = &call->in[1];
    enum dj_error error = check_nll(call, values, fault);
    if (error != DJ_OK)
        return error;
    bool is_each = call->attr[0].i == REDUCTION_NONE && values->rank == 2;
    if (is_each ? grad->rank != 1 || grad->size[0] != values->size[0] : grad->rank > 1 || tensor_count(grad) != 1)
        return fault_gradient(call, fault);
    if (tensor_count(&call->in[4]) != 1)
        return fault_shape(call, "expected total_weight to be a single element tensor", fault);
    copy_sizes(&ret->out[0], values);
    return layout_contiguous(&ret->out[0]) ? DJ_OK : fault_large(call, fault);
}

INFER(embedding_backward)
{
    const struct tensor_meta *grad = &call->in[0], *indices = &call->in[1];
    struct tensor_meta *out = &ret->out[0];
    if (grad->rank != indices->rank + 1)
        return fault_gradient(call, fault);
    for (uint32_t i = 0; i < indices->rank; i++)
        if (grad->size[i] != indices->size[i])
            return fault_gradient(call, fault);
    if (call->attr[0].i < 0)
        return fault_shape(call, "the number of rows must not be negative", fault);
    out->rank = 2;
    out->size[0] = call->attr[0].i;
    out->size[1] = grad->size[grad->rank - 1];
    return layout_contiguous(out) ? DJ_OK : fault_large(call, fault);
}

// Windows ----------------------------------------------------------------------------------------------------------------

// The gradient of the input or of the weight, as the op says; attributes as of CONVOLUTION.
INFER(convolution_backward)
{
    const struct tensor_meta forward_in[3] = {call->in[1], call->in[2], {.dtype = DTYPE_NONE}};
    struct op_call forward = {.op = call->op, .in = forward_in, .n_in = 3, .attr = call->attr};
    struct op_result expected;
    enum dj_error error = infer_convolution(&forward, &expected, fault);
    if (error != DJ_OK)
        return error;
    if (!tensor_same_sizes(&expected.out[0], &call->in[0]))
        return fault_gradient(call, fault);
    enum memory_format format = layout_suggest(&call->in[1]);
    if (format == FORMAT_CONTIGUOUS)
        format = layout_suggest(&call->in[2]);
    copy_sizes(&ret->out[0], &call->in[call->op->number == OP_CONVOLUTION_BACKWARD_INPUT ? 1 : 2]);
    return layout_format(&ret->out[0], format) ? DJ_OK : fault_large(call, fault);
}

static enum dj_error pool_backward(const struct op_call *call, enum op forward_op, infer_function infer, struct op_result *ret,
                                   struct fault *fault)
{
    const struct tensor_meta *in = &call->in[1];
    struct op_call forward = {.op = op_info(forward_op), .in = in, .n_in = 1, .attr = call->attr};
    struct op_result expected;
    enum dj_error error = infer(&forward, &expected, fault);
    if (error != DJ_OK)
        return error;
    for (uint32_t i = 0; i < call->n_in; i += 2)    // the gradient, and the indices where there are
        if (!tensor_same_sizes(&expected.out[0], &call->in[i]))
            return fault_gradient(call, fault);
    copy_sizes(&ret->out[0], in);
    return layout_format(&ret->out[0], layout_suggest(in)) ? DJ_OK : fault_large(call, fault);
}

INFER(max_pool2d_backward)
{
    if (call->in[2].dtype != DTYPE_I64)
        return fault_set(fault, DJ_E_DTYPE, "%s: indices must be int64", call->op->name);
    return pool_backward(call, OP_MAX_POOL2D, infer_max_pool2d, ret, fault);
}

INFER(avg_pool2d_backward)
{
    return pool_backward(call, OP_AVG_POOL2D, infer_avg_pool2d, ret, fault);
}

INFER(adaptive_pool2d_backward)
{
    const struct tensor_meta *grad = &call->in[0], *in = &call->in[1];
    if ((in->rank != 3 && in->rank != 4) || grad->rank != in->rank)
        return fault_shape(call, "expected a 3-D or 4-D input", fault);
    for (uint32_t i = 0; i < in->rank; i++)
        if (i < in->rank - 2 ? grad->size[i] != in->size[i] : grad->size[i] == 0 || in->size[i] == 0)
            return fault_gradient(call, fault);
    copy_sizes(&ret->out[0], in);
    return layout_format(&ret->out[0], layout_suggest(in)) ? DJ_OK : fault_large(call, fault);
}
