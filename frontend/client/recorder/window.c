// Windows: from (sizes, strides, offset) on a cell to the value that has these elements.
//
// A cell knows its base value and up to RECORDER_VIEWS_MAX windows that view ops derived, each with the op that derives it. A window is
// looked up, or derived again, or, if no op is known, cut out by AS_STRIDED. Values change with every write; the recipes stay.

#include "frontend/client/recorder/graph.h"

#include <stdlib.h>
#include <string.h>

#include "core/base/assert.h"
#include "core/base/bits.h"

_Static_assert(sizeof(enum dtype) == sizeof(int32_t), "djinn.h carries dtypes as int32_t");
_Static_assert((int)DJ_RANK_MAX == DJ_MAX_RANK && (int)OP_OUTPUTS_MAX == DJ_MAX_OUTPUTS,
               "the bounds of djinn.h are those of the core");

bool geometry_equal(const struct tensor_meta *a, const struct tensor_meta *b)
{
    if (a->rank != b->rank)
        return false;
    for (uint32_t d = 0; d < a->rank; d++)
        if (a->size[d] != b->size[d] || (a->stride[d] != b->stride[d] && a->size[d] > 1))
            return false;
    return true;
}

static uint64_t window_key(const struct tensor_meta *meta, int64_t offset)
{
    uint64_t key = hash_mix(meta->rank, (uint64_t)offset);
    for (uint32_t d = 0; d < meta->rank; d++) {
        key = hash_mix(key, (uint64_t)meta->size[d]);
        if (meta->size[d] > 1)
            key = hash_mix(key, (uint64_t)meta->stride[d]);
    }
    return key;
}

struct tensor_meta tensor_meta_of(const struct dj_tensor *tensor)
{
    struct tensor_meta meta = {.dtype = (enum dtype)tensor->dtype, .rank = tensor->rank};
    uint32_t rank = tensor->rank <= DJ_RANK_MAX ? tensor->rank : 0;
    memcpy(meta.size, tensor->size, rank * sizeof meta.size[0]);
    memcpy(meta.stride, tensor->stride, rank * sizeof meta.stride[0]);
    return meta;
}

void tensor_of(const struct tensor_meta *meta, int64_t offset, struct dj_cell *cell, struct dj_tensor *ret)
{
    ret->cell = cell;
    ret->offset = offset;
    ret->dtype = (int32_t)meta->dtype;
    ret->rank = meta->rank;
    memcpy(ret->size, meta->size, meta->rank * sizeof ret->size[0]);
    memcpy(ret->stride, meta->stride, meta->rank * sizeof ret->stride[0]);
}

// Remembered windows -------------------------------------------------------------------------------------------------------

void view_set_value(struct recorder *recorder, struct view *view, struct value *value)
{
    if (value != NULL) {
        assert(value->view == NULL);
        value_hold(value)->view = view;
    }
    struct value *before = view->value;
    view->value = value;
    if (before != NULL) {
        before->view = NULL;
        value_drop(recorder, before);
    }
}

struct view *window_find(const struct dj_cell *cell, const struct tensor_meta *meta, int64_t offset)
{
    if (cell->views == 0)
        return NULL;
    uint64_t key = window_key(meta, offset);
    for (uint32_t i = 0; i < cell->views; i++) {
        struct view *view = cell->view[i];
        if (view->key == key && view->offset == offset && geometry_equal(&view->meta, meta))
            return view;
    }
    return NULL;
}

static void view_remove(struct recorder *recorder, struct dj_cell *cell, uint32_t index)
{
    struct view *view = cell->view[index];
    view_set_value(recorder, view, NULL);
    if (view->parent != NULL)
        view->parent->children--;
    pool_give(recorder->views, view);
    memmove(&cell->view[index], &cell->view[index + 1], (--cell->views - index) * sizeof cell->view[0]);
}

// Room for one more: the oldest that nothing is derived from goes, but not `parent`.
static bool views_reserve(struct recorder *recorder, struct dj_cell *cell, const struct view *parent)
{
    if (cell->view == NULL)
        cell->view = malloc(RECORDER_VIEWS_MAX * sizeof(struct view *));
    if (cell->view == NULL)
        return false;
    for (uint32_t i = 0; cell->views == RECORDER_VIEWS_MAX && i < cell->views; i++)
        if (cell->view[i]->children == 0 && cell->view[i] != parent)
            view_remove(recorder, cell, i);
    return cell->views < RECORDER_VIEWS_MAX;
}

static bool recipe_set(struct view *view, const struct op_info *op, const struct attr *attr)
{
    if (op->attrs > VIEW_ATTRS_MAX)
        return false;
    uint32_t ints = 0;
    for (uint32_t i = 0; i < op->attrs; i++) {
        view->attr[i] = attr[i];
        if (attr[i].kind != ATTR_INTS)
            continue;
        if (ints + attr[i].count > VIEW_INTS_MAX)
            return false;
        memcpy(&view->ints[ints], attr[i].ints, attr[i].count * sizeof(int64_t));
        view->attr[i].ints = &view->ints[ints];
        ints += attr[i].count;
    }
    view->op = op->number;
    return true;
}

struct view *window_remember(struct recorder *recorder, struct dj_cell *cell, struct view *parent, const struct op_info *op,
                             const struct attr *attr, const struct tensor_meta *meta, int64_t offset, struct value *value)
{
    struct view *view = views_reserve(recorder, cell, parent) ? pool_take(recorder->views) : NULL;
    if (view == NULL)
        return NULL;
    if (!recipe_set(view, op, attr)) {
        pool_give(recorder->views, view);
        return NULL;
    }
    view->key = window_key(meta, offset);
    view->offset = offset;
    view->meta = *meta;
    view->parent = parent;
    if (parent != NULL)
        parent->children++;
    view_set_value(recorder, view, value);
    cell->view[cell->views++] = view;
    return view;
}

void window_forget_values(struct recorder *recorder, struct dj_cell *cell)
{
    for (uint32_t i = 0; i < cell->views; i++)
        view_set_value(recorder, cell->view[i], NULL);
}

void window_forget_all(struct recorder *recorder, struct dj_cell *cell)
{
    while (cell->views > 0)
        view_remove(recorder, cell, cell->views - 1);
}

void cell_set_base(struct recorder *recorder, struct dj_cell *cell, struct value *value, int64_t offset)
{
    value_root(value);
    bool is_same_geometry = cell->base != NULL && cell->offset == offset && cell->base->meta.dtype == value->meta.dtype &&
                            geometry_equal(&cell->base->meta, &value->meta);
    if (is_same_geometry)
        window_forget_values(recorder, cell);
    else
        window_forget_all(recorder, cell);
    value_unroot(recorder, cell->base);
    cell->base = value;
    cell->offset = offset;
}

// Resolving ----------------------------------------------------------------------------------------------------------------

static enum dj_error make_zeros(struct recorder *recorder, const struct tensor_meta *meta, int device, struct recorded_at at,
                                struct value **ret, struct fault *fault)
{
    struct attr attr[2] = {attr_ints(meta->size, meta->rank), attr_int(0)};
    return node_emit(recorder, OP_FULL, NULL, NULL, attr, meta->dtype, device, at, ret, fault);
}

static enum dj_error make_strided(struct recorder *recorder, struct value *base, const struct tensor_meta *meta, int64_t offset,
                                  int device, struct recorded_at at, struct value **ret, struct fault *fault)
{
    struct attr attr[3] = {attr_ints(meta->size, meta->rank), attr_ints(meta->stride, meta->rank), attr_int(offset)};
    return node_emit(recorder, OP_AS_STRIDED, base, NULL, attr, DTYPE_NONE, device, at, ret, fault);
}

enum dj_error cell_flatten(struct recorder *recorder, struct dj_cell *cell, int64_t elements, enum dtype dtype,
                           struct recorded_at at, struct fault *fault)
{
    struct value *base = cell->base;
    if (base != NULL) {
        int64_t end = cell->offset + tensor_span(&base->meta);
        elements = elements > end ? elements : end;
        dtype = base->meta.dtype;
    }
    struct tensor_meta flat = {.dtype = dtype, .rank = 1, .size = {elements}, .stride = {1}};
    enum dj_error error = tensor_check(&flat, fault);
    if (error != DJ_OK)
        return error;
    struct value *value;
    error = make_zeros(recorder, &flat, cell->device, at, &value, fault);
    if (error == DJ_OK && base != NULL && tensor_count(&base->meta) > 0) {
        struct attr attr[3] = {attr_ints(base->meta.size, base->meta.rank), attr_ints(base->meta.stride, base->meta.rank),
                               attr_int(cell->offset)};
        struct value *zeros = value;
        error = node_emit(recorder, OP_AS_STRIDED_SCATTER, zeros, base, attr, DTYPE_NONE, cell->device, at, &value, fault);
        value_drop(recorder, zeros);
    }
    if (error != DJ_OK)
        return error;
    cell_set_base(recorder, cell, value, 0);
    value_drop(recorder, value);
    return DJ_OK;
}

static bool base_covers(const struct dj_cell *cell, const struct tensor_meta *meta, int64_t offset)
{
    return tensor_is_dense(&cell->base->meta) && offset >= cell->offset &&
           offset + tensor_span(meta) <= cell->offset + tensor_span(&cell->base->meta);
}

// The value of a remembered window, derived again if it went with a write or a flush. Recipes reach back to the base through at most
// RECORDER_VIEWS_MAX parents.
static enum dj_error view_value(struct recorder *recorder, struct dj_cell *cell, struct view *view, struct recorded_at at,
                                struct value **ret, struct fault *fault)
{
    struct view *chain[RECORDER_VIEWS_MAX];
    uint32_t depth = 0;
    for (struct view *v = view; v != NULL && v->value == NULL; v = v->parent) {
        assert(depth < RECORDER_VIEWS_MAX);
        chain[depth++] = v;
    }
    while (depth-- > 0) {
        struct view *v = chain[depth];
        struct value *from = v->parent == NULL ? cell->base : v->parent->value, *value;
        enum dj_error error = node_emit(recorder, (enum op)v->op, from, NULL, v->attr, DTYPE_NONE, cell->device, at, &value,
                                        fault);
        if (error != DJ_OK)
            return error;
        view_set_value(recorder, v, value);
        value_drop(recorder, value);
    }
    *ret = value_hold(view->value);
    return DJ_OK;
}

static enum dj_error resolve_unknown(struct recorder *recorder, struct dj_cell *cell, const struct tensor_meta *meta,
                                     int64_t offset, struct recorded_at at, struct value **ret, struct fault *fault)
{
    enum dj_error error;
    if (!base_covers(cell, meta, offset)) {
        error = cell_flatten(recorder, cell, offset + tensor_span(meta), meta->dtype, at, fault);
        if (error != DJ_OK)
            return error;
    }
    recorder->stats.views_restrided++;
    int64_t from = offset - cell->offset;
    struct value *value;
    error = make_strided(recorder, cell->base, meta, from, cell->device, at, &value, fault);
    if (error != DJ_OK)
        return error;
    struct attr attr[3] = {attr_ints(meta->size, meta->rank), attr_ints(meta->stride, meta->rank), attr_int(from)};
    window_remember(recorder, cell, NULL, op_info(OP_AS_STRIDED), attr, meta, offset, value);
    *ret = value;
    return DJ_OK;
}

enum dj_error cell_check(const struct recorder *recorder, const struct dj_cell *cell, struct fault *fault)
{
    if (cell == NULL || cell->recorder != recorder)
        return fault_set(fault, DJ_E_INVALID, "the tensor has no storage of this process");
    if (cell->generation != recorder->generation)
        return fault_set(fault, recorder->closed.code, "%s", recorder->closed.text);
    return DJ_OK;
}

enum dj_error window_resolve(struct recorder *recorder, const struct dj_tensor *tensor, struct recorded_at at, struct value **ret,
                             struct fault *fault)
{
    struct dj_cell *cell = tensor->cell;
    if (cell == NULL || cell->recorder != recorder || cell->generation != recorder->generation)
        return cell_check(recorder, cell, fault);
    struct tensor_meta meta = tensor_meta_of(tensor);
    struct value *base = cell->base;
    if (base != NULL && tensor->offset == cell->offset && base->meta.dtype == meta.dtype && tensor->rank <= DJ_RANK_MAX &&
        geometry_equal(&base->meta, &meta)) {
        *ret = value_hold(base);
        return DJ_OK;
    }
    if (tensor->rank > DJ_RANK_MAX)
        return fault_set(fault, DJ_E_RANK, "a tensor of %u dimensions; at most %d are taken", tensor->rank, DJ_RANK_MAX);
    struct view *view = base != NULL && base->meta.dtype == meta.dtype ? window_find(cell, &meta, tensor->offset) : NULL;
    if (view != NULL)
        return view_value(recorder, cell, view, at, ret, fault);

    enum dj_error error = tensor_check(&meta, fault);
    if (error != DJ_OK)
        return error;
    int64_t end;
    if (tensor->offset < 0 || !i64_add(tensor->offset, tensor_span(&meta), &end))
        return fault_set(fault, DJ_E_INVALID, "a window at offset %lld does not fit in any storage", (long long)tensor->offset);
    if (base == NULL || tensor_count(&meta) == 0)
        return make_zeros(recorder, &meta, cell->device, at, ret, fault);
    if (base->meta.dtype != meta.dtype)
        return fault_set(fault, DJ_E_UNSUPPORTED, "the storage holds %s and is read as %s; reinterpreting bits is not supported",
                         dtype_name(base->meta.dtype), dtype_name(meta.dtype));
    return resolve_unknown(recorder, cell, &meta, tensor->offset, at, ret, fault);
}
