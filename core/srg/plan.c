// Plan: the builder and the frozen plan. The builder is on the recording path (one call an op), so it only appends and folds the
// structure into two hash streams; what is added is judged once, in plan_finish (plan_check.c), when the structure is new.
//
// The fingerprint: inputs and nodes are folded into streams of their own, so that it does not matter when an input was added between
// nodes. A node folds one word for its head, one an operand, and for its attributes their kinds and the static values. The two
// halves see the same words, the second one rotated, from different seeds. Not folded: modules, names, anything bound.

#include "core/srg/plan.h"

#include "core/base/arena.h"
#include "core/base/assert.h"
#include "core/base/bits.h"
#include "core/srg/plan_internal.h"

#include <stdlib.h>
#include <string.h>

enum { TEXT_CHUNK_BYTES = 16 * 1024, TEXT_BYTES_MAX = 8 << 20, ATTR_BITS = 10, ATTRS_PER_WORD = 6 };

_Static_assert(ATTR_INTS_MAX < 64 && OP_OUTPUTS_MAX <= 8, "what plan_add_node packs into one word must fit");

struct stream {
    uint64_t hi, lo;
};

static const struct stream SEED_INPUTS = {0x646A696E6E2E7372u, 0x672E696E70757473u};
static const struct stream SEED_NODES = {0x672E6E6F6465732Eu, 0x76312E3235363937u};

struct plan_builder {
    struct srg_plan plan;    // counts and arrays, growing
    uint32_t node_capacity, ref_capacity, attr_capacity, constant_capacity, input_capacity, module_capacity;
    struct stream input_stream, node_stream;
    struct arena *text;       // module names
    uint32_t *module_slot;    // open addressing: index + 1 of a module, 0: free
    uint32_t module_slots;
};

static inline void fold(struct stream *stream, uint64_t value)
{
    stream->hi = hash_mix(stream->hi, value);
    stream->lo = hash_mix(stream->lo, value << 32 | value >> 32);
}

// Makes room for `more` behind `used`. Growing by doubling, so that recording allocates nothing once it is warm.
static enum dj_error room(void *array, uint32_t *capacity, uint32_t used, uint32_t more, size_t each, uint32_t max)
{
    if (more > max - used)
        return DJ_E_LIMIT;
    if (more <= *capacity - used)
        return DJ_OK;
    uint32_t wanted = u32_next_power_of_two(used + more < 64 ? 64 : used + more);
    void *old;
    memcpy(&old, array, sizeof old);
    void *grown = realloc(old, wanted * each);
    if (grown == NULL)
        return DJ_E_NO_MEMORY;
    memcpy(array, &grown, sizeof grown);
    *capacity = wanted;
    return DJ_OK;
}

static void forget(struct plan_builder *builder)
{
    struct srg_plan *plan = &builder->plan;
    plan->nodes = plan->refs = plan->attrs = plan->constants = plan->inputs = plan->outputs = plan->words = plan->modules = 0;
    builder->input_stream = SEED_INPUTS;
    builder->node_stream = SEED_NODES;
    memset(builder->module_slot, 0, builder->module_slots * sizeof builder->module_slot[0]);
    arena_reset(builder->text);
    plan->modules = 1;
    plan->module[0] = (struct srg_module){.path = "", .type = ""};
}

enum dj_error plan_builder_make(struct plan_builder **ret)
{
    enum { MODULES_FIRST = 64, SLOTS_FIRST = 256 };
    struct plan_builder *builder = calloc(1, sizeof *builder);
    if (builder == NULL)
        return DJ_E_NO_MEMORY;
    builder->plan.module = malloc(MODULES_FIRST * sizeof builder->plan.module[0]);
    builder->module_capacity = MODULES_FIRST;
    builder->module_slot = malloc(SLOTS_FIRST * sizeof builder->module_slot[0]);
    builder->module_slots = SLOTS_FIRST;
    enum dj_error error = arena_make(TEXT_CHUNK_BYTES, TEXT_BYTES_MAX, &builder->text);
    if (error != DJ_OK || builder->plan.module == NULL || builder->module_slot == NULL) {
        plan_builder_free(builder);
        return DJ_E_NO_MEMORY;
    }
    forget(builder);
    *ret = builder;
    return DJ_OK;
}

void plan_builder_free(struct plan_builder *builder)
{
    if (builder == NULL)
        return;
    free(builder->plan.node);
    free(builder->plan.ref);
    free(builder->plan.attr);
    free(builder->plan.constant);
    free(builder->plan.input);
    free(builder->plan.module);
    free(builder->module_slot);
    arena_free(builder->text);
    free(builder);
}

void plan_builder_reset(struct plan_builder *builder)
{
    forget(builder);
}

enum dj_error plan_add_input(struct plan_builder *builder, const struct srg_input *input, uint32_t *ret_index)
{
    struct srg_plan *plan = &builder->plan;
    enum dj_error error = room(&plan->input, &builder->input_capacity, plan->inputs, 1, sizeof plan->input[0], PLAN_INPUTS_MAX);
    if (error != DJ_OK)
        return error;
    struct srg_input *added = &plan->input[plan->inputs];
    *added = *input;
    added->first_word = 0;    // given in plan_finish
    fold(&builder->input_stream, (uint64_t)input->is_leaf | (uint64_t)input->is_contiguous << 8 | (uint64_t)input->dtype << 16 |
                                     (uint64_t)input->rank << 24 | (uint64_t)input->device << 32);
    *ret_index = plan->inputs++;
    return DJ_OK;
}

static uint64_t module_hash(const char *path, const char *type, bool is_training)
{
    return hash_mix(hash64_seed(path, strlen(path), is_training), hash64(type, strlen(type)));
}

static uint32_t *module_find(struct plan_builder *builder, const char *path, const char *type, bool is_training)
{
    uint32_t mask = builder->module_slots - 1;
    for (uint32_t at = (uint32_t)module_hash(path, type, is_training) & mask;; at = (at + 1) & mask) {
        uint32_t *slot = &builder->module_slot[at];
        if (*slot == 0)
            return slot;
        const struct srg_module *module = &builder->plan.module[*slot - 1];
        if (module->is_training == is_training && strcmp(module->path, path) == 0 && strcmp(module->type, type) == 0)
            return slot;
    }
}

static enum dj_error module_slots_grow(struct plan_builder *builder)
{
    uint32_t slots = builder->module_slots * 2;
    uint32_t *slot = calloc(slots, sizeof *slot);
    if (slot == NULL)
        return DJ_E_NO_MEMORY;
    free(builder->module_slot);
    builder->module_slot = slot;
    builder->module_slots = slots;
    for (uint32_t i = 1; i < builder->plan.modules; i++) {
        const struct srg_module *module = &builder->plan.module[i];
        *module_find(builder, module->path, module->type, module->is_training) = i + 1;
    }
    return DJ_OK;
}

enum dj_error plan_add_module(struct plan_builder *builder, const char *path, const char *type, bool is_training,
                              uint16_t *ret_index)
{
    if (path[0] == '\0' && type[0] == '\0' && !is_training) {
        *ret_index = 0;
        return DJ_OK;
    }
    struct srg_plan *plan = &builder->plan;
    uint32_t *slot = module_find(builder, path, type, is_training);
    if (*slot != 0) {
        *ret_index = (uint16_t)(*slot - 1);
        return DJ_OK;
    }
    enum dj_error error = room(&plan->module, &builder->module_capacity, plan->modules, 1, sizeof plan->module[0],
                               PLAN_MODULES_MAX);
    if (error != DJ_OK)
        return error;
    if (plan->modules * 2 > builder->module_slots) {
        error = module_slots_grow(builder);
        if (error != DJ_OK)
            return error;
        slot = module_find(builder, path, type, is_training);
    }
    char *path_copy = arena_text(builder->text, path);
    char *type_copy = arena_text(builder->text, type);
    if (path_copy == NULL || type_copy == NULL)
        return arena_used_bytes(builder->text) > TEXT_BYTES_MAX / 2 ? DJ_E_LIMIT : DJ_E_NO_MEMORY;
    plan->module[plan->modules] = (struct srg_module){.path = path_copy, .type = type_copy, .is_training = is_training};
    *ret_index = (uint16_t)plan->modules++;
    *slot = *ret_index + 1u;
    return DJ_OK;
}

static void add_refs(struct plan_builder *builder, const struct srg_ref *ref, uint32_t refs)
{
    struct srg_plan *plan = &builder->plan;
    for (uint32_t i = 0; i < refs; i++) {
        struct srg_ref clean = {.kind = ref[i].kind};    // only what the kind means counts
        if (clean.kind == REF_NODE)
            clean.output = ref[i].output;
        if (clean.kind == REF_NODE || clean.kind == REF_INPUT)
            clean.index = ref[i].index;
        if (clean.kind == REF_SCALAR)
            clean.dtype = ref[i].dtype;
        plan->ref[plan->refs++] = clean;
        fold(&builder->node_stream,
             (uint64_t)clean.kind | (uint64_t)clean.dtype << 8 | (uint64_t)clean.output << 16 | (uint64_t)clean.index << 32);
    }
}

// Needs room for op->attrs attributes and `constants` values.
static void add_attrs(struct plan_builder *builder, const struct op_info *op, const struct attr *attr)
{
    struct srg_plan *plan = &builder->plan;
    uint64_t kinds = 0;
    uint32_t packed = 0;
    for (uint32_t i = 0; i < op->args; i++) {
        if (op->arg[i].attr < 0)
            continue;
        const struct attr *from = &attr[op->arg[i].attr];
        bool is_bound = from->kind != ATTR_ABSENT && !op->arg[i].is_static;
        uint8_t count = from->kind == ATTR_INTS ? from->count : 0;
        plan->attr[plan->attrs++] = (struct srg_attr){
            .kind = from->kind, .count = count, .is_bound = is_bound, .first = plan->constants};
        kinds = kinds << ATTR_BITS | ((uint64_t)from->kind | (uint64_t)is_bound << 3 | (uint64_t)count << 4);
        if (++packed == ATTRS_PER_WORD) {
            fold(&builder->node_stream, kinds);
            packed = 0;
            kinds = 0;
        }
        if (from->kind == ATTR_ABSENT || is_bound)
            continue;
        uint32_t values = from->kind == ATTR_INTS ? count : 1;
        for (uint32_t v = 0; v < values; v++) {
            int64_t value = from->kind == ATTR_INTS ? from->ints[v] : from->kind == ATTR_BOOL ? from->i != 0 : from->i;
            plan->constant[plan->constants++] = value;
            fold(&builder->node_stream, (uint64_t)value);
        }
    }
    if (packed != 0)
        fold(&builder->node_stream, kinds);
}

// How many constants the static attributes take; UINT32_MAX when an attribute is none.
static uint32_t constants_of(const struct op_info *op, const struct attr *attr)
{
    uint32_t constants = 0;
    for (uint32_t i = 0; i < op->args; i++) {
        if (op->arg[i].attr < 0)
            continue;
        const struct attr *from = &attr[op->arg[i].attr];
        if (from->kind > ATTR_INTS || (from->kind == ATTR_INTS && from->count > ATTR_INTS_MAX))
            return UINT32_MAX;
        if (op->arg[i].is_static && from->kind != ATTR_ABSENT)
            constants += from->kind == ATTR_INTS ? from->count : 1;
    }
    return constants;
}

enum dj_error plan_add_node(struct plan_builder *builder, const struct op_info *op, const struct srg_ref *ref, uint32_t refs,
                            const struct attr *attr, const uint8_t dtype[OP_OUTPUTS_MAX], uint16_t module, uint8_t device,
                            uint32_t *ret_index)
{
    struct srg_plan *plan = &builder->plan;
    if (refs > OP_INPUTS_MAX)
        return DJ_E_LIMIT;
    uint32_t constants = constants_of(op, attr);
    if (constants == UINT32_MAX)
        return DJ_E_INVALID;

    enum dj_error error = room(&plan->node, &builder->node_capacity, plan->nodes, 1, sizeof plan->node[0], PLAN_NODES_MAX);
    if (error == DJ_OK)
        error = room(&plan->ref, &builder->ref_capacity, plan->refs, refs, sizeof plan->ref[0], PLAN_REFS_MAX);
    if (error == DJ_OK)
        error = room(&plan->attr, &builder->attr_capacity, plan->attrs, op->attrs, sizeof plan->attr[0], PLAN_ATTRS_MAX);
    if (error == DJ_OK)
        error = room(&plan->constant, &builder->constant_capacity, plan->constants, constants, sizeof plan->constant[0],
                     PLAN_CONSTANTS_MAX);
    if (error != DJ_OK)
        return error;

    struct srg_node *node = &plan->node[plan->nodes];
    *node = (struct srg_node){
        .op = op->number,
        .outputs = op->outputs,
        .first_ref = plan->refs,
        .refs = refs,
        .first_attr = plan->attrs,
        .first_output = plan->outputs,
        .module = module,
        .device = device,
    };
    uint64_t dtypes = 0;
    for (uint32_t o = 0; o < op->outputs; o++) {
        node->dtype[o] = dtype[o];
        dtypes = dtypes << 8 | dtype[o];
    }
    fold(&builder->node_stream, (uint64_t)op->number | (uint64_t)device << 16 | (uint64_t)refs << 24 | dtypes << 40);
    if (op->outputs > 3)
        fold(&builder->node_stream, dtypes);
    add_refs(builder, ref, refs);
    add_attrs(builder, op, attr);
    plan->outputs += op->outputs;
    *ret_index = plan->nodes++;
    return DJ_OK;
}

struct hash128 plan_builder_fingerprint(const struct plan_builder *builder)
{
    struct stream all = builder->input_stream;
    fold(&all, (uint64_t)builder->plan.inputs << 32 | builder->plan.nodes);
    return (struct hash128){
        .hi = hash_mix(all.hi, builder->node_stream.hi),
        .lo = hash_mix(all.lo, builder->node_stream.lo),
    };
}

// Gives every input and node its binding words. False when there are too many.
static bool lay_out_words(struct srg_plan *plan)
{
    uint64_t word = 0;
    for (uint32_t i = 0; i < plan->inputs; i++) {
        struct srg_input *input = &plan->input[i];
        input->first_word = (uint32_t)word;
        word += 2u + (uint64_t)input->rank * (input->is_contiguous ? 1 : 2);
    }
    for (uint32_t n = 0; n < plan->nodes; n++) {
        struct srg_node *node = &plan->node[n];
        if (word > PLAN_WORDS_MAX)
            return false;
        node->first_word = (uint32_t)word;
        for (uint32_t r = 0; r < node->refs; r++)
            word += plan->ref[node->first_ref + r].kind == REF_SCALAR;
        uint32_t attrs_end = n + 1 < plan->nodes ? plan->node[n + 1].first_attr : plan->attrs;
        for (uint32_t a = node->first_attr; a < attrs_end; a++) {
            struct srg_attr *attr = &plan->attr[a];
            if (!attr->is_bound)
                continue;
            attr->first = (uint32_t)word;
            word += attr->kind == ATTR_INTS ? attr->count : 1;
        }
    }
    plan->words = (uint32_t)word;
    return word <= PLAN_WORDS_MAX;
}

// Copies everything into one arena. NULL out of memory.
static struct srg_plan *freeze(const struct srg_plan *from)
{
    size_t text = 0;
    for (uint32_t i = 0; i < from->modules; i++)
        text += strlen(from->module[i].path) + strlen(from->module[i].type) + 48;
    size_t bytes = sizeof *from + from->nodes * sizeof from->node[0] + from->refs * sizeof from->ref[0] +
                   from->attrs * sizeof from->attr[0] + from->constants * sizeof from->constant[0] +
                   from->inputs * sizeof from->input[0] + from->modules * sizeof from->module[0] + text + 512;
    struct arena *arena;
    if (arena_make(bytes, 0, &arena) != DJ_OK)
        return NULL;
    struct srg_plan *plan = arena_copy(arena, from, sizeof *from);
    plan->arena = arena;
    plan->holders = 1;
    plan->node = arena_copy(arena, from->node, from->nodes * sizeof from->node[0]);
    plan->ref = arena_copy(arena, from->ref, from->refs * sizeof from->ref[0]);
    plan->attr = arena_copy(arena, from->attr, from->attrs * sizeof from->attr[0]);
    plan->constant = arena_copy(arena, from->constant, from->constants * sizeof from->constant[0]);
    plan->input = arena_copy(arena, from->input, from->inputs * sizeof from->input[0]);
    plan->module = arena_copy(arena, from->module, from->modules * sizeof from->module[0]);
    bool is_complete = plan->node != NULL && plan->ref != NULL && plan->attr != NULL && plan->constant != NULL &&
                       plan->input != NULL && plan->module != NULL;
    for (uint32_t i = 0; is_complete && i < from->modules; i++) {
        plan->module[i].path = arena_text(arena, from->module[i].path);
        plan->module[i].type = arena_text(arena, from->module[i].type);
        is_complete = plan->module[i].path != NULL && plan->module[i].type != NULL;
    }
    if (is_complete)
        return plan;
    arena_free(arena);
    return NULL;
}

enum dj_error plan_finish(struct plan_builder *builder, struct srg_plan **ret, struct fault *fault)
{
    enum dj_error error = plan_check(&builder->plan, fault);
    if (error != DJ_OK)
        return error;
    if (!lay_out_words(&builder->plan))
        return fault_set(fault, DJ_E_LIMIT, "the plan binds more than %d numbers; split the program with a read", PLAN_WORDS_MAX);
    struct srg_plan *plan = freeze(&builder->plan);
    if (plan == NULL)
        return fault_set(fault, DJ_E_NO_MEMORY, "no memory for a plan of %u nodes", builder->plan.nodes);
    plan->fingerprint = plan_builder_fingerprint(builder);
    *ret = plan;
    return DJ_OK;
}

struct srg_plan *plan_hold(struct srg_plan *plan)
{
    plan->holders++;
    return plan;
}

void plan_drop(struct srg_plan *plan)
{
    if (plan == NULL)
        return;
    assert(plan->holders > 0);
    if (--plan->holders == 0)
        arena_free(plan->arena);
}
