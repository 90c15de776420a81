// Checking a plan: everything that later code relies on without looking again. Operands point backwards (so the order is
// topological and there is no cycle), operands and attributes have the kinds and numbers that the op's signature takes, dtypes are
// known, ranks within the limit. Sizes are not here: they come with each execution and plan_infer judges them.

#include "core/base/assert.h"
#include "core/srg/plan_internal.h"

static const char *const KIND_NAME[] = {"nothing", "an int", "a bool", "a float", "ints"};

static enum dj_error check_inputs(const struct srg_plan *plan, struct fault *fault)
{
    for (uint32_t i = 0; i < plan->inputs; i++) {
        const struct srg_input *input = &plan->input[i];
        if (!dtype_is_known(input->dtype))
            return fault_set(fault, DJ_E_PLAN_INVALID, "input %u has dtype number %u, which is none", i, input->dtype);
        if (input->rank > DJ_RANK_MAX)
            return fault_set(fault, DJ_E_PLAN_INVALID, "input %u has %u dimensions; at most %d are possible", i, input->rank,
                             DJ_RANK_MAX);
    }
    return DJ_OK;
}

static enum dj_error check_ref(const struct srg_plan *plan, uint32_t n, uint32_t k, bool may_be_absent, struct fault *fault)
{
    const struct srg_node *node = &plan->node[n];
    const struct srg_ref *ref = &plan->ref[node->first_ref + k];
    const char *name = op_info(node->op)->name;
    switch (ref->kind) {
    case REF_ABSENT:
        if (!may_be_absent)
            return fault_set(fault, DJ_E_PLAN_INVALID, "node %u (%s): operand %u is absent but not optional", n, name, k);
        return DJ_OK;
    case REF_NODE:
        if (ref->index >= n)
            return fault_set(fault, DJ_E_PLAN_INVALID, "node %u (%s): operand %u is node %u, which does not come before it", n,
                             name, k, ref->index);
        if (ref->output >= plan->node[ref->index].outputs)
            return fault_set(fault, DJ_E_PLAN_INVALID, "node %u (%s): operand %u is output %u of node %u, which has %u", n, name,
                             k, ref->output, ref->index, plan->node[ref->index].outputs);
        return DJ_OK;
    case REF_INPUT:
        if (ref->index >= plan->inputs)
            return fault_set(fault, DJ_E_PLAN_INVALID, "node %u (%s): operand %u is input %u of %u", n, name, k, ref->index,
                             plan->inputs);
        return DJ_OK;
    case REF_SCALAR:
        if (ref->dtype != DTYPE_BOOL && ref->dtype != DTYPE_I64 && ref->dtype != DTYPE_F64)
            return fault_set(fault, DJ_E_PLAN_INVALID,
                             "node %u (%s): operand %u is a scalar of %s; only bool, int64 and float64 are", n, name, k,
                             dtype_is_known(ref->dtype) ? dtype_name(ref->dtype) : "an unknown dtype");
        return DJ_OK;
    default:
        return fault_set(fault, DJ_E_PLAN_INVALID, "node %u (%s): operand %u has kind %u, which is none", n, name, k, ref->kind);
    }
}

// Operands are dealt to the signature's tensor arguments in order; a list takes what the others leave.
static enum dj_error check_refs(const struct srg_plan *plan, uint32_t n, struct fault *fault)
{
    const struct srg_node *node = &plan->node[n];
    const struct op_info *op = op_info(node->op);
    uint32_t single = 0;
    bool has_list = false;
    for (uint32_t i = 0; i < op->args; i++) {
        single += op->arg[i].kind == ARG_TENSOR || op->arg[i].kind == ARG_TENSOR_OPT;
        has_list |= op->arg[i].kind == ARG_TENSORS || op->arg[i].kind == ARG_TENSORS_OPT;
    }
    if (node->refs < single || (node->refs > single && !has_list))
        return fault_set(fault, DJ_E_PLAN_INVALID, "node %u (%s): has %u operands, its signature is \"%s\"", n, op->name,
                         node->refs, op->signature);
    uint32_t k = 0;
    for (uint32_t i = 0; i < op->args; i++) {
        uint8_t kind = op->arg[i].kind;
        if (kind > ARG_TENSORS_OPT)
            continue;
        bool is_list = kind == ARG_TENSORS || kind == ARG_TENSORS_OPT;
        bool may_be_absent = kind == ARG_TENSOR_OPT || kind == ARG_TENSORS_OPT || op->arg[i].is_optional;
        for (uint32_t last = k + (is_list ? node->refs - single : 1); k < last; k++) {
            enum dj_error error = check_ref(plan, n, k, may_be_absent, fault);
            if (error != DJ_OK)
                return error;
        }
    }
    assert(k == node->refs);
    return DJ_OK;
}

static bool kind_fits(const struct op_arg *arg, uint8_t kind)
{
    switch (arg->kind) {
    case ARG_INT:
    case ARG_ENUM: return kind == ATTR_INT;
    case ARG_BOOL: return kind == ATTR_BOOL;
    case ARG_FLOAT: return kind == ATTR_FLOAT;
    case ARG_SCALAR: return kind == ATTR_INT || kind == ATTR_BOOL || kind == ATTR_FLOAT;
    case ARG_INTS: return kind == ATTR_INTS;
    default: return false;
    }
}

static enum dj_error check_attrs(const struct srg_plan *plan, uint32_t n, struct fault *fault)
{
    const struct srg_node *node = &plan->node[n];
    const struct op_info *op = op_info(node->op);
    for (uint32_t i = 0; i < op->args; i++) {
        const struct op_arg *arg = &op->arg[i];
        if (arg->attr < 0)
            continue;
        const struct srg_attr *attr = &plan->attr[node->first_attr + (uint8_t)arg->attr];
        bool fits = attr->kind == ATTR_ABSENT ? arg->is_optional : kind_fits(arg, attr->kind);
        if (!fits)
            return fault_set(fault, DJ_E_PLAN_INVALID, "node %u (%s): attribute %s is %s, its signature is \"%s\"", n, op->name,
                             arg->name, attr->kind <= ATTR_INTS ? KIND_NAME[attr->kind] : "of no known kind", op->signature);
        if (attr->kind == ATTR_INTS && attr->count > ATTR_INTS_MAX)
            return fault_set(fault, DJ_E_PLAN_INVALID, "node %u (%s): attribute %s has %u elements; at most %d are possible", n,
                             op->name, arg->name, attr->count, ATTR_INTS_MAX);
        if (attr->is_bound != (attr->kind != ATTR_ABSENT && !arg->is_static))
            return fault_set(fault, DJ_E_PLAN_INVALID, "node %u (%s): attribute %s is %s, against its signature \"%s\"", n,
                             op->name, arg->name, attr->is_bound ? "bound" : "static", op->signature);
    }
    return DJ_OK;
}

static enum dj_error check_node(const struct srg_plan *plan, uint32_t n, struct fault *fault)
{
    const struct srg_node *node = &plan->node[n];
    const struct op_info *op = op_info(node->op);
    if (op == NULL)
        return fault_set(fault, DJ_E_OP_UNKNOWN, "node %u has op number %u, which this version does not know", n, node->op);
    if (node->module >= plan->modules)
        return fault_set(fault, DJ_E_PLAN_INVALID, "node %u (%s): module %u of %u", n, op->name, node->module, plan->modules);
    for (uint32_t o = 0; o < node->outputs; o++) {
        if (!dtype_is_known(node->dtype[o]))
            return fault_set(fault, DJ_E_PLAN_INVALID, "node %u (%s): output %u has dtype number %u, which is none", n, op->name,
                             o, node->dtype[o]);
    }
    enum dj_error error = check_refs(plan, n, fault);
    if (error == DJ_OK)
        error = check_attrs(plan, n, fault);
    return error;
}

enum dj_error plan_check(const struct srg_plan *plan, struct fault *fault)
{
    enum dj_error error = check_inputs(plan, fault);
    for (uint32_t n = 0; n < plan->nodes && error == DJ_OK; n++)
        error = check_node(plan, n, fault);
    return error;
}

// Overlong forms, surrogates and numbers over U+10FFFF are none.
bool text_is_utf8(const char *text)
{
    const uint8_t *at = (const uint8_t *)text;
    while (*at != 0) {
        size_t more = at[0] < 0x80                    ? 0
                      : at[0] >= 0xC2 && at[0] < 0xE0 ? 1
                      : at[0] >> 4 == 14              ? 2
                      : at[0] >= 0xF0 && at[0] < 0xF5 ? 3
                                                      : 9;
        if (more == 9)
            return false;
        uint32_t point = at[0] & (0x7Fu >> (more == 0 ? 0 : more + 1));
        for (size_t i = 1; i <= more; i++) {
            if (at[i] >> 6 != 2)    // the closing NUL ends this too
                return false;
            point = point << 6 | (at[i] & 0x3F);
        }
        if ((more == 2 && (point < 0x800 || (point >= 0xD800 && point < 0xE000))) ||
            (more == 3 && (point < 0x10000 || point > 0x10FFFF)))
            return false;
        at += more + 1;
    }
    return true;
}
