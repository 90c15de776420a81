// Plans as Protocol Buffers (srg.proto). Encoding fills the schema's parallel arrays in a scratch arena and packs them; decoding
// unpacks under a byte budget and feeds the builder, so that a plan from the wire passes the same checks as one that was recorded
// and gets its fingerprint from its contents, never from the sender.

#include "core/srg/export.h"

#include "core/base/assert.h"
#include "core/srg/plan_internal.h"
#include "core/srg/proto_internal.h"

#include <string.h>

enum { SCHEMA_VERSION = 1, DEVICE_ANY = 255, REF_KIND_BITS = 2, REF_OUTPUT_BITS = 2, ATTR_BOUND = 8, ATTR_COUNT_BIT = 4 };

_Static_assert(OP_OUTPUTS_MAX <= 1 << REF_OUTPUT_BITS, "an operand's output number must fit in its bits");

// Encoding -----------------------------------------------------------------------------------------------------------------------

static uint32_t device_out(uint8_t device)
{
    return device == DEVICE_ANY ? 0 : device + 1u;
}

static enum dj_error fill_inputs(const struct srg_plan *plan, struct arena *arena, Djinn__Srg__V1__Inputs *ret)
{
    djinn__srg__v1__inputs__init(ret);
    size_t n = plan->inputs;
    uint32_t *column = arena_alloc(arena, 4 * n * sizeof *column);
    if (column == NULL)
        return DJ_E_NO_MEMORY;
    ret->n_form = ret->n_dtype = ret->n_rank = ret->n_device = n;
    ret->form = column;
    ret->dtype = column + n;
    ret->rank = column + 2 * n;
    ret->device = column + 3 * n;
    for (size_t i = 0; i < n; i++) {
        const struct srg_input *input = &plan->input[i];
        ret->form[i] = (input->is_leaf ? 1u : 0u) | (input->is_contiguous ? 2u : 0u);
        ret->dtype[i] = input->dtype;
        ret->rank[i] = input->rank;
        ret->device[i] = device_out(input->device);
    }
    return DJ_OK;
}

static uint32_t ref_out(const struct srg_ref *ref, uint32_t node)
{
    switch (ref->kind) {
    case REF_NODE: return ((node - ref->index - 1) << REF_OUTPUT_BITS | ref->output) << REF_KIND_BITS | REF_NODE;
    case REF_INPUT: return ref->index << REF_KIND_BITS | REF_INPUT;
    case REF_SCALAR: return (uint32_t)ref->dtype << REF_KIND_BITS | REF_SCALAR;
    default: return REF_ABSENT;
    }
}

static enum dj_error fill_nodes(const struct srg_plan *plan, struct arena *arena, Djinn__Srg__V1__Nodes *ret)
{
    djinn__srg__v1__nodes__init(ret);
    size_t n = plan->nodes;
    uint32_t *column = arena_alloc(arena, (4 * n + plan->outputs + plan->refs + plan->attrs) * sizeof *column);
    if (column == NULL)
        return DJ_E_NO_MEMORY;
    ret->n_op = ret->n_refs = ret->n_module = ret->n_device = n;
    ret->op = column;
    ret->refs = column + n;
    ret->module = column + 2 * n;
    ret->device = column + 3 * n;
    ret->dtype = column + 4 * n;
    ret->n_dtype = plan->outputs;
    ret->ref = ret->dtype + plan->outputs;
    ret->n_ref = plan->refs;
    ret->attribute = ret->ref + plan->refs;
    ret->n_attribute = plan->attrs;
    ret->constant = plan->constant;
    ret->n_constant = plan->constants;
    size_t dtypes = 0;
    for (uint32_t i = 0; i < plan->nodes; i++) {
        const struct srg_node *node = &plan->node[i];
        ret->op[i] = node->op;
        ret->refs[i] = node->refs;
        ret->module[i] = node->module;
        ret->device[i] = device_out(node->device);
        for (uint32_t o = 0; o < node->outputs; o++)
            ret->dtype[dtypes++] = node->dtype[o];
        for (uint32_t r = node->first_ref; r < node->first_ref + node->refs; r++)
            ret->ref[r] = ref_out(&plan->ref[r], i);
    }
    for (uint32_t a = 0; a < plan->attrs; a++) {
        const struct srg_attr *attr = &plan->attr[a];
        ret->attribute[a] = (uint32_t)attr->count << ATTR_COUNT_BIT | (attr->is_bound ? (uint32_t)ATTR_BOUND : 0u) | attr->kind;
    }
    return DJ_OK;
}

// Class names repeat: each is written once. Modules come in the order of first use, so equal names are searched backwards.
static enum dj_error fill_modules(const struct srg_plan *plan, struct arena *arena, Djinn__Srg__V1__Modules *ret)
{
    djinn__srg__v1__modules__init(ret);
    size_t n = plan->modules;
    ret->path = arena_alloc(arena, n * sizeof ret->path[0]);
    ret->type_name = arena_alloc(arena, n * sizeof ret->type_name[0]);
    ret->type = arena_alloc(arena, n * sizeof ret->type[0]);
    ret->is_training = arena_alloc(arena, n * sizeof ret->is_training[0]);
    if (ret->path == NULL || ret->type_name == NULL || ret->type == NULL || ret->is_training == NULL)
        return DJ_E_NO_MEMORY;
    ret->n_path = ret->n_type = ret->n_is_training = n;
    enum { SEARCH_MAX = 64 };    // programs have few classes; what is farther back is written again
    for (size_t i = 0; i < n; i++) {
        const struct srg_module *module = &plan->module[i];
        ret->path[i] = (char *)(uintptr_t)module->path;
        ret->is_training[i] = module->is_training;
        size_t t = ret->n_type_name, least = t > SEARCH_MAX ? t - SEARCH_MAX : 0;
        while (t > least && strcmp(ret->type_name[t - 1], module->type) != 0)
            t--;
        if (t == least) {
            ret->type_name[ret->n_type_name++] = (char *)(uintptr_t)module->type;
            t = ret->n_type_name;
        }
        ret->type[i] = (uint32_t)(t - 1);
    }
    return DJ_OK;
}

enum dj_error plan_export(const struct srg_plan *plan, const struct srg_annotations *annotations, struct writer *writer)
{
    assert(annotations == NULL || (annotations->nodes == plan->nodes && annotations->inputs == plan->inputs));

    struct arena *arena;
    enum dj_error error = arena_make(PROTO_SCRATCH_CHUNK, 0, &arena);
    if (error != DJ_OK)
        return error;
    Djinn__Srg__V1__Plan message;
    Djinn__Srg__V1__Inputs inputs;
    Djinn__Srg__V1__Nodes nodes;
    Djinn__Srg__V1__Modules modules;
    Djinn__Srg__V1__Annotations meaning;
    djinn__srg__v1__plan__init(&message);
    message.version = SCHEMA_VERSION;
    message.inputs = &inputs;
    message.nodes = &nodes;
    message.modules = &modules;
    error = fill_inputs(plan, arena, &inputs);
    if (error == DJ_OK)
        error = fill_nodes(plan, arena, &nodes);
    if (error == DJ_OK)
        error = fill_modules(plan, arena, &modules);
    if (error == DJ_OK && annotations != NULL) {
        message.annotations = &meaning;
        error = proto_fill_annotations(annotations, arena, &meaning);
    }
    if (error == DJ_OK)
        error = proto_pack(&message.base, writer);
    arena_free(arena);
    return error;
}

enum dj_error plan_encode(const struct srg_plan *plan, struct writer *writer)
{
    return plan_export(plan, NULL, writer);
}

// Decoding -----------------------------------------------------------------------------------------------------------------------

static bool device_in(uint32_t device, uint8_t *ret)
{
    *ret = (uint8_t)(device - 1);    // 0 becomes DEVICE_ANY
    return device <= DEVICE_ANY;
}

static enum dj_error take_inputs(struct plan_builder *builder, const Djinn__Srg__V1__Inputs *from, struct fault *fault)
{
    if (from->n_form != from->n_dtype || from->n_form != from->n_rank || from->n_form != from->n_device)
        return fault_set(fault, DJ_E_PLAN_INVALID, "the columns of the inputs have different lengths");
    for (size_t i = 0; i < from->n_form; i++) {
        struct srg_input input = {.is_leaf = from->form[i] & 1, .is_contiguous = from->form[i] >> 1 & 1};
        if (from->form[i] > 3 || from->dtype[i] > UINT8_MAX || from->rank[i] > UINT8_MAX ||
            !device_in(from->device[i], &input.device))
            return fault_set(fault, DJ_E_PLAN_INVALID, "input %zu: a form, dtype, rank or device out of range", i);
        input.dtype = (uint8_t)from->dtype[i];
        input.rank = (uint8_t)from->rank[i];
        uint32_t index;
        enum dj_error error = plan_add_input(builder, &input, &index);
        if (error != DJ_OK)
            return fault_set(fault, error, "input %zu: %s", i, dj_error_text(error));
    }
    return DJ_OK;
}

// The sender's module numbers, as the builder's: index[i] for each of theirs.
static enum dj_error take_modules(struct plan_builder *builder, const Djinn__Srg__V1__Modules *from, uint16_t *index,
                                  struct fault *fault)
{
    if (from->n_path != from->n_type || from->n_path != from->n_is_training || from->n_path > PLAN_MODULES_MAX)
        return fault_set(fault, DJ_E_PLAN_INVALID, "the columns of the modules have different lengths, or more than %d rows",
                         PLAN_MODULES_MAX);
    for (size_t i = 0; i < from->n_type_name; i++) {
        if (!text_is_utf8(from->type_name[i]))
            return fault_set(fault, DJ_E_PLAN_INVALID, "the name of module class %zu is not UTF-8", i);
    }
    for (size_t i = 0; i < from->n_path; i++) {
        if (from->type[i] >= from->n_type_name)
            return fault_set(fault, DJ_E_PLAN_INVALID, "module %zu is of class %u of %zu", i, from->type[i], from->n_type_name);
        if (!text_is_utf8(from->path[i]))
            return fault_set(fault, DJ_E_PLAN_INVALID, "the path of module %zu is not UTF-8", i);
        enum dj_error error = plan_add_module(builder, from->path[i], from->type_name[from->type[i]], from->is_training[i] != 0,
                                              &index[i]);
        if (error != DJ_OK)
            return fault_set(fault, error, "module %zu: %s", i, dj_error_text(error));
    }
    return DJ_OK;
}

// Where reading stands in the columns that run across nodes.
struct cursor {
    size_t dtype, ref, attribute, constant;
};

static bool ref_in(uint32_t from, uint32_t node, struct srg_ref *ret)
{
    uint32_t payload = from >> REF_KIND_BITS;
    *ret = (struct srg_ref){.kind = from & ((1u << REF_KIND_BITS) - 1)};
    switch (ret->kind) {
    case REF_NODE:
        ret->output = payload & ((1u << REF_OUTPUT_BITS) - 1);
        ret->index = node - 1 - (payload >> REF_OUTPUT_BITS);
        return payload >> REF_OUTPUT_BITS < node;
    case REF_INPUT: ret->index = payload; return true;
    case REF_SCALAR: ret->dtype = (uint8_t)payload; return payload <= UINT8_MAX;
    default: return payload == 0;
    }
}

// Reads the attributes of one node; `attr` points into the message's constants.
static bool attrs_in(const Djinn__Srg__V1__Nodes *from, const struct op_info *op, struct cursor *at, struct attr *attr)
{
    if (op->attrs > from->n_attribute - at->attribute)
        return false;
    for (uint32_t i = 0; i < op->args; i++) {
        const struct op_arg *arg = &op->arg[i];
        if (arg->attr < 0)
            continue;
        uint32_t code = from->attribute[at->attribute + (uint8_t)arg->attr];
        uint32_t kind = code & (ATTR_BOUND - 1), count = code >> ATTR_COUNT_BIT;
        bool is_bound = code & ATTR_BOUND;
        if (kind > ATTR_INTS || count > ATTR_INTS_MAX || (count != 0 && kind != ATTR_INTS) ||
            is_bound != (kind != ATTR_ABSENT && !arg->is_static))
            return false;
        struct attr *to = &attr[arg->attr];
        *to = (struct attr){.kind = (uint8_t)kind, .count = (uint8_t)count};
        size_t values = kind == ATTR_ABSENT || is_bound ? 0 : kind == ATTR_INTS ? count : 1;
        if (values > from->n_constant - at->constant)
            return false;
        if (values != 0 && kind == ATTR_INTS)
            to->ints = from->constant + at->constant;
        else if (values != 0)
            to->i = from->constant[at->constant];
        at->constant += values;
    }
    at->attribute += op->attrs;
    return true;
}

static enum dj_error take_node(struct plan_builder *builder, const Djinn__Srg__V1__Nodes *from, uint32_t n, struct cursor *at,
                               const uint16_t *modules, size_t n_modules, struct fault *fault)
{
    const struct op_info *op = op_info(from->op[n]);
    if (op == NULL)
        return fault_set(fault, DJ_E_OP_UNKNOWN, "node %u has op number %u, which this version does not know", n, from->op[n]);
    if (from->refs[n] > OP_INPUTS_MAX || from->refs[n] > from->n_ref - at->ref || op->outputs > from->n_dtype - at->dtype)
        return fault_set(fault, DJ_E_PLAN_INVALID, "node %u (%s): more operands or outputs than the columns hold", n, op->name);
    struct srg_ref ref[OP_INPUTS_MAX];
    for (uint32_t r = 0; r < from->refs[n]; r++) {
        if (!ref_in(from->ref[at->ref + r], n, &ref[r]))
            return fault_set(fault, DJ_E_PLAN_INVALID, "node %u (%s): operand %u points nowhere", n, op->name, r);
    }
    uint8_t dtype[OP_OUTPUTS_MAX] = {0}, device;
    for (uint32_t o = 0; o < op->outputs; o++) {
        uint32_t number = from->dtype[at->dtype + o];
        dtype[o] = dtype_is_known(number) ? (uint8_t)number : 0;
    }
    struct attr attr[OP_ATTRS_MAX];
    if (!attrs_in(from, op, at, attr))
        return fault_set(fault, DJ_E_PLAN_INVALID, "node %u (%s): attributes that its signature \"%s\" does not take", n,
                         op->name, op->signature);
    if (from->module[n] >= n_modules || !device_in(from->device[n], &device))
        return fault_set(fault, DJ_E_PLAN_INVALID, "node %u (%s): module or device out of range", n, op->name);
    uint32_t index;
    enum dj_error error = plan_add_node(builder, op, ref, from->refs[n], attr, dtype, modules[from->module[n]], device, &index);
    if (error != DJ_OK)
        return fault_set(fault, error, "node %u (%s): %s", n, op->name, dj_error_text(error));
    at->ref += from->refs[n];
    at->dtype += op->outputs;
    return DJ_OK;
}

static enum dj_error take_nodes(struct plan_builder *builder, const Djinn__Srg__V1__Nodes *from, const uint16_t *modules,
                                size_t n_modules, struct fault *fault)
{
    if (from->n_op != from->n_refs || from->n_op != from->n_module || from->n_op != from->n_device)
        return fault_set(fault, DJ_E_PLAN_INVALID, "the columns of the nodes have different lengths");
    if (from->n_op > PLAN_NODES_MAX)
        return fault_set(fault, DJ_E_LIMIT, "%zu nodes; a plan has at most %d", from->n_op, PLAN_NODES_MAX);
    struct cursor at = {0};
    for (uint32_t n = 0; n < from->n_op; n++) {
        enum dj_error error = take_node(builder, from, n, &at, modules, n_modules, fault);
        if (error != DJ_OK)
            return error;
    }
    if (at.dtype != from->n_dtype || at.ref != from->n_ref || at.attribute != from->n_attribute ||
        at.constant != from->n_constant)
        return fault_set(fault, DJ_E_PLAN_INVALID, "columns of the nodes have more elements than the nodes use");
    return DJ_OK;
}

static enum dj_error take_plan(const Djinn__Srg__V1__Plan *message, struct arena *arena, struct srg_plan **ret,
                               struct fault *fault)
{
    if (message->version != SCHEMA_VERSION)
        return fault_set(fault, DJ_E_PLAN_INVALID, "schema version %u; this build reads version %d", message->version,
                         SCHEMA_VERSION);
    if (message->inputs == NULL || message->nodes == NULL || message->modules == NULL)
        return fault_set(fault, DJ_E_PLAN_INVALID, "the message lacks its inputs, nodes or modules");
    uint16_t *modules = arena_alloc(arena, message->modules->n_path * sizeof *modules);
    struct plan_builder *builder = NULL;
    enum dj_error error = modules == NULL ? DJ_E_NO_MEMORY : plan_builder_make(&builder);
    if (error != DJ_OK)
        return fault_set(fault, error, "no memory to decode a plan");
    error = take_inputs(builder, message->inputs, fault);
    if (error == DJ_OK)
        error = take_modules(builder, message->modules, modules, fault);
    if (error == DJ_OK)
        error = take_nodes(builder, message->nodes, modules, message->modules->n_path, fault);
    if (error == DJ_OK)
        error = plan_finish(builder, ret, fault);
    plan_builder_free(builder);
    return error;
}

enum dj_error plan_decode(const void *bytes, size_t length, struct srg_plan **ret, struct fault *fault)
{
    struct arena *arena;
    ProtobufCMessage *message;
    enum dj_error error = proto_unpack(&djinn__srg__v1__plan__descriptor, bytes, length, &arena, &message, fault);
    if (error != DJ_OK)
        return error;
    error = take_plan((const Djinn__Srg__V1__Plan *)message, arena, ret, fault);
    arena_free(arena);
    return error;
}
