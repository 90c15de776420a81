// Pointwise ops and copies: broadcasting, with the strides that TensorIterator gives, or those of the first input.

#include "core/ops/infer.h"

INFER(pointwise)
{
    const struct tensor_meta *in[3] = {&call->in[0], &call->in[1], &call->in[2]};
    assert(call->n_in >= 1 && call->n_in <= 3);
    return iter_output(in, call->n_in, &ret->out[0], fault);
}

// Comparisons with a number, rsub: TensorIterator sees the number as a second operand of rank 0, which rules its fast set-ups out.
INFER(with_number)
{
    static const struct tensor_meta number = {.dtype = DTYPE_F64, .rank = 0};
    const struct tensor_meta *in[2] = {&call->in[0], &number};
    return iter_output(in, 2, &ret->out[0], fault);
}

// clamp, clamp_min, pow with a number: converts the input to the result dtype first, which makes it dense.
INFER(converted)
{
    struct tensor_meta converted;
    const struct tensor_meta *in = &call->in[0];
    if (in->dtype != ret->out[0].dtype) {
        layout_preserve(&converted, in);
        in = &converted;
    }
    return iter_output(&in, 1, &ret->out[0], fault);
}

// masked_fill(self, mask, value): self and mask broadcast; the result is contiguous (it is a contiguous clone, then filled).
INFER(masked_fill)
{
    const struct tensor_meta *in[2] = {&call->in[0], &call->in[1]};
    if (call->n_in == 3 && call->in[2].rank != 0)
        return fault_shape(call, "masked_fill only supports a 0-dimensional value tensor", fault);
    enum dj_error error = iter_output(in, 2, &ret->out[0], fault);
    if (error == DJ_OK && !layout_contiguous(&ret->out[0]))
        return fault_large(call, fault);
    return error;
}

// clone and _to_copy. Absent format: preserve.
INFER(copy)
{
    const struct attr *attr = &call->attr[0];
    enum memory_format format = attr_is_present(attr) ? (enum memory_format)attr->i : FORMAT_PRESERVE;
    if (format == FORMAT_PRESERVE) {
        layout_preserve(&ret->out[0], &call->in[0]);
        return DJ_OK;
    }
    if ((format == FORMAT_CHANNELS_LAST && call->in[0].rank != 4) || (format == FORMAT_CHANNELS_LAST_3D && call->in[0].rank != 5))
        return fault_shape(call, "required rank 4 tensor to use channels_last format (5 for channels_last_3d)", fault);
    copy_sizes(&ret->out[0], &call->in[0]);
    return layout_format(&ret->out[0], format) ? DJ_OK : fault_large(call, fault);
}

// Whether b's shape expands to a's.
static bool broadcasts_into(const struct tensor_meta *a, const struct tensor_meta *b)
{
    if (b->rank > a->rank)
        return false;
    for (uint32_t i = 0; i < b->rank; i++) {
        int64_t mine = a->size[a->rank - (b->rank - i)];
        if (b->size[i] != 1 && b->size[i] != mine)
            return false;
    }
    return true;
}

// fill, copy into, hardtanh: a new value with the geometry of the first input, made dense where it is not.
INFER(like_dense)
{
    if (call->op->number == OP_FILL_TENSOR && call->in[1].rank != 0)
        return fault_shape(call, "fill only supports 0-dimension value tensor", fault);
    if (call->op->number == OP_COPY_INTO && !broadcasts_into(&call->in[0], &call->in[1]))
        return fault_shape(call, "the source does not broadcast to the destination", fault);
    layout_preserve(&ret->out[0], &call->in[0]);
    return DJ_OK;
}

INFER(like_contiguous)
{
    copy_sizes(&ret->out[0], &call->in[0]);
    return layout_contiguous(&ret->out[0]) ? DJ_OK : fault_large(call, fault);
}
