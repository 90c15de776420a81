// Recording one op: the hot path. Arguments become held values, shapes are inferred, a node is appended; view ops only move a window.

#include "frontend/client/recorder/graph.h"

#include <stdlib.h>
#include <string.h>

#include "core/base/assert.h"
#include "core/base/bits.h"

_Static_assert(sizeof(struct dj_attr) == sizeof(struct attr) && offsetof(struct dj_attr, value) == offsetof(struct attr, i) &&
                   (int)DJ_ATTR_ABSENT == (int)ATTR_ABSENT && (int)DJ_ATTR_INTS == (int)ATTR_INTS &&
                   (int)DJ_ATTR_FLOAT == (int)ATTR_FLOAT && (int)DJ_ATTR_BOOL == (int)ATTR_BOOL,
               "struct dj_attr is struct attr");

enum { RECORD_INPUTS_FAST = 8 };

static enum dj_error attrs_check(const struct op_info *op, const struct dj_attr *attr, uint32_t n_attr, struct fault *fault)
{
    if (n_attr != op->attrs)
        return fault_set(fault, DJ_E_INVALID, "%s takes %u attributes, %u were given", op->name, op->attrs, n_attr);
    for (uint32_t i = 0; i < n_attr; i++)
        if (attr[i].kind > DJ_ATTR_INTS || (attr[i].kind == DJ_ATTR_INTS &&
                                            (attr[i].count > ATTR_INTS_MAX || (attr[i].value.ints == NULL && attr[i].count > 0))))
            return fault_set(fault, DJ_E_INVALID, "attribute %u of %s is not valid", i, op->name);
    return DJ_OK;
}

static enum dj_error input_of(struct recorder *recorder, const struct op_info *op, const struct dj_arg *arg,
                              struct recorded_at at, struct node_in *ret, struct fault *fault)
{
    *ret = (struct node_in){.kind = REF_ABSENT};
    switch (arg->kind) {
    case DJ_ARG_ABSENT: return DJ_OK;
    case DJ_ARG_SCALAR:
        if (arg->scalar_dtype != DTYPE_BOOL && arg->scalar_dtype != DTYPE_I64 && arg->scalar_dtype != DTYPE_F64)
            return fault_set(fault, DJ_E_DTYPE, "%s: a Python number is bool, int64 or float64, not dtype %d", op->name,
                             arg->scalar_dtype);
        ret->kind = REF_SCALAR;
        ret->dtype = (uint8_t)arg->scalar_dtype;
        ret->scalar = arg->scalar;
        return DJ_OK;
    case DJ_ARG_TENSOR: {
        if (arg->tensor == NULL)
            return fault_set(fault, DJ_E_INVALID, "%s: a tensor argument without a tensor", op->name);
        enum dj_error error = window_resolve(recorder, arg->tensor, at, &ret->value, fault);
        if (error == DJ_OK)
            ret->kind = REF_NODE;
        return error;
    }
    default: return fault_set(fault, DJ_E_INVALID, "%s: an argument of unknown kind %d", op->name, arg->kind);
    }
}

// Where a node runs: with its tensors; one that is bound to a device decides for those that are not.
static int device_of(const struct dj_arg *in, uint32_t n_in, int device)
{
    bool has_tensor = false;
    for (uint32_t i = 0; i < n_in; i++) {
        if (in[i].kind != DJ_ARG_TENSOR)
            continue;
        if (!has_tensor || device == DJ_ANY_DEVICE)
            device = in[i].tensor->cell->device;
        has_tensor = true;
    }
    return device;
}

// Views --------------------------------------------------------------------------------------------------------------------

// AS_STRIDED names elements of the storage, whatever its input looks like: a window like any other, and no node until it is read.
static enum dj_error record_as_strided(const struct dj_tensor *in, const struct attr *attr, struct dj_tensor *out,
                                       struct fault *fault)
{
    if (attr[0].kind != ATTR_INTS || attr[1].kind != ATTR_INTS || attr[0].count != attr[1].count || attr[0].count > DJ_RANK_MAX ||
        (attr[2].kind != ATTR_INT && attr[2].kind != ATTR_ABSENT))
        return fault_set(fault, DJ_E_INVALID, "AS_STRIDED takes equally many sizes and strides, at most %d, and an offset",
                         DJ_RANK_MAX);
    struct tensor_meta meta = {.dtype = (enum dtype)in->dtype, .rank = attr[0].count};
    memcpy(meta.size, attr[0].ints, meta.rank * sizeof meta.size[0]);
    memcpy(meta.stride, attr[1].ints, meta.rank * sizeof meta.stride[0]);
    int64_t offset = attr[2].kind == ATTR_INT ? attr[2].i : in->offset, end;
    enum dj_error error = tensor_check(&meta, fault);
    if (error != DJ_OK)
        return error;
    if (offset < 0 || !i64_add(offset, tensor_span(&meta), &end))
        return fault_set(fault, DJ_E_INVALID, "AS_STRIDED at offset %lld does not fit in any storage", (long long)offset);
    tensor_of(&meta, offset, in->cell, out);
    return DJ_OK;
}

// Remembers how the new window comes about: from the base, from a remembered window, or, failing both, by its geometry.
static void remember(struct recorder *recorder, struct dj_cell *cell, struct value *from, const struct node_call *call,
                     const struct tensor_meta *meta, int64_t offset, struct value *value)
{
    if (from == cell->base) {
        window_remember(recorder, cell, NULL, call->op, call->attr, meta, offset, value);
    } else if (from->view != NULL) {
        window_remember(recorder, cell, from->view, call->op, call->attr, meta, offset, value);
    } else {
        struct attr attr[3] = {attr_ints(meta->size, meta->rank), attr_ints(meta->stride, meta->rank),
                               attr_int(offset - cell->offset)};
        window_remember(recorder, cell, NULL, op_info(OP_AS_STRIDED), attr, meta, offset, value);
    }
}

static enum dj_error view_of_zeros(const struct dj_tensor *in, const struct op_info *op, const struct attr *attr,
                                   struct dj_tensor *out, struct fault *fault)
{
    if (in->rank > DJ_RANK_MAX)
        return fault_set(fault, DJ_E_RANK, "a tensor of %u dimensions; at most %d are taken", in->rank, DJ_RANK_MAX);
    struct tensor_meta meta = tensor_meta_of(in);
    enum dj_error error = tensor_check(&meta, fault);
    struct op_result result;
    struct op_call call = {.op = op, .in = &meta, .n_in = 1, .attr = attr};
    if (error == DJ_OK)
        error = op_infer(&call, &result, fault);
    if (error == DJ_OK)
        tensor_of(&result.out[0], in->offset + result.view_offset[0], in->cell, out);
    return error;
}

static enum dj_error record_view(struct recorder *recorder, const struct op_info *op, const struct dj_arg *arg, uint32_t n_in,
                                 const struct attr *attr, struct recorded_at at, struct dj_tensor *out, struct fault *fault)
{
    if (n_in != 1 || arg->kind != DJ_ARG_TENSOR || arg->tensor == NULL)
        return fault_set(fault, DJ_E_INVALID, "%s takes one tensor", op->name);
    const struct dj_tensor *tensor = arg->tensor;
    struct dj_cell *cell = tensor->cell;
    enum dj_error error = cell_check(recorder, cell, fault);
    if (error != DJ_OK)
        return error;
    if (op->number == OP_AS_STRIDED)
        return record_as_strided(tensor, attr, out, fault);
    if (cell->base == NULL)
        return view_of_zeros(tensor, op, attr, out, fault);

    struct node_in in;
    error = input_of(recorder, op, arg, at, &in, fault);
    if (error != DJ_OK)
        return error;
    struct node_call call = {.op = op, .in = &in, .attr = attr, .n_in = 1, .device = cell->device, .at = at};
    struct op_result result;
    error = node_infer(&call, &result, fault);
    if (error != DJ_OK) {
        node_call_drop(recorder, &call);
        return error;
    }
    const struct tensor_meta *meta = &result.out[0];
    int64_t offset = tensor->offset + result.view_offset[0];
    struct view *view = NULL;
    bool is_known = tensor_count(meta) == 0 || (offset == cell->offset && geometry_equal(meta, &cell->base->meta));
    if (!is_known) {
        view = window_find(cell, meta, offset);
        is_known = view != NULL && view->value != NULL;
    }
    if (is_known) {
        node_call_drop(recorder, &call);
        tensor_of(meta, offset, cell, out);
        return DJ_OK;
    }
    struct value *from = value_hold(in.value), *outs[OP_OUTPUTS_MAX];
    error = node_append(recorder, &call, &result, outs);
    if (error == DJ_OK) {
        if (view != NULL)
            view_set_value(recorder, view, outs[0]);
        else
            remember(recorder, cell, from, &call, meta, offset, outs[0]);
        value_drop(recorder, outs[0]);
        tensor_of(meta, offset, cell, out);
    }
    value_drop(recorder, from);
    return error;
}

// Everything else ----------------------------------------------------------------------------------------------------------

static enum dj_error outputs_make(struct recorder *recorder, const struct node_call *call, struct value **outs,
                                  struct dj_tensor *out, struct fault *fault)
{
    uint32_t made = 0;
    for (; made < call->op->outputs; made++) {
        struct dj_cell *cell = recorder_cell(recorder, call->device);
        if (cell == NULL)
            break;
        // The reference that the value was born with becomes the cell's.
        outs[made]->roots++;
        cell->base = outs[made];
        tensor_of(&outs[made]->meta, 0, cell, &out[made]);
    }
    if (made == call->op->outputs)
        return DJ_OK;
    for (uint32_t o = 0; o < call->op->outputs; o++) {
        if (o < made)
            recorder_cell_drop(recorder, out[o].cell);
        else
            value_drop(recorder, outs[o]);
    }
    return fault_set(fault, DJ_E_NO_MEMORY, "no memory for one more tensor (at most %d live at once)", RECORDER_CELLS_MAX);
}

static enum dj_error record_inputs(struct recorder *recorder, const struct dj_arg *in, struct node_call *call,
                                   struct fault *fault)
{
    uint32_t n_in = call->n_in;
    for (call->n_in = 0; call->n_in < n_in; call->n_in++) {
        enum dj_error error = input_of(recorder, call->op, &in[call->n_in], call->at, &call->in[call->n_in], fault);
        if (error != DJ_OK) {
            node_call_drop(recorder, call);
            return error;
        }
    }
    return DJ_OK;
}

enum dj_error recorder_record(struct recorder *recorder, uint32_t number, const struct dj_arg *in, uint32_t n_in,
                              const struct dj_attr *attr, uint32_t n_attr, int dtype, int device, struct recorded_at at,
                              struct dj_tensor *out, struct fault *fault)
{
    const struct op_info *op = op_info(number);
    if (op == NULL)
        return fault_set(fault, DJ_E_OP_UNKNOWN, "no op has the number %u", number);
    if (n_in > OP_INPUTS_MAX || n_in < op->inputs_min)
        return fault_set(fault, DJ_E_INVALID, "%s takes %u to %d tensors, %u were given", op->name, op->inputs_min, OP_INPUTS_MAX,
                         n_in);
    if (dtype != DTYPE_NONE && (dtype < 0 || !dtype_is_known((uint64_t)dtype)))
        return fault_set(fault, DJ_E_DTYPE, "%s: no dtype has the number %d", op->name, dtype);
    enum dj_error error = attrs_check(op, attr, n_attr, fault);
    if (error != DJ_OK)
        return error;
    const struct attr *attrs = (const struct attr *)(const void *)attr;
    if ((op->flags & OP_IS_VIEW) != 0)
        return record_view(recorder, op, in, n_in, attrs, at, out, fault);

    struct node_in fast[RECORD_INPUTS_FAST];
    struct node_call call = {.op = op, .in = fast, .attr = attrs, .n_in = n_in, .dtype = (enum dtype)dtype, .at = at};
    if (n_in > RECORD_INPUTS_FAST && (call.in = malloc(n_in * sizeof *call.in)) == NULL)
        return fault_set(fault, DJ_E_NO_MEMORY, "%s: no memory for %u inputs", op->name, n_in);
    error = record_inputs(recorder, in, &call, fault);
    if (error == DJ_OK) {
        call.device = device_of(in, n_in, device);
        struct op_result result;
        struct value *outs[OP_OUTPUTS_MAX];
        error = node_infer(&call, &result, fault);
        if (error != DJ_OK)
            node_call_drop(recorder, &call);
        else if ((error = node_append(recorder, &call, &result, outs)) != DJ_OK)
            fault_set(fault, error, "%s: no memory to record it", op->name);
        else
            error = outputs_make(recorder, &call, outs, out, fault);
    }
    if (call.in != fast)
        free(call.in);
    return error;
}
