// Views: metadata of an input's own elements, seen otherwise; and the scatters that write through such a view into a new value.
//
// view_offset counts from the input's first element. So does the offset of as_strided, whose extent must lie within the input's:
// it equals PyTorch's storage_offset when the input starts its storage, which the frontend sees to.

#include "core/ops/infer.h"

#include <inttypes.h>

// What a view reaches must be arithmetic that cannot overflow later.
static enum dj_error finish(const struct op_call *call, struct op_result *ret, int64_t offset, struct fault *fault)
{
    ret->view_offset[0] = offset;
    return meta_fits(&ret->out[0]) ? DJ_OK : fault_large(call, fault);
}

// The sizes asked for, with one -1 inferred from the element count.
static enum dj_error view_sizes(const struct op_call *call, struct tensor_meta *out, struct fault *fault)
{
    const struct attr *sizes = &call->attr[0];
    int64_t count = tensor_count(&call->in[0]), known = 1;
    int inferred = -1;
    if (sizes->count > DJ_RANK_MAX)
        return fault_set(fault, DJ_E_RANK, "%s: %u dimensions; at most %d are taken", call->op->name, sizes->count, DJ_RANK_MAX);
    out->rank = sizes->count;
    for (uint32_t i = 0; i < out->rank; i++) {
        int64_t size = sizes->ints[i];
        if (size == -1) {
            if (inferred >= 0)
                return fault_shape(call, "only one dimension can be inferred", fault);
            inferred = (int)i;
            continue;
        }
        if (size < 0)
            return fault_set(fault, DJ_E_SHAPE, "%s: invalid shape dimension %" PRId64, call->op->name, size);
        if (!i64_mul(known, size, &known))
            return fault_large(call, fault);
        out->size[i] = size;
    }
    if (inferred >= 0) {
        if (known == 0 || count % known != 0)
            return fault_shape(call,
                               known == 0 ? "cannot reshape tensor of 0 elements: -1 can be any value and is ambiguous"
                                          : "the shape is invalid for the input's element count",
                               fault);
        out->size[inferred] = count / known;
        return DJ_OK;
    }
    return known == count ? DJ_OK : fault_shape(call, "the shape is invalid for the input's element count", fault);
}

INFER(view)
{
    const struct tensor_meta *in = &call->in[0];
    struct tensor_meta *out = &ret->out[0];
    enum dj_error error = view_sizes(call, out, fault);
    if (error != DJ_OK)
        return error;
    if (tensor_count(in) == 0) {
        if (tensor_same_sizes(in, out))
            copy_geometry(out, in);
        else if (!layout_contiguous(out))
            return fault_large(call, fault);
    } else if (!layout_view(out, in)) {
        return fault_shape(call,
                           "view size is not compatible with input tensor's size and stride (at least one dimension spans "
                           "across two contiguous subspaces). Use .reshape(...) instead",
                           fault);
    }
    return finish(call, ret, 0, fault);
}

INFER(permute)
{
    const struct tensor_meta *in = &call->in[0];
    struct tensor_meta *out = &ret->out[0];
    const struct attr *dims = &call->attr[0];
    uint32_t seen = 0, dim = 0;
    if (dims->count != in->rank)
        return fault_shape(call, "number of dimensions in the tensor input does not match the length of the desired ordering",
                           fault);
    out->rank = in->rank;
    for (uint32_t i = 0; i < in->rank; i++) {
        if (!dim_wrap(dims->ints[i], in->rank, &dim))
            return fault_dim(call, dims->ints[i], in->rank, fault);
        if (seen >> dim & 1)
            return fault_shape(call, "duplicate dims are not allowed", fault);
        seen |= 1u << dim;
        out->size[i] = in->size[dim];
        out->stride[i] = in->stride[dim];
    }
    ret->view_offset[0] = 0;
    return DJ_OK;
}

static void swap_dims(struct tensor_meta *out, const struct tensor_meta *in, uint32_t a, uint32_t b)
{
    copy_geometry(out, in);
    if (in->rank == 0)
        return;
    out->size[a] = in->size[b];
    out->size[b] = in->size[a];
    out->stride[a] = in->stride[b];
    out->stride[b] = in->stride[a];
}

INFER(transpose)
{
    uint32_t a = 0, b = 0, rank = call->in[0].rank;
    if (!dim_wrap(call->attr[0].i, rank, &a))
        return fault_dim(call, call->attr[0].i, rank, fault);
    if (!dim_wrap(call->attr[1].i, rank, &b))
        return fault_dim(call, call->attr[1].i, rank, fault);
    swap_dims(&ret->out[0], &call->in[0], a, b);
    ret->view_offset[0] = 0;
    return DJ_OK;
}

INFER(t)
{
    uint32_t rank = call->in[0].rank;
    if (rank > 2)
        return fault_shape(call, "t() expects a tensor with <= 2 dimensions", fault);
    swap_dims(&ret->out[0], &call->in[0], 0, rank == 2 ? 1 : 0);
    ret->view_offset[0] = 0;
    return DJ_OK;
}

// ATen's inferExpandGeometry, which gives dimensions of size 1 that it adds the stride of a contiguous one.
INFER(expand)
{
    const struct tensor_meta *in = &call->in[0];
    struct tensor_meta *out = &ret->out[0];
    const struct attr *sizes = &call->attr[0];
    if (sizes->count > DJ_RANK_MAX)
        return fault_set(fault, DJ_E_RANK, "EXPAND: %u dimensions; at most %d are taken", sizes->count, DJ_RANK_MAX);
    if (sizes->count < in->rank)
        return fault_shape(
            call, "the number of sizes provided must be greater or equal to the number of dimensions in the tensor", fault);
    out->rank = sizes->count;
    uint32_t added = out->rank - in->rank;
    for (uint32_t i = out->rank; i-- > 0;) {
        bool is_old = i >= added;
        int64_t target = sizes->ints[i], size = is_old ? in->size[i - added] : 1, stride = 0;
        if (is_old)
            stride = in->stride[i - added];
        else if (in->rank > 0 && !i64_mul(out->size[i + 1], out->stride[i + 1], &stride))
            return fault_large(call, fault);
        if (target == -1 && is_old)
            target = size;
        if (target < 0)
            return fault_set(fault, DJ_E_SHAPE, "EXPAND: the expanded size of the tensor (%" PRId64 ") isn't allowed", target);
        if (size != target) {
            if (size != 1)
                return fault_shape(
                    call, "the expanded size of the tensor must match the existing size at non-singleton dimensions", fault);
            stride = 0;
        }
        out->size[i] = target;
        out->stride[i] = stride;
    }
    return finish(call, ret, 0, fault);
}

// Bounds are clamped, negative ones count from the end. `attr` points at start, end, step.
static enum dj_error slice_geometry(const struct op_call *call, const struct attr *dim_attr, const struct attr *attr,
                                    struct tensor_meta *out, int64_t *offset, struct fault *fault)
{
    const struct tensor_meta *in = &call->in[0];
    uint32_t dim = 0;
    if (in->rank == 0)
        return fault_set(fault, DJ_E_INDEX, "%s: cannot be applied to a 0-dim tensor.", call->op->name);
    if (!dim_wrap(dim_attr->i, in->rank, &dim))
        return fault_dim(call, dim_attr->i, in->rank, fault);
    int64_t size = in->size[dim], step = attr[2].i;
    int64_t start = attr_is_present(&attr[0]) ? attr[0].i : 0, end = attr_is_present(&attr[1]) ? attr[1].i : INT64_MAX;
    if (step <= 0)
        return fault_set(fault, DJ_E_SHAPE, "%s: slice step must be positive", call->op->name);
    start = start < 0 ? start + size : start;
    end = end < 0 ? end + size : end;
    start = start < 0 ? 0 : start > size ? size : start;
    end = end < start ? start : end > size ? size : end;

    copy_geometry(out, in);
    out->size[dim] = end == start ? 0 : step == 1 ? end - start : (end - start - 1) / step + 1;
    if (!i64_mul(in->stride[dim], step, &out->stride[dim]) || !i64_mul(in->stride[dim], start, offset))
        return fault_large(call, fault);
    return DJ_OK;
}

INFER(slice)
{
    int64_t offset = 0;
    enum dj_error error = slice_geometry(call, &call->attr[0], &call->attr[1], &ret->out[0], &offset, fault);
    return error == DJ_OK ? finish(call, ret, offset, fault) : error;
}

static enum dj_error select_geometry(const struct op_call *call, const struct attr *attr, struct tensor_meta *out,
                                     int64_t *offset, struct fault *fault)
{
    const struct tensor_meta *in = &call->in[0];
    uint32_t dim = 0;
    if (in->rank == 0)
        return fault_set(fault, DJ_E_INDEX, "%s: cannot be applied to a 0-dim tensor.", call->op->name);
    if (!dim_wrap(attr[0].i, in->rank, &dim))
        return fault_dim(call, attr[0].i, in->rank, fault);
    int64_t index = attr[1].i, size = in->size[dim];
    if (index < -size || index >= size)
        return fault_set(fault, DJ_E_INDEX,
                         "%s: index %" PRId64 " out of range for tensor of size %" PRId64 " at dimension %" PRIu32,
                         call->op->name, index, size, dim);
    index = index < 0 ? index + size : index;
    out->rank = in->rank - 1;
    for (uint32_t i = 0, o = 0; i < in->rank; i++) {
        if (i == dim)
            continue;
        out->size[o] = in->size[i];
        out->stride[o++] = in->stride[i];
    }
    return i64_mul(in->stride[dim], index, offset) ? DJ_OK : fault_large(call, fault);
}

INFER(select)
{
    return select_geometry(call, call->attr, &ret->out[0], &ret->view_offset[0], fault);
}

INFER(unsqueeze)
{
    const struct tensor_meta *in = &call->in[0];
    struct tensor_meta *out = &ret->out[0];
    uint32_t dim = 0;
    if (in->rank == DJ_RANK_MAX)
        return fault_set(fault, DJ_E_RANK, "UNSQUEEZE: the result would have %d dimensions; at most %d are taken",
                         DJ_RANK_MAX + 1, DJ_RANK_MAX);
    if (!dim_wrap(call->attr[0].i, in->rank + 1, &dim))
        return fault_dim(call, call->attr[0].i, in->rank + 1, fault);
    out->rank = in->rank + 1;
    for (uint32_t i = 0; i < in->rank; i++) {
        out->size[i + (i >= dim)] = in->size[i];
        out->stride[i + (i >= dim)] = in->stride[i];
    }
    out->size[dim] = 1;
    out->stride[dim] = 1;
    if (dim < in->rank && !i64_mul(in->size[dim], in->stride[dim], &out->stride[dim]))
        return fault_large(call, fault);
    return finish(call, ret, 0, fault);
}

// squeeze, squeeze.dim, squeeze.dims. An empty list of dims squeezes nothing.
INFER(squeeze)
{
    const struct tensor_meta *in = &call->in[0];
    struct tensor_meta *out = &ret->out[0];
    uint32_t mask = (1u << DJ_RANK_MAX) - 1, dim = 0;
    if (call->op->number == OP_SQUEEZE_DIM) {
        if (!dim_wrap(call->attr[0].i, in->rank, &dim))
            return fault_dim(call, call->attr[0].i, in->rank, fault);
        mask = 1u << dim;
    } else if (call->op->number == OP_SQUEEZE_DIMS) {
        mask = 0;
        enum dj_error error = call->attr[0].count == 0 ? DJ_OK : dims_mask(call, &call->attr[0], in->rank, &mask, fault);
        if (error != DJ_OK)
            return error;
    }
    out->rank = 0;
    for (uint32_t i = 0; i < in->rank; i++) {
        if (in->size[i] == 1 && (mask >> i & 1))
            continue;
        out->size[out->rank] = in->size[i];
        out->stride[out->rank++] = in->stride[i];
    }
    ret->view_offset[0] = 0;
    return DJ_OK;
}

INFER(alias)
{
    (void)fault;
    copy_geometry(&ret->out[0], &call->in[0]);
    ret->view_offset[0] = 0;
    return DJ_OK;
}

// Sizes, strides and offset as given, if they stay within `extent` elements.
static enum dj_error strided_geometry(const struct op_call *call, int64_t extent, struct tensor_meta *out, int64_t *offset,
                                      struct fault *fault)
{
    const struct attr *sizes = &call->attr[0], *strides = &call->attr[1];
    *offset = attr_is_present(&call->attr[2]) ? call->attr[2].i : 0;
    if (sizes->count != strides->count)
        return fault_shape(call, "mismatch in length of strides and shape", fault);
    if (sizes->count > DJ_RANK_MAX)
        return fault_set(fault, DJ_E_RANK, "%s: %u dimensions; at most %d are taken", call->op->name, sizes->count, DJ_RANK_MAX);
    out->rank = sizes->count;
    for (uint32_t i = 0; i < out->rank; i++) {
        out->size[i] = sizes->ints[i];
        out->stride[i] = strides->ints[i];
        if (out->size[i] < 0 || out->stride[i] < 0)
            return fault_shape(call, "negative sizes and strides are not supported", fault);
    }
    if (*offset < 0)
        return fault_shape(call, "storage_offset must not be negative", fault);
    if (!meta_fits(out))
        return fault_large(call, fault);
    int64_t span = tensor_span(out);
    if (span > 0 && *offset > extent - span)
        return fault_set(fault, DJ_E_INDEX,
                         "%s: %" PRId64 " elements from offset %" PRId64 " are out of bounds for an input of %" PRId64,
                         call->op->name, span, *offset, extent);
    return DJ_OK;
}

INFER(as_strided)
{
    return strided_geometry(call, tensor_span(&call->in[0]), &ret->out[0], &ret->view_offset[0], fault);
}

INFER(diagonal)
{
    const struct tensor_meta *in = &call->in[0];
    struct tensor_meta *out = &ret->out[0];
    int64_t shift = call->attr[0].i;
    uint32_t a = 0, b = 0;
    if (!dim_wrap(call->attr[1].i, in->rank, &a))
        return fault_dim(call, call->attr[1].i, in->rank, fault);
    if (!dim_wrap(call->attr[2].i, in->rank, &b))
        return fault_dim(call, call->attr[2].i, in->rank, fault);
    if (a == b)
        return fault_shape(call, "diagonal dimensions cannot be identical", fault);

    int64_t rows = in->size[a], columns = in->size[b];
    // Clamping keeps the arithmetic small: a shift past either end leaves nothing.
    shift = shift > columns ? columns : shift < -rows ? -rows : shift;
    int64_t length = shift >= 0 ? (rows < columns - shift ? rows : columns - shift)
                                : (rows + shift < columns ? rows + shift : columns);
    if (length < 0)
        length = 0;
    ret->view_offset[0] = length == 0 ? 0 : shift >= 0 ? shift * in->stride[b] : -shift * in->stride[a];
    out->rank = 0;
    for (uint32_t i = 0; i < in->rank; i++) {
        if (i == a || i == b)
            continue;
        out->size[out->rank] = in->size[i];
        out->stride[out->rank++] = in->stride[i];
    }
    out->size[out->rank] = length;
    if (!i64_add(in->stride[a], in->stride[b], &out->stride[out->rank]))
        return fault_large(call, fault);
    out->rank++;
    return finish(call, ret, ret->view_offset[0], fault);
}

INFER(unfold)
{
    const struct tensor_meta *in = &call->in[0];
    struct tensor_meta *out = &ret->out[0];
    int64_t size = call->attr[1].i, step = call->attr[2].i;
    uint32_t dim = 0;
    if (in->rank == DJ_RANK_MAX)
        return fault_set(fault, DJ_E_RANK, "UNFOLD: the result would have %d dimensions; at most %d are taken", DJ_RANK_MAX + 1,
                         DJ_RANK_MAX);
    if (!dim_wrap(call->attr[0].i, in->rank, &dim))
        return fault_dim(call, call->attr[0].i, in->rank, fault);
    int64_t limit = in->rank == 0 ? 1 : in->size[dim];
    if (size < 0 || size > limit || step <= 0)
        return fault_set(fault, DJ_E_SHAPE, "UNFOLD: size %" PRId64 " must be in [0, %" PRId64 "] and step %" PRId64 " positive",
                         size, limit, step);
    copy_geometry(out, in);
    out->rank = in->rank + 1;
    out->size[in->rank] = size;
    out->stride[in->rank] = in->rank == 0 ? 1 : in->stride[dim];
    if (in->rank > 0) {
        out->size[dim] = (limit - size) / step + 1;
        if (!i64_mul(in->stride[dim], step, &out->stride[dim]))
            return fault_large(call, fault);
    }
    return finish(call, ret, 0, fault);
}

// Scatters through a view: a new value with the input's geometry, made dense where it is not. PyTorch keeps the strides of inputs
// with gaps; a value of its own has none here, so that its bytes are its elements.
static enum dj_error scatter_finish(const struct op_call *call, const struct tensor_meta *window, struct op_result *ret,
                                    struct fault *fault)
{
    if (!tensor_same_sizes(window, &call->in[1]))
        return fault_shape(call, "expected src to have a size equal to the slice of self", fault);
    layout_preserve(&ret->out[0], &call->in[0]);
    return DJ_OK;
}

INFER(slice_scatter)
{
    struct tensor_meta window = {.dtype = call->in[0].dtype};
    int64_t offset = 0;
    enum dj_error error = slice_geometry(call, &call->attr[0], &call->attr[1], &window, &offset, fault);
    return error == DJ_OK ? scatter_finish(call, &window, ret, fault) : error;
}

INFER(select_scatter)
{
    struct tensor_meta window = {.dtype = call->in[0].dtype};
    int64_t offset = 0;
    enum dj_error error = select_geometry(call, call->attr, &window, &offset, fault);
    return error == DJ_OK ? scatter_finish(call, &window, ret, fault) : error;
}

// The window is given in the input's strides, so the input must keep them: it must be dense.
INFER(as_strided_scatter)
{
    struct tensor_meta window = {.dtype = call->in[0].dtype};
    int64_t offset = 0;
    if (!tensor_is_dense(&call->in[0]))
        return fault_shape(call, "the input must be dense", fault);
    enum dj_error error = strided_geometry(call, tensor_span(&call->in[0]), &window, &offset, fault);
    return error == DJ_OK ? scatter_finish(call, &window, ret, fault) : error;
}
