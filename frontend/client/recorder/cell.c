// Cells: storages, and what changes the value that they hold: writes through windows, assignment, upload, other devices.

#include "frontend/client/recorder/graph.h"

#include <stdlib.h>

#include "core/base/assert.h"

struct dj_cell *recorder_cell(struct recorder *recorder, int device)
{
    struct dj_cell *cell = pool_take(recorder->cells);
    if (cell == NULL)
        return NULL;
    cell->holders = 1;
    cell->device = device;
    cell->generation = recorder->generation;
    cell->recorder = recorder;
    return cell;
}

void recorder_cell_hold(struct dj_cell *cell)
{
    cell->holders++;
}

void recorder_cell_drop(struct recorder *recorder, struct dj_cell *cell)
{
    assert(cell->holders > 0);
    if (--cell->holders > 0)
        return;
    window_forget_all(recorder, cell);
    value_unroot(recorder, cell->base);
    free(cell->view);
    pool_give(recorder->cells, cell);
}

int recorder_cell_device(const struct dj_cell *cell)
{
    return cell->device;
}

// Layout -------------------------------------------------------------------------------------------------------------------

// The order of dimensions from the largest stride to the smallest; false when that is the order they are in.
static bool dense_order(const struct tensor_meta *meta, int64_t order[DJ_RANK_MAX], int64_t inverse[DJ_RANK_MAX])
{
    bool is_permuted = false;
    for (uint32_t d = 0; d < meta->rank; d++) {
        uint32_t at = d;
        while (at > 0 && meta->stride[order[at - 1]] < meta->stride[d]) {
            order[at] = order[at - 1];
            at--;
            is_permuted = true;
        }
        order[at] = d;
    }
    for (uint32_t d = 0; d < meta->rank; d++)
        inverse[order[d]] = d;
    return is_permuted;
}

// Replaces the held *value by one with the same elements in the geometry of `meta` (dense, of the same sizes). On failure *value is as it was.
static enum dj_error layout_as(struct recorder *recorder, struct value **value, const struct tensor_meta *meta, int device,
                               struct recorded_at at, struct fault *fault)
{
    if (geometry_equal(&(*value)->meta, meta))
        return DJ_OK;
    int64_t order[DJ_RANK_MAX], inverse[DJ_RANK_MAX];
    bool is_permuted = dense_order(meta, order, inverse);
    struct attr format = attr_int(FORMAT_CONTIGUOUS), to = attr_ints(order, meta->rank), back = attr_ints(inverse, meta->rank);
    struct value *permuted = NULL, *dense = NULL, *result = NULL;
    enum dj_error error = DJ_OK;
    if (is_permuted)
        error = node_emit(recorder, OP_PERMUTE, *value, NULL, &to, DTYPE_NONE, device, at, &permuted, fault);
    if (error == DJ_OK)
        error = node_emit(recorder, OP_CLONE, is_permuted ? permuted : *value, NULL, &format, DTYPE_NONE, device, at, &dense,
                          fault);
    if (error == DJ_OK && is_permuted)
        error = node_emit(recorder, OP_PERMUTE, dense, NULL, &back, DTYPE_NONE, device, at, &result, fault);
    value_drop(recorder, permuted);
    if (is_permuted)
        value_drop(recorder, dense);
    else
        result = dense;
    if (error != DJ_OK)
        return error;
    value_drop(recorder, *value);
    *value = result;
    return DJ_OK;
}

// Replaces the held *value by one of the sizes and dtype of `meta`: broadcast and converted.
static enum dj_error conform(struct recorder *recorder, struct value **value, const struct tensor_meta *meta, int device,
                             struct recorded_at at, struct fault *fault)
{
    struct value *next;
    if (!tensor_same_sizes(&(*value)->meta, meta)) {
        struct attr size = attr_ints(meta->size, meta->rank);
        // Writing [1, 3] into [3] is allowed: leading dimensions of size 1 go first.
        bool is_deeper = (*value)->meta.rank > meta->rank && tensor_count(&(*value)->meta) == tensor_count(meta);
        enum dj_error error = node_emit(recorder, is_deeper ? OP_VIEW_SIZES : OP_EXPAND, *value, NULL, &size, DTYPE_NONE, device,
                                        at, &next, fault);
        if (error != DJ_OK)
            return error;
        value_drop(recorder, *value);
        *value = next;
    }
    if ((*value)->meta.dtype != meta->dtype) {
        struct attr format = attr_int(tensor_is_contiguous(meta) ? FORMAT_CONTIGUOUS : FORMAT_PRESERVE);
        enum dj_error error = node_emit(recorder, OP_TO_COPY, *value, NULL, &format, meta->dtype, device, at, &next, fault);
        if (error != DJ_OK)
            return error;
        value_drop(recorder, *value);
        *value = next;
    }
    return DJ_OK;
}

// Writing ------------------------------------------------------------------------------------------------------------------

// Whether the window is all that the cell has (or, for zeros of no geometry, may become all of it).
static bool window_is_whole(const struct dj_cell *cell, const struct tensor_meta *meta, int64_t offset)
{
    if (!tensor_is_dense(meta))
        return false;
    if (cell->base == NULL)
        return offset == 0;
    return offset == cell->offset && tensor_is_dense(&cell->base->meta) && tensor_span(meta) == tensor_span(&cell->base->meta);
}

static enum dj_error write_whole(struct recorder *recorder, struct dj_cell *cell, const struct tensor_meta *meta,
                                 struct value **value, struct recorded_at at, struct fault *fault)
{
    enum dj_error error = layout_as(recorder, value, meta, cell->device, at, fault);
    if (error != DJ_OK)
        return error;
    struct value *base = cell->base;
    if (base != NULL && !geometry_equal(&base->meta, meta) && tensor_is_contiguous(&base->meta) && tensor_is_contiguous(meta)) {
        struct attr size = attr_ints(base->meta.size, base->meta.rank);
        struct value *next;
        error = node_emit(recorder, OP_VIEW_SIZES, *value, NULL, &size, DTYPE_NONE, cell->device, at, &next, fault);
        if (error != DJ_OK)
            return error;
        value_drop(recorder, *value);
        *value = next;
    }
    cell_set_base(recorder, cell, *value, base == NULL ? 0 : cell->offset);
    return DJ_OK;
}

static enum op scatter_of(const struct view *view)
{
    return view->op == OP_SLICE ? OP_SLICE_SCATTER : view->op == OP_SELECT ? OP_SELECT_SCATTER : OP_NONE;
}

// Whether slices and selections alone lead from the base to the window.
static bool can_scatter(const struct view *view)
{
    for (; view != NULL; view = view->parent)
        if (scatter_of(view) == OP_NONE)
            return false;
    return true;
}

// Replaces the held *value (of the window's sizes) by the base with the window's elements changed.
static enum dj_error scatter(struct recorder *recorder, struct dj_cell *cell, const struct tensor_meta *meta, int64_t offset,
                             struct value **value, struct recorded_at at, struct fault *fault)
{
    const struct view *view = window_find(cell, meta, offset);
    if (view == NULL || !can_scatter(view)) {
        struct attr attr[3] = {attr_ints(meta->size, meta->rank), attr_ints(meta->stride, meta->rank),
                               attr_int(offset - cell->offset)};
        struct value *next;
        enum dj_error error = node_emit(recorder, OP_AS_STRIDED_SCATTER, cell->base, *value, attr, DTYPE_NONE, cell->device, at,
                                        &next, fault);
        if (error != DJ_OK)
            return error;
        value_drop(recorder, *value);
        *value = next;
        return DJ_OK;
    }
    for (; view != NULL; view = view->parent) {
        struct dj_tensor window;
        struct value *into = NULL, *next = NULL;
        enum dj_error error = DJ_OK;
        if (view->parent == NULL) {
            into = value_hold(cell->base);
        } else {
            tensor_of(&view->parent->meta, view->parent->offset, cell, &window);
            error = window_resolve(recorder, &window, at, &into, fault);
        }
        if (error == DJ_OK)
            error = node_emit(recorder, scatter_of(view), into, *value, view->attr, DTYPE_NONE, cell->device, at, &next, fault);
        value_drop(recorder, into);
        if (error != DJ_OK)
            return error;
        value_drop(recorder, *value);
        *value = next;
    }
    return DJ_OK;
}

static enum dj_error write_part(struct recorder *recorder, struct dj_cell *cell, const struct tensor_meta *meta, int64_t offset,
                                struct value **value, struct recorded_at at, struct fault *fault)
{
    const struct value *base = cell->base;
    bool is_covered = base != NULL && tensor_is_dense(&base->meta) && offset >= cell->offset &&
                      offset + tensor_span(meta) <= cell->offset + tensor_span(&base->meta);
    if (!is_covered) {
        enum dj_error error = cell_flatten(recorder, cell, offset + tensor_span(meta), meta->dtype, at, fault);
        if (error != DJ_OK)
            return error;
    }
    enum dj_error error = scatter(recorder, cell, meta, offset, value, at, fault);
    if (error == DJ_OK)
        error = layout_as(recorder, value, &cell->base->meta, cell->device, at, fault);
    if (error != DJ_OK)
        return error;
    cell_set_base(recorder, cell, *value, cell->offset);
    return DJ_OK;
}

enum dj_error recorder_write(struct recorder *recorder, const struct dj_tensor *to, const struct dj_tensor *from,
                             struct recorded_at at, struct fault *fault)
{
    struct dj_cell *cell = to->cell;
    enum dj_error error = cell_check(recorder, cell, fault);
    if (error != DJ_OK)
        return error;
    if (to->rank > DJ_RANK_MAX)
        return fault_set(fault, DJ_E_RANK, "a tensor of %u dimensions; at most %d are taken", to->rank, DJ_RANK_MAX);
    struct tensor_meta meta = tensor_meta_of(to);
    error = tensor_check(&meta, fault);
    int64_t end;
    if (error == DJ_OK && (to->offset < 0 || __builtin_add_overflow(to->offset, tensor_span(&meta), &end)))
        error = fault_set(fault, DJ_E_INVALID, "a window at offset %lld does not fit in any storage", (long long)to->offset);
    if (error != DJ_OK)
        return error;
    if (cell->base != NULL && cell->base->meta.dtype != meta.dtype && tensor_count(&meta) > 0)
        return fault_set(fault, DJ_E_UNSUPPORTED,
                         "the storage holds %s and is written as %s; reinterpreting bits is not supported",
                         dtype_name(cell->base->meta.dtype), dtype_name(meta.dtype));
    struct value *value;
    error = window_resolve(recorder, from, at, &value, fault);
    if (error != DJ_OK)
        return error;
    error = conform(recorder, &value, &meta, cell->device, at, fault);
    if (error == DJ_OK && tensor_count(&meta) > 0) {
        if (window_is_whole(cell, &meta, to->offset))
            error = write_whole(recorder, cell, &meta, &value, at, fault);
        else
            error = write_part(recorder, cell, &meta, to->offset, &value, at, fault);
    }
    value_drop(recorder, value);
    return error;
}

// Other ways to a value ----------------------------------------------------------------------------------------------------

enum dj_error recorder_assign(struct recorder *recorder, struct dj_cell *cell, const struct dj_tensor *from,
                              struct recorded_at at, struct fault *fault)
{
    struct value *value;
    enum dj_error error = cell_check(recorder, cell, fault);
    if (error == DJ_OK)
        error = window_resolve(recorder, from, at, &value, fault);
    if (error != DJ_OK)
        return error;
    cell_set_base(recorder, cell, value, from->offset);
    value_drop(recorder, value);
    return DJ_OK;
}

// A fresh cell that holds `value`, whose hold it takes.
enum dj_error cell_of(struct recorder *recorder, int device, struct value *value, struct dj_tensor *out, struct fault *fault)
{
    struct dj_cell *cell = recorder_cell(recorder, device);
    if (cell == NULL) {
        value_drop(recorder, value);
        return fault_set(fault, DJ_E_NO_MEMORY, "no memory for one more tensor (at most %d live at once)", RECORDER_CELLS_MAX);
    }
    cell_set_base(recorder, cell, value, 0);
    tensor_of(&value->meta, 0, cell, out);
    value_drop(recorder, value);
    return DJ_OK;
}

enum dj_error recorder_upload(struct recorder *recorder, int device, const void *data, const struct dj_tensor *meta_in,
                              struct recorded_at at, struct dj_tensor *out, struct fault *fault)
{
    if (meta_in->rank > DJ_RANK_MAX)
        return fault_set(fault, DJ_E_RANK, "a tensor of %u dimensions; at most %d are taken", meta_in->rank, DJ_RANK_MAX);
    struct tensor_meta meta = tensor_meta_of(meta_in);
    enum dj_error error = tensor_check(&meta, fault);
    if (error != DJ_OK)
        return error;
    struct value *value;
    if (tensor_count(&meta) == 0) {
        struct attr attr[2] = {attr_ints(meta.size, meta.rank), attr_int(0)};
        error = node_emit(recorder, OP_FULL, NULL, NULL, attr, meta.dtype, device, at, &value, fault);
        return error != DJ_OK ? error : cell_of(recorder, device, value, out, fault);
    }
    char text[TENSOR_TEXT_MAX];
    if (data == NULL || !tensor_is_dense(&meta))
        return fault_set(fault, DJ_E_INVALID, "%s to upload must be dense in some order of its dimensions",
                         tensor_text(&meta, text));
    uint64_t bytes = (uint64_t)tensor_bytes(&meta);
    struct leaf *leaf;
    error = leaf_of(recorder->leaves, data, bytes, &leaf);
    if (error != DJ_OK)
        return fault_set(fault, error, "no memory to keep the %llu bytes of %s", (unsigned long long)bytes,
                         tensor_text(&meta, text));
    value = value_make(recorder, VALUE_LEAF, &meta);
    if (value == NULL) {
        leaf_drop(leaf);
        return fault_set(fault, DJ_E_NO_MEMORY, "no memory for one more value");
    }
    value->leaf = leaf;
    if (leaf->known == 0)
        recorder->leaf_bytes_pending += bytes;
    return cell_of(recorder, device, value, out, fault);
}

enum dj_error recorder_to_device(struct recorder *recorder, const struct dj_tensor *tensor, int device, struct recorded_at at,
                                 struct dj_tensor *out, struct fault *fault)
{
    struct value *value;
    enum dj_error error = window_resolve(recorder, tensor, at, &value, fault);
    if (error != DJ_OK)
        return error;
    if (!tensor_is_dense(&value->meta)) {
        struct attr format = attr_int(FORMAT_PRESERVE);
        struct value *dense;
        error = node_emit(recorder, OP_CLONE, value, NULL, &format, DTYPE_NONE, tensor->cell->device, at, &dense, fault);
        value_drop(recorder, value);
        if (error != DJ_OK)
            return error;
        value = dense;
    }
    return cell_of(recorder, device, value, out, fault);
}
