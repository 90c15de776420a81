// Neural network ops without windows: softmax, norms, attention.

#include "core/ops/infer.h"

#include <inttypes.h>

INFER(softmax)
{
    uint32_t dim = 0;
    if (!dim_wrap(call->attr[0].i, call->in[0].rank, &dim))
        return fault_dim(call, call->attr[0].i, call->in[0].rank, fault);
    return infer_like_contiguous(call, ret, fault);
}

static bool is_vector_of(const struct tensor_meta *meta, int64_t size)
{
    return meta->dtype == DTYPE_NONE || (meta->rank == 1 && meta->size[0] == size);
}

// The normalised values, and mean and 1 / std of each row in at least float32: sizes of the rows, then 1 for every normalised dim.
INFER(layer_norm)
{
    const struct tensor_meta *in = &call->in[0];
    const struct attr *shape = &call->attr[0];
    if (shape->count == 0)
        return fault_shape(call, "Expected normalized_shape to be at least 1-dimensional", fault);
    if (shape->count > in->rank)
        return fault_shape(call, "normalized_shape has more dimensions than the input", fault);
    uint32_t rows = in->rank - shape->count;
    for (uint32_t i = 0; i < shape->count; i++) {
        if (shape->ints[i] != in->size[rows + i])
            return fault_shape(call, "the input's last dimensions are not normalized_shape", fault);
        for (uint32_t k = 1; k <= 2; k++)
            if (call->in[k].dtype != DTYPE_NONE && (call->in[k].rank != shape->count || call->in[k].size[i] != shape->ints[i]))
                return fault_shape(call, "Expected weight and bias to be of the same shape as normalized_shape", fault);
    }
    for (uint32_t k = 1; k <= 2; k++) {
        ret->out[k].rank = in->rank;
        for (uint32_t i = 0; i < in->rank; i++)
            ret->out[k].size[i] = i < rows ? in->size[i] : 1;
        if (!layout_contiguous(&ret->out[k]))
            return fault_large(call, fault);
    }
    return infer_like_contiguous(call, ret, fault);
}

// Inference only: statistics are inputs. Contiguous, or channels_last where the input is or suggests it.
INFER(batch_norm)
{
    const struct tensor_meta *in = &call->in[0];
    if (in->rank < 2)
        return fault_shape(call, "expected an input of at least 2 dimensions", fault);
    for (uint32_t i = 1; i < 5; i++)
        if (!is_vector_of(&call->in[i], in->size[1]))
            return fault_shape(call, "weight, bias, mean and var must have as many elements as the input has channels", fault);
    copy_sizes(&ret->out[0], in);
    enum memory_format format = tensor_is_contiguous(in)         ? FORMAT_CONTIGUOUS
                                : layout_is_channels_last(in)    ? FORMAT_CHANNELS_LAST
                                : layout_is_channels_last_3d(in) ? FORMAT_CHANNELS_LAST_3D
                                                                 : layout_suggest(in);
    return layout_format(&ret->out[0], format) ? DJ_OK : fault_large(call, fault);
}

// PyTorch makes the input contiguous in the format that it suggests before it comes here, and the output has it too.
INFER(group_norm)
{
    const struct tensor_meta *in = &call->in[0];
    int64_t n = call->attr[0].i, c = call->attr[1].i, hxw = call->attr[2].i, group = call->attr[3].i, count = 1;
    if (n < 0 || c < 0 || hxw < 0 || !i64_mul(n, c, &count) || !i64_mul(count, hxw, &count) || count != tensor_count(in))
        return fault_shape(call, "N * C * HxW must be the input's element count", fault);
    if (group <= 0 || c % group != 0)
        return fault_set(fault, DJ_E_SHAPE,
                         "GROUP_NORM: expected number of channels %" PRId64 " to be divisible by num_groups %" PRId64, c, group);
    if (!is_vector_of(&call->in[1], c) || !is_vector_of(&call->in[2], c))
        return fault_shape(call, "weight and bias must be vectors of C elements", fault);
    for (uint32_t k = 1; k <= 2; k++) {
        ret->out[k].rank = 2;
        ret->out[k].size[0] = n;
        ret->out[k].size[1] = group;
        if (!layout_contiguous(&ret->out[k]))
            return fault_large(call, fault);
    }
    copy_sizes(&ret->out[0], in);
    return layout_format(&ret->out[0], layout_suggest(in)) ? DJ_OK : fault_large(call, fault);
}

// Dense strides in the order of the query's, largest outermost, ties in index order: PyTorch's alloc_with_matching_layout.
static bool match_layout(struct tensor_meta *out, const struct tensor_meta *query)
{
    uint8_t order[DJ_RANK_MAX];
    for (uint32_t i = 0; i < query->rank; i++) {
        uint32_t at = i;
        for (; at > 0 && query->stride[order[at - 1]] < query->stride[i]; at--)
            order[at] = order[at - 1];
        order[at] = (uint8_t)i;
    }
    int64_t stride = 1;
    for (uint32_t i = query->rank; i-- > 0;) {
        out->stride[order[i]] = stride;
        if (out->size[order[i]] > 1 && !i64_mul(stride, out->size[order[i]], &stride))
            return false;
    }
    return stride <= TENSOR_COUNT_MAX;
}

static enum dj_error check_mask(const struct op_call *call, int64_t keys, struct fault *fault)
{
    const struct tensor_meta *query = &call->in[0], *mask = &call->in[3];
    if (mask->dtype == DTYPE_NONE)
        return DJ_OK;
    if (mask->dtype != DTYPE_BOOL && mask->dtype != query->dtype)
        return fault_set(fault, DJ_E_DTYPE, "SDPA: expected attn_mask dtype to be bool or to match query dtype, but got %s",
                         dtype_name(mask->dtype));
    bool fits = mask->rank <= query->rank;
    for (uint32_t i = 0; fits && i < mask->rank; i++) {
        uint32_t d = query->rank - mask->rank + i;
        int64_t size = d == query->rank - 1 ? keys : query->size[d];
        fits = mask->size[i] == 1 || mask->size[i] == size;
    }
    return fits ? DJ_OK : fault_shape(call, "the mask does not broadcast to [batch, heads, queries, keys]", fault);
}

// query [B, H, Lq, D], key [B, H, Lk, D], value [B, H, Lk, Dv], or all of them without B. Heads must be equal in number: grouped
// queries are repeated before. Outputs [B, H, Lq, Dv] in the order of the query's strides, and logsumexp [B, H, Lq] in float32.
INFER(sdpa)
{
    const struct tensor_meta *query = &call->in[0], *key = &call->in[1], *value = &call->in[2];
    uint32_t rank = query->rank;
    if ((rank != 3 && rank != 4) || key->rank != rank || value->rank != rank)
        return fault_shape(call, "query, key and value must all be 4-D, or all 3-D", fault);
    for (uint32_t i = 0; i < rank - 2; i++)
        if (query->size[i] != key->size[i] || query->size[i] != value->size[i])
            return fault_shape(call, "query, key and value must have the same batch and heads", fault);
    if (query->size[rank - 1] != key->size[rank - 1] || key->size[rank - 2] != value->size[rank - 2])
        return fault_shape(call, "query and key must agree on the head's width, key and value on the length", fault);
    enum dj_error error = check_mask(call, key->size[rank - 2], fault);
    if (error != DJ_OK)
        return error;

    struct tensor_meta *out = &ret->out[0], *sums = &ret->out[1];
    if (query->size[rank - 1] == value->size[rank - 1]) {
        layout_preserve(out, query);
    } else {
        copy_sizes(out, query);
        out->size[rank - 1] = value->size[rank - 1];
        if (!match_layout(out, query))
            return fault_large(call, fault);
    }
    sums->rank = 3;
    sums->size[0] = rank == 4 ? query->size[0] : 1;
    sums->size[1] = query->size[rank - 3];
    sums->size[2] = query->size[rank - 2];
    return layout_contiguous(sums) ? DJ_OK : fault_large(call, fault);
}
