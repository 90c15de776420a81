// Inference over a plan: sizes, strides and dtypes of every output for one binding vector. What a client computes while recording and
// a worker computes before it runs are this same walk over the same op table, so shapes never travel.
//
// Hot: once for each new binding vector. Operand metas are 136 bytes; a node with one operand reads it where it lies, others copy
// only the dimensions in use. Nothing is allocated unless a node has more operands than OPERANDS_FAST.

#include "core/srg/bindings.h"

#include "core/base/assert.h"

#include <stdlib.h>
#include <string.h>

enum { OPERANDS_FAST = 12 };

static inline void copy_meta(struct tensor_meta *to, const struct tensor_meta *from)
{
    to->dtype = from->dtype;
    to->rank = from->rank;
    if (from->rank <= 4) {    // fixed lengths: two moves each instead of a call
        memcpy(to->size, from->size, 4 * sizeof to->size[0]);
        memcpy(to->stride, from->stride, 4 * sizeof to->stride[0]);
    } else {
        memcpy(to->size, from->size, sizeof to->size);
        memcpy(to->stride, from->stride, sizeof to->stride);
    }
}

static enum dj_error operand(const struct srg_plan *plan, const int64_t *word, const struct tensor_meta *out,
                             const struct srg_ref *ref, struct tensor_meta *ret, struct fault *fault)
{
    switch (ref->kind) {
    case REF_NODE: copy_meta(ret, &out[plan->node[ref->index].first_output + ref->output]); return DJ_OK;
    case REF_INPUT: return binding_meta(plan, word, ref->index, ret, fault);
    case REF_SCALAR:
        ret->dtype = ref->dtype;
        ret->rank = 0;
        return DJ_OK;
    default:
        ret->dtype = DTYPE_NONE;
        ret->rank = 0;
        return DJ_OK;
    }
}

static enum dj_error name_node(const struct srg_plan *plan, uint32_t n, enum dj_error error, struct fault *fault)
{
    if (fault == NULL)
        return error;
    const struct srg_node *node = &plan->node[n];
    const char *path = plan->module[node->module].path;
    if (path[0] == '\0')
        return fault_wrap(fault, "node %u (%s)", n, op_info(node->op)->name);
    return fault_wrap(fault, "node %u (%s in %s)", n, op_info(node->op)->name, path);
}

struct operands {
    struct tensor_meta *in;
    bool *is_scalar;
    uint32_t capacity;
};

static enum dj_error infer_node(const struct srg_plan *plan, const int64_t *word, uint32_t n, const struct operands *operands,
                                struct tensor_meta *out, int64_t *offset, struct fault *fault)
{
    const struct srg_node *node = &plan->node[n];
    const struct srg_ref *ref = &plan->ref[node->first_ref];
    struct attr attr[OP_ATTRS_MAX];
    binding_attrs(plan, word, n, attr);

    struct op_call call = {
        .op = op_info(node->op), .in = operands->in, .n_in = node->refs, .attr = attr, .dtype = node->dtype[0]};
    if (node->refs == 1 && ref->kind == REF_NODE) {
        call.in = &out[plan->node[ref->index].first_output + ref->output];
    } else {
        bool has_scalar = false;
        for (uint32_t r = 0; r < node->refs; r++) {
            enum dj_error error = operand(plan, word, out, &ref[r], &operands->in[r], fault);
            if (error != DJ_OK)
                return name_node(plan, n, error, fault);
            operands->is_scalar[r] = ref[r].kind == REF_SCALAR;
            has_scalar |= operands->is_scalar[r];
        }
        call.in_is_scalar = has_scalar ? operands->is_scalar : NULL;
    }

    struct op_result result;
    enum dj_error error = op_infer(&call, &result, fault);
    if (error != DJ_OK)
        return name_node(plan, n, error, fault);
    bool is_view = (call.op->flags & OP_IS_VIEW) != 0;
    for (uint32_t o = 0; o < node->outputs; o++) {
        if (result.out[o].dtype != node->dtype[o])
            return fault_set(fault, DJ_E_DTYPE, "node %u (%s): output %u was recorded as %s, but these operands give %s", n,
                             call.op->name, o, dtype_name(node->dtype[o]), dtype_name(result.out[o].dtype));
        copy_meta(&out[node->first_output + o], &result.out[o]);
        if (offset != NULL)
            offset[node->first_output + o] = is_view ? result.view_offset[o] : 0;
    }
    return DJ_OK;
}

// Room for the operands of the node with the most of them.
static enum dj_error operands_for(const struct srg_plan *plan, struct operands *operands)
{
    uint32_t most = 0;
    for (uint32_t n = 0; n < plan->nodes; n++)
        most = plan->node[n].refs > most ? plan->node[n].refs : most;
    if (most <= operands->capacity)
        return DJ_OK;
    struct tensor_meta *in = malloc(most * (sizeof operands->in[0] + sizeof operands->is_scalar[0]));
    if (in == NULL)
        return DJ_E_NO_MEMORY;
    *operands = (struct operands){.in = in, .is_scalar = (bool *)(in + most), .capacity = most};
    return DJ_OK;
}

enum dj_error plan_infer(const struct srg_plan *plan, const int64_t *word, struct tensor_meta *out, int64_t *offset,
                         uint32_t *ret_node, struct fault *fault)
{
    struct tensor_meta in[OPERANDS_FAST];
    bool is_scalar[OPERANDS_FAST];
    struct operands operands = {.in = in, .is_scalar = is_scalar, .capacity = OPERANDS_FAST};
    if (operands_for(plan, &operands) != DJ_OK)
        return fault_set(fault, DJ_E_NO_MEMORY, "no memory for the operands of a node with more than %d", OPERANDS_FAST);

    enum dj_error error = DJ_OK;
    for (uint32_t n = 0; n < plan->nodes && error == DJ_OK; n++) {
        error = infer_node(plan, word, n, &operands, out, offset, fault);
        if (error != DJ_OK && ret_node != NULL)
            *ret_node = n;
    }
    if (operands.in != in)
        free(operands.in);
    return error;
}
