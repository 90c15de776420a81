// Joining, indexing and scattering. Index values are data: kernels check them; here are only shapes.

#include "core/ops/infer.h"

#include <inttypes.h>

// cat skips tensors of shape [0], whatever the shape of the others: PyTorch's oldest courtesy.
static bool is_skipped(const struct tensor_meta *meta)
{
    return meta->rank == 1 && meta->size[0] == 0;
}

// channels_last only when every input suggests it.
static enum memory_format cat_format(const struct op_call *call)
{
    enum memory_format format = layout_suggest(&call->in[0]);
    for (uint32_t i = 1; i < call->n_in && format != FORMAT_CONTIGUOUS; i++)
        if (layout_suggest(&call->in[i]) != format)
            format = FORMAT_CONTIGUOUS;
    return format;
}

INFER(cat)
{
    struct tensor_meta *out = &ret->out[0];
    uint32_t dim = 0, first = UINT32_MAX;
    int64_t total = 0;
    if (call->n_in == 0)
        return fault_set(fault, DJ_E_SHAPE, "CAT: expected a non-empty list of tensors");
    for (uint32_t i = 0; i < call->n_in; i++) {
        const struct tensor_meta *in = &call->in[i];
        if (in->rank == 0)
            return fault_set(fault, DJ_E_SHAPE, "CAT: zero-dimensional tensor (at position %" PRIu32 ") cannot be concatenated",
                             i);
        if (is_skipped(in))
            continue;
        if (first == UINT32_MAX) {
            first = i;
            if (!dim_wrap(call->attr[0].i, in->rank, &dim))
                return fault_dim(call, call->attr[0].i, in->rank, fault);
            copy_sizes(out, in);
        }
        if (in->rank != out->rank)
            return fault_set(fault, DJ_E_SHAPE, "CAT: tensors must have same number of dimensions: got %" PRIu32 " and %" PRIu32,
                             out->rank, in->rank);
        for (uint32_t d = 0; d < in->rank; d++)
            if (d != dim && in->size[d] != out->size[d])
                return fault_set(fault, DJ_E_SHAPE,
                                 "CAT: sizes of tensors must match except in dimension %" PRIu32 ": expected %" PRId64
                                 " but got %" PRId64 " for tensor number %" PRIu32 " in the list",
                                 dim, out->size[d], in->size[d], i);
        if (!i64_add(total, in->size[dim], &total))
            return fault_large(call, fault);
    }
    if (first == UINT32_MAX) {
        out->rank = 1;
        dim = 0;
    }
    out->size[dim] = total;
    enum memory_format format = cat_format(call);
    return layout_format(out, format) ? DJ_OK : fault_large(call, fault);
}

INFER(embedding)
{
    const struct tensor_meta *weight = &call->in[0], *index = &call->in[1];
    struct tensor_meta *out = &ret->out[0];
    if (weight->rank != 2)
        return fault_shape(call, "'weight' must be 2-D", fault);
    if (index->rank == DJ_RANK_MAX)
        return fault_set(fault, DJ_E_RANK, "EMBEDDING: the result would have %d dimensions; at most %d are taken",
                         DJ_RANK_MAX + 1, DJ_RANK_MAX);
    copy_sizes(out, index);
    out->size[out->rank++] = weight->size[1];
    return layout_contiguous(out) ? DJ_OK : fault_large(call, fault);
}

// Advanced indexing, prepared as ATen's AdvancedIndex does -----------------------------------------------------------------

struct indexing {
    struct tensor_meta operand[ITER_OPERANDS_MAX];    // the restrided source, then the indices, aligned to the result
    uint32_t operands;
};

// The broadcast shape of the indices; strides are of no use.
static enum dj_error index_shape(const struct op_call *call, uint32_t n, struct tensor_meta *shape, struct fault *fault)
{
    const struct tensor_meta *defined[DJ_RANK_MAX];
    uint32_t count = 0;
    for (uint32_t i = 0; i < n; i++) {
        const struct tensor_meta *index = &call->in[1 + i];
        if (index->dtype == DTYPE_NONE)
            continue;
        if (index->dtype == DTYPE_BOOL || index->dtype == DTYPE_U8)
            return fault_set(fault, DJ_E_DTYPE, "%s: a mask's shape depends on data; it is turned into indices before",
                             call->op->name);
        if (index->dtype != DTYPE_I64 && index->dtype != DTYPE_I32)
            return fault_set(fault, DJ_E_DTYPE, "%s: tensors used as indices must be long or int, not %s", call->op->name,
                             dtype_name(index->dtype));
        defined[count++] = index;
    }
    if (count == 0)
        return fault_set(fault, DJ_E_SHAPE, "%s: at least one index must be given", call->op->name);
    return iter_output(defined, count, shape, fault);
}

// One index as an operand: broadcast to `shape`, with dimensions of size 1 before and after.
static bool align_index(const struct tensor_meta *index, const struct tensor_meta *shape, uint32_t before, uint32_t after,
                        struct tensor_meta *ret)
{
    struct tensor_meta spread = {.dtype = index->dtype};
    copy_sizes(&spread, shape);
    uint32_t added = shape->rank - index->rank;
    bool is_same = added == 0;
    for (uint32_t i = shape->rank; i-- > 0;) {
        bool is_spread = i < added || (index->size[i - added] == 1 && shape->size[i] != 1);
        is_same &= !is_spread;
        spread.stride[i] = is_spread ? 0 : index->stride[i - added];
    }
    ret->dtype = index->dtype;
    ret->rank = before + shape->rank + after;
    for (uint32_t i = 0; i < ret->rank; i++)
        ret->size[i] = i < before || i >= before + shape->rank ? 1 : shape->size[i - before];
    if (is_same)
        copy_geometry(&spread, index);
    if (index->dtype == DTYPE_I32) {    // converted to int64 after it was broadcast: a dense copy
        struct tensor_meta copy = spread;
        layout_preserve(&spread, &copy);
    }
    // reshape: a view where that is possible, else a contiguous copy.
    if (tensor_count(&spread) == 0 || !layout_view(ret, &spread))
        return layout_contiguous(ret);
    return true;
}

// Where the indexed dimensions go: in place when they are neighbours, else to the front.
static void order_dims(const struct op_call *call, uint32_t n, uint32_t *order, uint32_t *before, uint32_t *indexed)
{
    const struct tensor_meta *self = &call->in[0];
    uint32_t count = 0, at = 0;
    bool is_adjacent = true;
    for (uint32_t i = 0, last = 0; i < n; i++) {
        if (call->in[1 + i].dtype == DTYPE_NONE)
            continue;
        is_adjacent &= count == 0 || last + 1 == i;
        last = i;
        count++;
    }
    for (uint32_t pass = 0; pass < 2 && !is_adjacent; pass++)
        for (uint32_t i = 0; i < self->rank; i++)
            if ((i < n && call->in[1 + i].dtype != DTYPE_NONE) == (pass == 0))
                order[at++] = i;
    for (uint32_t i = 0; i < self->rank && is_adjacent; i++)
        order[i] = i;
    *indexed = count;
    *before = 0;
    while (is_adjacent && *before < n && call->in[1 + *before].dtype == DTYPE_NONE)
        ++*before;
}

static enum dj_error index_prepare(const struct op_call *call, uint32_t n, struct indexing *ret, struct fault *fault)
{
    const struct tensor_meta *self = &call->in[0];
    struct tensor_meta shape = {0};
    uint32_t order[DJ_RANK_MAX] = {0}, before = 0, indexed = 0;
    if (n > self->rank)
        return fault_set(fault, DJ_E_INDEX, "%s: too many indices for tensor of dimension %" PRIu32 " (got %" PRIu32 ")",
                         call->op->name, self->rank, n);
    enum dj_error error = index_shape(call, n, &shape, fault);
    if (error != DJ_OK)
        return error;
    order_dims(call, n, order, &before, &indexed);
    uint32_t after = self->rank - before - indexed;
    if (before + shape.rank + after > DJ_RANK_MAX)
        return fault_set(fault, DJ_E_RANK, "%s: the result would have %" PRIu32 " dimensions; at most %d are taken",
                         call->op->name, before + shape.rank + after, DJ_RANK_MAX);

    struct tensor_meta *source = &ret->operand[0];
    bool takes_any = tensor_count(&shape) > 0;
    source->dtype = self->dtype;
    source->rank = before + shape.rank + after;
    for (uint32_t i = 0, o = 0; i < self->rank; i++) {
        if (i == before)
            for (uint32_t k = 0; k < shape.rank; k++, o++)
                source->size[o] = shape.size[k], source->stride[o] = 0;
        if (i >= before && i < before + indexed) {
            if (self->size[order[i]] == 0 && takes_any)
                return fault_set(fault, DJ_E_INDEX, "%s: index is out of bounds for dimension with size 0", call->op->name);
            continue;
        }
        source->size[o] = self->size[order[i]];
        source->stride[o++] = self->stride[order[i]];
    }
    ret->operands = 1;
    for (uint32_t i = 0; i < n; i++)
        if (call->in[1 + i].dtype != DTYPE_NONE &&
            !align_index(&call->in[1 + i], &shape, before, after, &ret->operand[ret->operands++]))
            return fault_large(call, fault);
    return DJ_OK;
}

INFER(index)
{
    struct indexing indexing;
    const struct tensor_meta *operand[ITER_OPERANDS_MAX];
    enum dj_error error = index_prepare(call, call->n_in - 1, &indexing, fault);
    if (error != DJ_OK)
        return error;
    for (uint32_t i = 0; i < indexing.operands; i++)
        operand[i] = &indexing.operand[i];
    return iter_output(operand, indexing.operands, &ret->out[0], fault);
}

INFER(index_put)
{
    struct indexing indexing;
    const struct tensor_meta *values = &call->in[call->n_in - 1];
    enum dj_error error = index_prepare(call, call->n_in - 2, &indexing, fault);
    if (error != DJ_OK)
        return error;
    const struct tensor_meta *target = &indexing.operand[0];
    bool fits = values->rank <= target->rank;
    for (uint32_t i = 0; fits && i < values->rank; i++)
        fits = values->size[i] == 1 || values->size[i] == target->size[target->rank - values->rank + i];
    if (!fits)
        return fault_shape(call, "shape mismatch: value tensor cannot be broadcast to indexing result", fault);
    layout_preserve(&ret->out[0], &call->in[0]);
    return DJ_OK;
}

// Along one dimension --------------------------------------------------------------------------------------------------------

static int64_t size_or_1(const struct tensor_meta *meta, uint32_t dim)
{
    return meta->rank == 0 ? 1 : meta->size[dim];
}

static uint32_t rank_or_1(const struct tensor_meta *meta)
{
    return meta->rank == 0 ? 1 : meta->rank;
}

INFER(index_select)
{
    const struct tensor_meta *self = &call->in[0], *index = &call->in[1];
    uint32_t dim = 0;
    if (!dim_wrap(call->attr[0].i, self->rank, &dim))
        return fault_dim(call, call->attr[0].i, self->rank, fault);
    if (index->rank > 1)
        return fault_shape(call, "Index is supposed to be a vector", fault);
    if (self->rank == 0 && tensor_count(index) != 1)
        return fault_shape(call, "index must have one element for a 0-dim tensor", fault);
    copy_sizes(&ret->out[0], self);
    if (self->rank > 0) {
        if (self->size[dim] == 0 && tensor_count(index) > 0)
            return fault_set(fault, DJ_E_INDEX, "INDEX_SELECT: index out of range for dimension with size 0");
        ret->out[0].size[dim] = tensor_count(index);
    }
    return layout_contiguous(&ret->out[0]) ? DJ_OK : fault_large(call, fault);
}

// index may be smaller than `in` on every dimension but `dim` (on all of them when `all`).
static bool index_within(const struct tensor_meta *index, const struct tensor_meta *in, uint32_t dim, bool all)
{
    for (uint32_t i = 0; i < rank_or_1(in); i++)
        if ((all || i != dim) && size_or_1(index, i) > size_or_1(in, i))
            return false;
    return true;
}

INFER(gather)
{
    const struct tensor_meta *self = &call->in[0], *index = &call->in[1];
    uint32_t dim = 0;
    if (!dim_wrap(call->attr[0].i, self->rank, &dim))
        return fault_dim(call, call->attr[0].i, self->rank, fault);
    if (tensor_count(index) != 0) {
        if (rank_or_1(index) != rank_or_1(self))
            return fault_shape(call, "Index tensor must have the same number of dimensions as input tensor", fault);
        if (!index_within(index, self, dim, false))
            return fault_shape(call, "Size does not match: expected index to be no larger than self apart from the dimension",
                               fault);
    }
    copy_sizes(&ret->out[0], index);
    return layout_contiguous(&ret->out[0]) ? DJ_OK : fault_large(call, fault);
}

// scatter.src, scatter.value, scatter_add
INFER(scatter)
{
    const struct tensor_meta *self = &call->in[0], *index = &call->in[1], *src = call->n_in > 2 ? &call->in[2] : NULL;
    uint32_t dim = 0;
    if (!dim_wrap(call->attr[0].i, self->rank, &dim))
        return fault_dim(call, call->attr[0].i, self->rank, fault);
    if (tensor_count(index) != 0) {
        if (rank_or_1(index) != rank_or_1(self) || (src != NULL && rank_or_1(index) != rank_or_1(src)))
            return fault_shape(call, "Index tensor must have the same number of dimensions as self and src", fault);
        if (!index_within(index, self, dim, false) || (src != NULL && !index_within(index, src, dim, true)))
            return fault_shape(call, "Expected index to be no larger than self apart from the dimension, and no larger than src",
                               fault);
    }
    return infer_like_contiguous(call, ret, fault);
}

INFER(index_add)
{
    const struct tensor_meta *self = &call->in[0], *index = &call->in[1], *source = &call->in[2];
    uint32_t dim = 0;
    if (!dim_wrap(call->attr[0].i, self->rank, &dim))
        return fault_dim(call, call->attr[0].i, self->rank, fault);
    if (index->rank > 1)
        return fault_shape(call, "Index is supposed to be a vector", fault);
    if (rank_or_1(self) != rank_or_1(source) || size_or_1(source, dim) != tensor_count(index) ||
        (self->rank == 0 && tensor_count(source) != 1))
        return fault_shape(call, "the number of indices should be equal to the source's size at the dimension", fault);
    if (self->rank <= 1 && size_or_1(self, 0) == 0 && tensor_count(source) > 0)
        return fault_set(fault, DJ_E_INDEX, "INDEX_ADD: index out of range for dimension with size 0");
    for (uint32_t i = 0; i < self->rank; i++)
        if (i != dim && size_or_1(self, i) != size_or_1(source, i))
            return fault_shape(call, "source and self must have the same sizes apart from the dimension", fault);
    return infer_like_contiguous(call, ret, fault);
}

// Rearranging ----------------------------------------------------------------------------------------------------------------

// tril, triu
INFER(triangle)
{
    if (call->in[0].rank < 2)
        return fault_shape(call, "input tensor must have at least 2 dimensions", fault);
    return infer_like_contiguous(call, ret, fault);
}

// Pairs of (before, after) from the last dimension outwards; negative ones crop.
INFER(pad)
{
    const struct tensor_meta *in = &call->in[0];
    struct tensor_meta *out = &ret->out[0];
    const struct attr *pad = &call->attr[0];
    if (pad->count % 2 != 0 || pad->count / 2u > in->rank)
        return fault_shape(call, "Length of pad must be even and no more than twice the number of dimensions", fault);
    bool only_crops = true;
    for (uint32_t i = 0; i < pad->count; i++)
        only_crops &= pad->ints[i] <= 0;
    copy_sizes(out, in);
    for (uint32_t i = 0; i < pad->count / 2u; i++) {
        int64_t *size = &out->size[in->rank - 1 - i], before = pad->ints[2 * i], after = pad->ints[2 * i + 1];
        int64_t cropped = *size;    // what negative pads leave, which must not be negative even where positive ones add to it
        bool fits = i64_add(cropped, before < 0 ? before : 0, &cropped) && i64_add(cropped, after < 0 ? after : 0, &cropped);
        if (!fits || !i64_add(*size, before, size) || !i64_add(*size, after, size))
            return fault_large(call, fault);
        if (*size < 0 || cropped < 0)
            return fault_set(fault, DJ_E_SHAPE,
                             "CONSTANT_PAD: resulted in a negative output size %" PRId64 " at dimension %" PRIu32, *size,
                             in->rank - 1 - i);
    }
    if (only_crops) {    // a narrowed view, cloned
        struct tensor_meta window = *in;
        copy_sizes(&window, out);
        layout_preserve(out, &window);
        return DJ_OK;
    }
    return layout_format(out, layout_suggest(in)) ? DJ_OK : fault_large(call, fault);
}

INFER(repeat)
{
    const struct tensor_meta *in = &call->in[0];
    struct tensor_meta *out = &ret->out[0];
    const struct attr *repeats = &call->attr[0];
    if (repeats->count > DJ_RANK_MAX)
        return fault_set(fault, DJ_E_RANK, "REPEAT: %u dimensions; at most %d are taken", repeats->count, DJ_RANK_MAX);
    if (repeats->count < in->rank)
        return fault_shape(call, "Number of dimensions of repeat dims can not be smaller than number of dimensions of tensor",
                           fault);
    out->rank = repeats->count;
    uint32_t added = out->rank - in->rank;
    for (uint32_t i = 0; i < out->rank; i++) {
        if (repeats->ints[i] < 0)
            return fault_set(fault, DJ_E_SHAPE, "REPEAT: Trying to create tensor with negative dimension %" PRId64,
                             repeats->ints[i]);
        if (!i64_mul(i < added ? 1 : in->size[i - added], repeats->ints[i], &out->size[i]))
            return fault_large(call, fault);
    }
    return layout_contiguous(out) ? DJ_OK : fault_large(call, fault);
}

INFER(flip)
{
    uint32_t mask = 0;
    enum dj_error error = dims_mask(call, &call->attr[0], call->in[0].rank, &mask, fault);
    if (error == DJ_OK)
        layout_preserve(&ret->out[0], &call->in[0]);
    return error;
}

// roll; with no dims, of the flattened tensor. An empty tensor is cloned.
INFER(roll)
{
    const struct attr *shifts = &call->attr[0], *dims = &call->attr[1];
    uint32_t dim = 0;
    if (shifts->count == 0)
        return fault_shape(call, "`shifts` required", fault);
    if (dims->count == 0 ? shifts->count != 1 : dims->count != shifts->count)
        return fault_shape(call, "shifts and dimensions must align", fault);
    if (dims->count > 0 && call->in[0].rank == 0)
        return fault_dim(call, dims->ints[0], 0, fault);
    for (uint32_t i = 0; i < dims->count; i++)
        if (!dim_wrap(dims->ints[i], call->in[0].rank, &dim))
            return fault_dim(call, dims->ints[i], call->in[0].rank, fault);
    if (tensor_count(&call->in[0]) == 0) {
        layout_preserve(&ret->out[0], &call->in[0]);
        return DJ_OK;
    }
    return infer_like_contiguous(call, ret, fault);
}
