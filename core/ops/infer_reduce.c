// Reductions, scans and sorts. PyTorch makes the results of reductions contiguous, whatever the input's strides.

#include "core/ops/infer.h"

#include <inttypes.h>

static enum dj_error fault_empty(const struct op_call *call, struct fault *fault)
{
    return fault_shape(call, "the reduction has no identity, so its dimension must not be empty", fault);
}

// max, min, argmax, argmin, amax, amin have no value for no elements.
static bool has_identity(const struct op_call *call)
{
    switch ((enum op)call->op->number) {
    case OP_MAX:
    case OP_MIN:
    case OP_MAX_DIM:
    case OP_MIN_DIM:
    case OP_ARGMAX:
    case OP_ARGMIN:
    case OP_AMAX:
    case OP_AMIN: return false;
    default: return true;
    }
}

INFER(reduce_all)
{
    if (!has_identity(call) && tensor_count(&call->in[0]) == 0)
        return fault_empty(call, fault);
    ret->out[0].rank = 0;
    return DJ_OK;
}

static void reduce_sizes(struct tensor_meta *out, const struct tensor_meta *in, uint32_t mask, bool keeps)
{
    out->rank = 0;
    for (uint32_t i = 0; i < in->rank; i++) {
        if (!(mask >> i & 1))
            out->size[out->rank++] = in->size[i];
        else if (keeps)
            out->size[out->rank++] = 1;
    }
}

// `dim` or `dims` and `keepdim`, by their initial: rows put other attributes before and between.
static const struct attr *attr_of(const struct op_call *call, char initial)
{
    for (uint32_t i = 0; i < call->op->args; i++)
        if (call->op->arg[i].name[0] == initial && call->op->arg[i].attr >= 0)
            return &call->attr[call->op->arg[i].attr];
    assert(!"a reduction has dims and keepdim");
    return NULL;
}

INFER(reduce)
{
    const struct tensor_meta *in = &call->in[0];
    const struct attr *dims = attr_of(call, 'd'), *keepdim = attr_of(call, 'k');
    uint32_t mask = (1u << in->rank) - 1, dim = 0;
    if (dims->kind == ATTR_INT) {
        if (!dim_wrap(dims->i, in->rank, &dim))
            return fault_dim(call, dims->i, in->rank, fault);
        mask = in->rank == 0 ? 0 : 1u << dim;
    } else {
        enum dj_error error = dims_mask(call, dims, in->rank, &mask, fault);
        if (error != DJ_OK)
            return error;
    }
    for (uint32_t i = 0; i < in->rank && !has_identity(call); i++)
        if ((mask >> i & 1) && in->size[i] == 0)
            return fault_empty(call, fault);
    for (uint32_t k = 0; k < call->op->outputs; k++) {
        reduce_sizes(&ret->out[k], in, mask, keepdim->i != 0);
        if (!layout_contiguous(&ret->out[k]))
            return fault_large(call, fault);
    }
    return DJ_OK;
}

// cumsum
INFER(scan)
{
    uint32_t dim = 0;
    if (!dim_wrap(call->attr[0].i, call->in[0].rank, &dim))
        return fault_dim(call, call->attr[0].i, call->in[0].rank, fault);
    return infer_like_contiguous(call, ret, fault);
}

INFER(isin)
{
    return infer_like_contiguous(call, ret, fault);
}

INFER(topk)
{
    const struct tensor_meta *in = &call->in[0];
    int64_t k = call->attr[0].i;
    uint32_t dim = 0;
    if (!dim_wrap(call->attr[1].i, in->rank, &dim))
        return fault_dim(call, call->attr[1].i, in->rank, fault);
    if (k < 0 || k > (in->rank == 0 ? 1 : in->size[dim]))
        return fault_set(fault, DJ_E_INDEX, "TOPK: selected index k %" PRId64 " out of range", k);
    for (uint32_t i = 0; i < 2; i++) {
        copy_sizes(&ret->out[i], in);
        if (in->rank > 0)
            ret->out[i].size[dim] = k;
        if (!layout_contiguous(&ret->out[i]))
            return fault_large(call, fault);
    }
    return DJ_OK;
}

INFER(sort)
{
    uint32_t dim = 0;
    if (!dim_wrap(call->attr[0].i, call->in[0].rank, &dim))
        return fault_dim(call, call->attr[0].i, call->in[0].rank, fault);
    layout_preserve(&ret->out[0], &call->in[0]);
    layout_preserve(&ret->out[1], &call->in[0]);
    return DJ_OK;
}
