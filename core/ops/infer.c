// Inference: checks the form of a call, decides dtypes, hands the shape to its family. The manual is op.h; the seam is infer.h.

#include "core/ops/infer.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static enum dj_error fault_attr(const struct op_call *call, uint32_t index, struct fault *fault)
{
    for (uint32_t i = 0; i < call->op->args; i++)
        if (call->op->arg[i].attr == (int)index)
            return fault_set(fault, DJ_E_BINDINGS_INVALID, "%s: attribute %s is missing, of another kind, or out of range",
                             call->op->name, call->op->arg[i].name);
    return fault_set(fault, DJ_E_BINDINGS_INVALID, "%s: attribute %" PRIu32 " does not exist", call->op->name, index);
}

static enum dj_error check_attrs(const struct op_call *call, const struct op_row *row, struct fault *fault)
{
    for (uint32_t i = 0; i < call->op->attrs; i++) {
        const struct attr *attr = &call->attr[i];
        if (attr->kind > ATTR_INTS || !(row->attr_kinds[i] >> attr->kind & 1))
            return fault_attr(call, i, fault);
        switch (attr->kind) {
        case ATTR_BOOL:
            if ((uint64_t)attr->i > 1)
                return fault_attr(call, i, fault);
            break;
        case ATTR_INT:
            if (row->attr_limit[i] != 0 && (uint64_t)attr->i >= row->attr_limit[i])
                return fault_attr(call, i, fault);
            break;
        case ATTR_INTS:
            if (attr->count > ATTR_INTS_MAX || (attr->count > 0 && attr->ints == NULL))
                return fault_attr(call, i, fault);
            break;
        default: break;
        }
    }
    return DJ_OK;
}

static enum dj_error check_inputs(const struct op_call *call, const struct op_row *row, struct fault *fault)
{
    if (call->n_in < row->fixed || (row->list < 0 && call->n_in > row->fixed) || call->n_in > OP_INPUTS_MAX)
        return fault_set(fault, DJ_E_PLAN_INVALID, "%s: takes %s%u inputs, not %" PRIu32, call->op->name,
                         row->list < 0 ? "" : "at least ", row->fixed, call->n_in);
    uint32_t listed = row->list < 0 ? 0 : call->n_in - row->fixed;
    for (uint32_t i = 0, fixed = 0; i < call->n_in; i++) {
        bool is_listed = row->list >= 0 && i >= (uint32_t)row->list && i < (uint32_t)row->list + listed;
        bool may_lack = is_listed ? row->list_is_optional : (row->optional >> fixed & 1);
        if (!is_listed)
            fixed++;
        if (call->in[i].dtype == DTYPE_NONE ? !may_lack : call->in[i].dtype >= DTYPE_COUNT || call->in[i].rank > DJ_RANK_MAX)
            return fault_set(fault, DJ_E_PLAN_INVALID, "%s: input %" PRIu32 " is absent or not a tensor", call->op->name, i);
    }
    return DJ_OK;
}

enum dj_error op_infer(const struct op_call *call, struct op_result *ret, struct fault *fault)
{
    const struct op_row *row = &op_rows[call->op->number];
    enum dj_error error = check_inputs(call, row, fault);
    if (error == DJ_OK && call->op->attrs > 0)
        error = check_attrs(call, row, fault);
    if (error == DJ_OK)
        error = dtype_decide(call, (enum dtype_rule)row->dtype_rule, ret, fault);
    return error == DJ_OK ? row->infer(call, ret, fault) : error;
}

enum dj_error fault_dim(const struct op_call *call, int64_t dim, uint32_t rank, struct fault *fault)
{
    int limit = rank == 0 ? 1 : (int)rank;
    return fault_set(fault, DJ_E_INDEX, "%s: Dimension out of range (expected to be in range of [%d, %d], but got %" PRId64 ")",
                     call->op->name, -limit, limit - 1, dim);
}

enum dj_error fault_shape(const struct op_call *call, const char *why, struct fault *fault)
{
    if (fault == NULL)
        return DJ_E_SHAPE;
    char shapes[FAULT_TEXT_MAX / 2], text[TENSOR_TEXT_MAX];
    size_t used = 0;
    shapes[0] = '\0';
    for (uint32_t i = 0; i < call->n_in && used < sizeof shapes; i++)
        if (call->in[i].dtype != DTYPE_NONE)
            used += (size_t)snprintf(shapes + used, sizeof shapes - used, "%s%s", used ? ", " : "",
                                     tensor_text(&call->in[i], text));
    return fault_set(fault, DJ_E_SHAPE, "%s: %s; got %s", call->op->name, why, shapes);
}

enum dj_error fault_large(const struct op_call *call, struct fault *fault)
{
    return fault_set(fault, DJ_E_OVERFLOW, "%s: the result would have more than 2^59 elements", call->op->name);
}

enum dj_error dims_mask(const struct op_call *call, const struct attr *dims, uint32_t rank, uint32_t *ret, struct fault *fault)
{
    uint32_t mask = 0, dim = 0;
    if (!attr_is_present(dims) || dims->count == 0) {
        *ret = (1u << rank) - 1;
        return DJ_OK;
    }
    for (uint32_t i = 0; i < dims->count; i++) {
        if (!dim_wrap(dims->ints[i], rank, &dim))
            return fault_dim(call, dims->ints[i], rank, fault);
        if (mask >> dim & 1)
            return fault_set(fault, DJ_E_SHAPE, "%s: dim %" PRIu32 " appears multiple times in the list of dims", call->op->name,
                             dim);
        mask |= 1u << dim;
    }
    *ret = mask;
    return DJ_OK;
}
