// Matrix products. All results are contiguous.

#include "core/ops/infer.h"

static enum dj_error make(const struct op_call *call, struct tensor_meta *out, const int64_t *size, uint32_t rank,
                          struct fault *fault)
{
    out->rank = rank;
    for (uint32_t i = 0; i < rank; i++)
        out->size[i] = size[i];
    return layout_contiguous(out) ? DJ_OK : fault_large(call, fault);
}

static bool expands_to(const struct tensor_meta *in, const int64_t *size, uint32_t rank)
{
    if (in->rank > rank)
        return false;
    for (uint32_t i = 0; i < in->rank; i++)
        if (in->size[i] != 1 && in->size[i] != size[rank - in->rank + i])
            return false;
    return true;
}

// a [m, k] x b [k, n], plus `bias` where there is one.
static enum dj_error matrices(const struct op_call *call, const struct tensor_meta *bias, const struct tensor_meta *a,
                              const struct tensor_meta *b, struct op_result *ret, struct fault *fault)
{
    if (a->rank != 2 || b->rank != 2)
        return fault_shape(call, "both factors must be 2-D", fault);
    if (a->size[1] != b->size[0])
        return fault_shape(call, "mat1 and mat2 shapes cannot be multiplied", fault);
    int64_t size[2] = {a->size[0], b->size[1]};
    if (bias != NULL && !expands_to(bias, size, 2))
        return fault_shape(call, "the added tensor does not expand to the product's shape", fault);
    return make(call, &ret->out[0], size, 2, fault);
}

static enum dj_error batches(const struct op_call *call, const struct tensor_meta *bias, const struct tensor_meta *a,
                             const struct tensor_meta *b, struct op_result *ret, struct fault *fault)
{
    if (a->rank != 3 || b->rank != 3)
        return fault_shape(call, "both batches must be 3-D", fault);
    if (a->size[0] != b->size[0] || a->size[2] != b->size[1])
        return fault_shape(call, "the batches' sizes do not fit", fault);
    int64_t size[3] = {a->size[0], a->size[1], b->size[2]};
    if (bias != NULL && !expands_to(bias, size, 3))
        return fault_shape(call, "the added tensor does not expand to the product's shape", fault);
    return make(call, &ret->out[0], size, 3, fault);
}

INFER(mm)
{
    return matrices(call, NULL, &call->in[0], &call->in[1], ret, fault);
}
INFER(addmm)
{
    return matrices(call, &call->in[0], &call->in[1], &call->in[2], ret, fault);
}
INFER(bmm)
{
    return batches(call, NULL, &call->in[0], &call->in[1], ret, fault);
}
INFER(baddbmm)
{
    return batches(call, &call->in[0], &call->in[1], &call->in[2], ret, fault);
}

INFER(dot)
{
    if (call->in[0].rank != 1 || call->in[1].rank != 1 || call->in[0].size[0] != call->in[1].size[0])
        return fault_shape(call, "1D tensors of one size expected", fault);
    return make(call, &ret->out[0], NULL, 0, fault);
}

INFER(mv)
{
    const struct tensor_meta *matrix = &call->in[0], *vector = &call->in[1];
    if (matrix->rank != 2 || vector->rank != 1 || matrix->size[1] != vector->size[0])
        return fault_shape(call, "a 2-D and a 1-D tensor of fitting sizes expected", fault);
    return make(call, &ret->out[0], matrix->size, 1, fault);
}
