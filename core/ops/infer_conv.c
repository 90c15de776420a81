// Windows: convolution and pooling. Both follow channels_last where their inputs suggest it.

#include "core/ops/infer.h"

#include <inttypes.h>

// PyTorch's kernels take C ints; so bounded, window arithmetic stays within 64 bits.
#define WINDOW_MAX INT32_MAX

// A list with a value for each spatial dimension, or one for all. False when it is neither, or a value is below `least`.
static bool spread(const struct attr *attr, uint32_t dims, int64_t least, int64_t *ret)
{
    if (attr->count != dims && attr->count != 1)
        return false;
    for (uint32_t i = 0; i < dims; i++) {
        ret[i] = attr->ints[attr->count == 1 ? 0 : i];
        if (ret[i] < least || ret[i] > WINDOW_MAX)
            return false;
    }
    return true;
}

// Convolution ------------------------------------------------------------------------------------------------------------

enum { SPATIAL_MAX = 3 };

struct window {
    int64_t stride[SPATIAL_MAX], padding[SPATIAL_MAX], dilation[SPATIAL_MAX], output_padding[SPATIAL_MAX];
};

static enum dj_error check_channels(const struct op_call *call, bool transposed, int64_t groups, struct fault *fault)
{
    const struct tensor_meta *in = &call->in[0], *weight = &call->in[1], *bias = &call->in[2];
    if (groups <= 0)
        return fault_shape(call, "non-positive groups is not supported", fault);
    if (weight->size[0] < groups || weight->size[0] % groups != 0)
        return fault_shape(call, "the weight's dimension 0 must be a multiple of groups", fault);
    int64_t out = weight->size[0], wanted = 0;
    if (transposed ? !i64_mul(weight->size[1], groups, &out) : !i64_mul(weight->size[1], groups, &wanted))
        return fault_large(call, fault);
    if (in->size[1] != (transposed ? weight->size[0] : wanted))
        return fault_shape(call, "the input does not have as many channels as the weight takes", fault);
    if (bias->dtype != DTYPE_NONE && (bias->rank != 1 || bias->size[0] != out))
        return fault_shape(call, "the bias must be 1-D with an element for each output channel", fault);
    return DJ_OK;
}

static enum dj_error conv_size(const struct op_call *call, const struct window *w, bool transposed, uint32_t i, int64_t *ret,
                               struct fault *fault)
{
    int64_t in = call->in[0].size[2 + i], kernel = call->in[1].size[2 + i];
    if (kernel < 1 || kernel > WINDOW_MAX)
        return fault_shape(call, "kernel size should be greater than zero", fault);
    int64_t reach = w->dilation[i] * (kernel - 1) + 1;
    if (!transposed) {
        if (in + 2 * w->padding[i] < reach)
            return fault_shape(call, "Kernel size can't be greater than actual input size", fault);
        *ret = (in + 2 * w->padding[i] - reach) / w->stride[i] + 1;
        return DJ_OK;
    }
    if (w->output_padding[i] >= w->stride[i] && w->output_padding[i] >= w->dilation[i])
        return fault_shape(call, "output padding must be smaller than either stride or dilation", fault);
    if (!i64_mul(in - 1, w->stride[i], ret) || !i64_add(*ret, reach - 2 * w->padding[i] + w->output_padding[i], ret))
        return fault_large(call, fault);
    return *ret >= 0 ? DJ_OK : fault_shape(call, "Calculated output size is too small", fault);
}

INFER(convolution)
{
    const struct tensor_meta *in = &call->in[0], *weight = &call->in[1];
    struct tensor_meta *out = &ret->out[0];
    bool transposed = call->attr[3].i != 0;
    struct window window;
    if (in->rank < 3 || in->rank > 2 + SPATIAL_MAX || weight->rank != in->rank)
        return fault_shape(call, "input and weight must both be 3-D, 4-D or 5-D", fault);
    uint32_t dims = in->rank - 2;
    if (!spread(&call->attr[0], dims, 1, window.stride) || !spread(&call->attr[1], dims, 0, window.padding) ||
        !spread(&call->attr[2], dims, 1, window.dilation) || !spread(&call->attr[4], dims, 0, window.output_padding))
        return fault_shape(
            call, "stride and dilation must be positive, padding not negative, each with one value or one a dimension", fault);
    enum dj_error error = check_channels(call, transposed, call->attr[5].i, fault);
    if (error != DJ_OK)
        return error;

    out->rank = in->rank;
    out->size[0] = in->size[0];
    out->size[1] = transposed ? weight->size[1] * call->attr[5].i : weight->size[0];
    for (uint32_t i = 0; i < dims; i++) {
        error = conv_size(call, &window, transposed, i, &out->size[2 + i], fault);
        if (error != DJ_OK)
            return error;
    }
    enum memory_format format = layout_suggest(in);
    if (format == FORMAT_CONTIGUOUS)
        format = layout_suggest(weight);
    return layout_format(out, format) ? DJ_OK : fault_large(call, fault);
}

// Pooling -----------------------------------------------------------------------------------------------------------------

// A quotient rounded down.
static int64_t div_down(int64_t a, int64_t b)
{
    return a / b - (a % b != 0 && (a ^ b) < 0);
}

// With `ceils`, a last window that starts beyond the input and its left padding does not count.
static int64_t pool_size(int64_t in, int64_t kernel, int64_t padding, int64_t stride, int64_t dilation, bool ceils)
{
    int64_t out = div_down(in + 2 * padding - dilation * (kernel - 1) - 1 + (ceils ? stride - 1 : 0), stride) + 1;
    if (ceils && (out - 1) * stride >= in + padding)
        out--;
    return out;
}

static enum dj_error pool2d(const struct op_call *call, const struct attr *dilation_attr, bool ceils, struct op_result *ret,
                            struct fault *fault)
{
    const struct tensor_meta *in = &call->in[0];
    const struct attr *stride_attr = call->attr[1].count == 0 ? &call->attr[0] : &call->attr[1];
    int64_t kernel[2], stride[2], padding[2], dilation[2] = {1, 1};
    if (!spread(&call->attr[0], 2, 1, kernel) || !spread(stride_attr, 2, 1, stride) || !spread(&call->attr[2], 2, 0, padding) ||
        (dilation_attr != NULL && !spread(dilation_attr, 2, 1, dilation)))
        return fault_shape(
            call, "kernel, stride and dilation must be positive, padding not negative, each with one or two values", fault);
    if (in->rank != 3 && in->rank != 4)
        return fault_shape(call, "expected a 3-D or 4-D input", fault);
    for (uint32_t i = in->rank == 4; i < in->rank; i++)
        if (in->size[i] == 0)
            return fault_shape(call, "only the batch may be empty", fault);
    enum memory_format format = layout_suggest(in);
    for (uint32_t k = 0; k < call->op->outputs; k++) {
        struct tensor_meta *out = &ret->out[k];
        copy_sizes(out, in);
        for (uint32_t i = 0; i < 2; i++) {
            if (padding[i] > kernel[i] / 2)
                return fault_shape(call, "pad should be at most half of effective kernel size", fault);
            int64_t *size = &out->size[in->rank - 2 + i];
            *size = pool_size(*size, kernel[i], padding[i], stride[i], dilation[i], ceils);
            if (*size < 1)
                return fault_shape(call, "the output would be too small", fault);
        }
        if (!layout_format(out, format))
            return fault_large(call, fault);
    }
    return DJ_OK;
}

INFER(max_pool2d)
{
    return pool2d(call, &call->attr[3], call->attr[4].i != 0, ret, fault);
}

INFER(avg_pool2d)
{
    if (attr_is_present(&call->attr[5]) && call->attr[5].i == 0)
        return fault_set(fault, DJ_E_BINDINGS_INVALID, "AVG_POOL2D: divisor must be not zero");
    return pool2d(call, NULL, call->attr[3].i != 0, ret, fault);
}

INFER(adaptive_pool2d)
{
    const struct tensor_meta *in = &call->in[0];
    struct tensor_meta *out = &ret->out[0];
    const struct attr *size = &call->attr[0];
    if (size->count != 2 || size->ints[0] < 0 || size->ints[1] < 0)
        return fault_shape(call, "output_size must be two sizes that are not negative", fault);
    if (in->rank != 3 && in->rank != 4)
        return fault_shape(call, "expected a 3-D or 4-D input", fault);
    for (uint32_t i = in->rank - 2; i < in->rank; i++)
        if (in->size[i] == 0)
            return fault_shape(call, "expected input to have non-zero size for non-batch dimensions", fault);
    copy_sizes(out, in);
    out->size[in->rank - 2] = size->ints[0];
    out->size[in->rank - 1] = size->ints[1];
    return layout_format(out, layout_suggest(in)) ? DJ_OK : fault_large(call, fault);
}
