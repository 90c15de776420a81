// Creation: tensors that come from sizes and numbers alone, and random ones. All are contiguous unless made like an input.

#include "core/ops/infer.h"

#include <inttypes.h>
#include <math.h>

// full, eye, uniform, normal, bernoulli, randint: the sizes are the first attribute.
INFER(create)
{
    const struct attr *sizes = &call->attr[0];
    struct tensor_meta *out = &ret->out[0];
    if (sizes->count > DJ_RANK_MAX)
        return fault_set(fault, DJ_E_RANK, "%s: %u dimensions; at most %d are taken", call->op->name, sizes->count, DJ_RANK_MAX);
    if (call->op->number == OP_EYE && sizes->count != 2)
        return fault_set(fault, DJ_E_SHAPE, "EYE: takes 2 sizes, not %u", sizes->count);
    if (call->op->number == OP_RANDINT && call->attr[1].i >= call->attr[2].i)
        return fault_set(fault, DJ_E_BINDINGS_INVALID,
                         "RANDINT: expects 'from' to be less than 'to', but got from=%" PRId64 " >= to=%" PRId64, call->attr[1].i,
                         call->attr[2].i);
    out->rank = sizes->count;
    for (uint32_t i = 0; i < out->rank; i++) {
        if (sizes->ints[i] < 0)
            return fault_set(fault, DJ_E_SHAPE, "%s: Trying to create tensor with negative dimension %" PRId64, call->op->name,
                             sizes->ints[i]);
        out->size[i] = sizes->ints[i];
    }
    return layout_contiguous(out) ? DJ_OK : fault_large(call, fault);
}

// A bound as PyTorch converts it for an int64 result: towards zero. False when it does not fit.
static bool whole(const struct attr *attr, int64_t *ret)
{
    if (attr->kind == ATTR_FLOAT) {
        if (!(fabs(attr->f) < 0x1p63))
            return false;
        *ret = (int64_t)attr->f;
    } else {
        *ret = attr->i;
    }
    return true;
}

// ceil((end - start) / step); for int64 in integers, after each was converted to one.
INFER(arange)
{
    const struct attr *start = &call->attr[0], *end = &call->attr[1], *step = &call->attr[2];
    double first = attr_number(start), last = attr_number(end), by = attr_number(step);
    if (!isfinite(first) || !isfinite(last) || !isfinite(by) || by == 0 || (by > 0 ? last < first : last > first))
        return fault_set(fault, DJ_E_SHAPE, "ARANGE: the bounds %g and %g are not finite or inconsistent with the step %g", first,
                         last, by);

    int64_t count, range, from, to, stride;
    if (ret->out[0].dtype == DTYPE_I64) {
        if (!whole(start, &from) || !whole(end, &to) || !whole(step, &stride))
            return fault_large(call, fault);
        if (stride == 0)
            return fault_set(fault, DJ_E_SHAPE, "ARANGE: step must be nonzero");
        if (__builtin_sub_overflow(to, from, &range) || !i64_add(range, stride, &range) ||
            !i64_add(range, stride > 0 ? -1 : 1, &range))
            return fault_large(call, fault);
        if (stride == -1 && range == INT64_MIN)
            return fault_large(call, fault);
        count = range / stride;
    } else {
        double wanted = ceil((last - first) / by);
        if (!(wanted >= 0 && wanted <= (double)TENSOR_COUNT_MAX))
            return fault_large(call, fault);
        count = (int64_t)wanted;
    }
    if (count < 0)
        count = 0;
    ret->out[0].rank = 1;
    ret->out[0].size[0] = count;
    return layout_contiguous(&ret->out[0]) ? DJ_OK : fault_large(call, fault);
}

INFER(multinomial)
{
    const struct tensor_meta *in = &call->in[0];
    struct tensor_meta *out = &ret->out[0];
    int64_t count = call->attr[0].i;
    bool replaces = call->attr[1].i != 0;
    if (in->rank < 1 || in->rank > 2)
        return fault_shape(call, "prob_dist must be 1 or 2 dim", fault);
    if (count <= 0)
        return fault_shape(call, "cannot sample n_sample <= 0 samples", fault);
    if (!replaces && count > in->size[in->rank - 1])
        return fault_shape(call, "cannot sample n_sample > prob_dist.size(-1) samples without replacement", fault);
    out->rank = in->rank;
    out->size[0] = in->size[0];
    out->size[in->rank - 1] = count;
    return layout_contiguous(out) ? DJ_OK : fault_large(call, fault);
}

// The kept values, and the mask that says which were.
INFER(dropout)
{
    const struct tensor_meta *in = &call->in[0];
    enum dj_error error = DJ_OK;
    if (tensor_count(in) == 0)
        copy_geometry(&ret->out[0], in);
    else
        error = iter_output(&in, 1, &ret->out[0], fault);
    if (error == DJ_OK)
        copy_geometry(&ret->out[1], &ret->out[0]);
    return error;
}
