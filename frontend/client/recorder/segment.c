// Segment: one run of needed nodes becomes a plan, its words and masks, and a submission. After flush.c.

#include "frontend/client/recorder/flush.h"

#include <stdlib.h>
#include <string.h>

#include "core/base/assert.h"
#include "core/base/bits.h"
#include "frontend/client/recorder/predict.h"

enum { SEGMENT_REFS_FAST = 64, SEGMENT_DEVICE_ANY = 255 };

// Plan ---------------------------------------------------------------------------------------------------------------------

static bool inputs_reserve(struct recorder *recorder)
{
    if (recorder->inputs < recorder->inputs_capacity)
        return true;
    uint32_t capacity = recorder->inputs_capacity == 0 ? 1024 : 2 * recorder->inputs_capacity;
    struct value **grown = realloc(recorder->input, capacity * sizeof(struct value *));
    if (grown == NULL)
        return false;
    recorder->input = grown;
    recorder->inputs_capacity = capacity;
    return true;
}

static enum dj_error add_input(struct recorder *recorder, struct value *value, uint8_t device)
{
    if (!inputs_reserve(recorder))
        return DJ_E_NO_MEMORY;
    struct srg_input input = {
        .is_leaf = value->kind == VALUE_LEAF,
        .is_contiguous = tensor_is_contiguous(&value->meta),
        .dtype = (uint8_t)value->meta.dtype,
        .rank = (uint8_t)value->meta.rank,
        .device = device,
    };
    enum dj_error error = plan_add_input(recorder->builder, &input, &value->input_index);
    if (error != DJ_OK)
        return error;
    assert(value->input_index == recorder->inputs);
    recorder->input[recorder->inputs++] = value;
    value->input_mark = recorder->segment;
    value->uses = 0;
    return DJ_OK;
}

static enum dj_error module_of(struct recorder *recorder, uint32_t number, uint16_t *ret)
{
    struct module_entry *module = &recorder->module[number < recorder->modules ? number : 0];
    if (module->mark != recorder->segment) {
        enum dj_error error = plan_add_module(recorder->builder, module->path, module->type, module->is_training, &module->index);
        if (error != DJ_OK)
            return error;
        module->mark = recorder->segment;
    }
    *ret = module->index;
    return DJ_OK;
}

static enum dj_error add_refs(struct recorder *recorder, const struct node *node, uint8_t device, struct srg_ref *ref)
{
    for (uint32_t i = 0; i < node->n_in; i++) {
        const struct node_in *in = &node->in[i];
        ref[i] = (struct srg_ref){.kind = in->kind, .dtype = in->dtype};
        if (in->kind != REF_NODE)
            continue;
        struct value *value = in->value;
        if (value->kind == VALUE_PENDING && value->node->segment == node->segment) {
            ref[i].index = value->node->index;
            ref[i].output = value->output;
            continue;
        }
        if (value->input_mark != recorder->segment) {
            enum dj_error error = add_input(recorder, value, device);
            if (error != DJ_OK)
                return error;
        }
        value->uses++;
        ref[i].kind = REF_INPUT;
        ref[i].index = value->input_index;
    }
    return DJ_OK;
}

static enum dj_error add_node(struct recorder *recorder, struct node *node)
{
    struct srg_ref fast[SEGMENT_REFS_FAST], *ref = fast;
    if (node->n_in > SEGMENT_REFS_FAST && (ref = malloc(node->n_in * sizeof *ref)) == NULL)
        return DJ_E_NO_MEMORY;
    uint8_t device = node->device >= 0 && node->device < SEGMENT_DEVICE_ANY ? (uint8_t)node->device : SEGMENT_DEVICE_ANY;
    uint16_t module = 0;
    enum dj_error error = add_refs(recorder, node, device, ref);
    if (error == DJ_OK)
        error = module_of(recorder, node->module, &module);
    if (error == DJ_OK)
        error = plan_add_node(recorder->builder, node->op, ref, node->n_in, node->attr, node->dtype, module, device,
                              &node->index);
    if (ref != fast)
        free(ref);
    return error;
}

static enum dj_error build(struct recorder *recorder, uint32_t first, uint32_t end, struct fault *fault)
{
    plan_builder_reset(recorder->builder);
    recorder->segment++;
    recorder->inputs = 0;
    for (uint32_t i = first; i < end; i++) {
        if (!recorder->node[i]->is_needed)
            continue;
        enum dj_error error = add_node(recorder, recorder->node[i]);
        if (error != DJ_OK)
            return fault_set(fault, error, "%s does not fit in a plan any more", recorder->node[i]->op->name);
    }
    return DJ_OK;
}

enum dj_error segment_plan(struct recorder *recorder, uint32_t first, uint32_t end, struct srg_plan **ret, struct fault *fault)
{
    enum dj_error error = build(recorder, first, end, fault);
    return error != DJ_OK ? error : plan_finish(recorder->builder, ret, fault);
}

// The entry of the plan that was built: known, or finished now. When all are taken, the one used longest ago makes room.
static enum dj_error entry_of(struct recorder *recorder, struct plan_entry **ret, struct fault *fault)
{
    struct hash128 fingerprint = plan_builder_fingerprint(recorder->builder);
    struct plan_entry *entry = map_get(recorder->plan_by_fingerprint, fingerprint);
    if (entry == NULL) {
        struct srg_plan *plan;
        enum dj_error error = plan_finish(recorder->builder, &plan, fault);
        if (error != DJ_OK)
            return error;
        assert(hash128_equal(plan->fingerprint, fingerprint));
        if (recorder->entries < RECORDER_PLANS_MAX) {
            entry = &recorder->entry[recorder->entries];
            entry->number = recorder->entries++;
        } else {
            entry = &recorder->entry[0];
            for (uint32_t i = 1; i < recorder->entries; i++)
                entry = recorder->entry[i].used < entry->used ? &recorder->entry[i] : entry;
            map_take(recorder->plan_by_fingerprint, entry->plan->fingerprint);
            plan_drop(entry->plan);
        }
        entry->plan = plan;
        entry->reads = 0;
        error = map_put(recorder->plan_by_fingerprint, fingerprint, entry);
        if (error != DJ_OK)
            return fault_set(fault, error, "no room to remember one more plan");
        recorder->stats.plans++;
    }
    entry->used = ++recorder->stats.executions;
    *ret = entry;
    return DJ_OK;
}

// Imports ------------------------------------------------------------------------------------------------------------------

// A handle that lives elsewhere is fetched by this place first, under a counter of its own.
static enum dj_error import(struct recorder *recorder, struct value *value, uint32_t place)
{
    if (value->kind != VALUE_HANDLE || value->exec->place == place)
        return DJ_OK;
    if (value->twin != NULL) {
        if (value->twin->place == place && value->twin->fault == NULL && recorder->place[place].fault == NULL)
            return DJ_OK;
        submitted_drop(recorder, value->twin);
        value->twin = NULL;
    }
    struct exec *twin = submitted_make(recorder, place, ++recorder->counter);
    if (twin == NULL || !execs_add(recorder, twin)) {
        submitted_drop(recorder, twin);
        return DJ_E_NO_MEMORY;
    }
    twin->source = value_hold(value);
    value->imports++;
    value->twin = twin;
    twin->holders++;    // one for the value, one for the protocol
    recorder->port.import(recorder->port.self, place, twin->counter, value->exec->place, value->exec->counter, value->flat, twin);
    return DJ_OK;
}

// Words and masks ------------------------------------------------------------------------------------------------------------

static bool scratch_reserve(struct recorder *recorder, const struct srg_plan *plan)
{
    uint32_t bytes = plan->outputs / 8 + plan->inputs / 8 + 2;
    if (plan->words > recorder->words_capacity) {
        int64_t *grown = realloc(recorder->word, plan->words * sizeof *grown);
        if (grown == NULL)
            return false;
        recorder->word = grown;
        recorder->words_capacity = plan->words;
    }
    if (bytes > recorder->bits_capacity) {
        uint8_t *grown = realloc(recorder->bits, bytes);
        if (grown == NULL)
            return false;
        recorder->bits = grown;
        recorder->bits_capacity = bytes;
    }
    if (plan->inputs > recorder->leaves_capacity) {
        struct leaf **grown = realloc(recorder->leaf, plan->inputs * sizeof(struct leaf *));
        if (grown == NULL)
            return false;
        recorder->leaf = grown;
        recorder->leaves_capacity = plan->inputs;
    }
    memset(recorder->bits, 0, bytes);
    return true;
}

static void bind_inputs(struct recorder *recorder, struct submission *to, uint8_t *donated)
{
    for (uint32_t i = 0; i < recorder->inputs; i++) {
        struct value *value = recorder->input[i];
        binding_set_meta(to->plan, recorder->word, i, &value->meta);
        if (value->kind == VALUE_LEAF) {
            binding_set_leaf(to->plan, recorder->word, i, value->leaf->content);
            recorder->leaf[to->leaves_count++] = value->leaf;
            continue;
        }
        bool is_twin = value->exec->place != to->place;
        const struct exec *made_by = is_twin ? value->twin : value->exec;
        binding_set_handle(to->plan, recorder->word, i, to->counter - made_by->counter, is_twin ? 0 : value->flat);
        // Every reference to it comes from here: nobody else will ever ask for it.
        if (!is_twin && value->refs == value->uses && value->twin == NULL) {
            bit_set(donated, i);
            value->is_donated = true;
        }
    }
}

static void bind_nodes(struct recorder *recorder, uint32_t first, uint32_t end, const struct srg_plan *plan)
{
    for (uint32_t i = first; i < end; i++) {
        const struct node *node = recorder->node[i];
        if (!node->is_needed)
            continue;
        int64_t fast[SEGMENT_REFS_FAST];
        uint32_t scalars = 0;
        for (uint32_t k = 0; k < node->n_in; k++)
            if (node->in[k].kind == REF_SCALAR) {
                assert(scalars < SEGMENT_REFS_FAST);    // no op takes a list of scalars
                fast[scalars++] = node->in[k].scalar;
            }
        if (scalars > 0 || node->op->attrs > 0)
            binding_set_node(plan, recorder->word, node->index, node->attr, fast);
    }
}

static bool value_is_kept(const struct recorder *recorder, const struct value *value)
{
    return value != NULL && (value->roots > 0 || value->crossing_mark == recorder->epoch);
}

// Kept outputs become handles; remembered views that nobody else holds go back to being recipes.
static void settle(struct recorder *recorder, uint32_t first, uint32_t end, struct exec *exec, const struct srg_plan *plan)
{
    for (uint32_t i = first; i < end; i++)
        if (recorder->node[i]->is_needed)
            recorder->node[i]->is_submitted = true;
    for (uint32_t i = first; i < end; i++) {
        struct node *node = recorder->node[i];
        for (uint32_t o = 0; node->is_needed && o < node->op->outputs; o++) {
            struct value *value = node->out[o];
            if (value == NULL)
                continue;
            if (!value_is_kept(recorder, value)) {
                if (value->view != NULL)
                    view_set_value(recorder, value->view, NULL);
                continue;
            }
            node->out[o] = NULL;
            node->live--;
            value->node = NULL;
            value->kind = VALUE_HANDLE;
            value->flat = plan->node[node->index].first_output + o;
            value->exec = exec;
            exec->holders++;
            value->is_counted = true;
            recorder->stats.handles_live++;
            list_push(&recorder->handles, &value->live);
        }
    }
    for (uint32_t i = first; i < end; i++)
        if (recorder->node[i]->is_needed) {
            recorder->stats.ops_submitted++;
            recorder->node[i]->is_needed = false;
            node_kill(recorder, recorder->node[i]);
        }
}

// What is wanted now, and what was read after this plan before.
static enum dj_error collect_answers(struct recorder *recorder, uint32_t first, uint32_t end, struct plan_entry *entry,
                                     struct exec *exec, uint8_t *kept)
{
    predict_begin(entry);
    for (uint32_t i = first; i < end; i++) {
        struct node *node = recorder->node[i];
        for (uint32_t o = 0; node->is_needed && o < node->op->outputs; o++) {
            struct value *value = node->out[o];
            if (!value_is_kept(recorder, value))
                continue;
            uint32_t flat = entry->plan->node[node->index].first_output + o;
            bit_set(kept, flat);
            bool is_predicted = !value->is_wanted && predict_wants(entry, flat, value);
            if ((value->is_wanted || is_predicted) && exec->asked_count < EXEC_ASKED_MAX) {
                if (exec->asked == NULL && (exec->asked = malloc(EXEC_ASKED_MAX * sizeof *exec->asked)) == NULL)
                    return DJ_E_NO_MEMORY;
                exec->asked[exec->asked_count++] = (struct asked){.flat = flat, .value = value_hold(value)};
                value->is_coming = true;
                value->was_predicted = is_predicted;
            }
        }
    }
    return DJ_OK;
}

static enum dj_error exec_begin(struct recorder *recorder, uint32_t first, uint32_t end, uint32_t place, struct plan_entry *entry,
                                struct exec **ret)
{
    struct exec *exec = submitted_make(recorder, place, ++recorder->counter);
    if (exec == NULL || !execs_add(recorder, exec)) {
        submitted_drop(recorder, exec);
        return DJ_E_NO_MEMORY;
    }
    exec->entry = entry;
    exec->plan = plan_hold(entry->plan);
    exec->site = malloc(entry->plan->nodes * sizeof *exec->site);
    for (uint32_t i = first, n = 0; exec->site != NULL && i < end; i++)
        if (recorder->node[i]->is_needed)
            exec->site[n++] = recorder->node[i]->site;
    *ret = exec;
    return DJ_OK;
}

enum dj_error segment_submit(struct recorder *recorder, uint32_t first, uint32_t end, struct fault *fault)
{
    uint32_t place = 0;
    for (uint32_t i = first; i < end; i++)
        if (recorder->node[i]->is_needed) {
            place = recorder->node[i]->place;
            break;
        }
    struct plan_entry *entry = NULL;
    enum dj_error error = build(recorder, first, end, fault);
    if (error == DJ_OK)
        error = entry_of(recorder, &entry, fault);
    if (error != DJ_OK)
        return error;
    for (uint32_t i = 0; i < recorder->inputs && error == DJ_OK; i++)
        error = import(recorder, recorder->input[i], place);
    struct exec *exec = NULL;
    if (error == DJ_OK && !scratch_reserve(recorder, entry->plan))
        error = DJ_E_NO_MEMORY;
    if (error == DJ_OK)
        error = exec_begin(recorder, first, end, place, entry, &exec);
    if (error != DJ_OK)
        return fault_set(fault, error, "no memory to submit %u ops", entry->plan->nodes);

    uint8_t *kept = recorder->bits, *donated = recorder->bits + entry->plan->outputs / 8 + 1;
    struct submission to = {
        .place = place,
        .counter = exec->counter,
        .plan = entry->plan,
        .plan_number = entry->number,
        .word = recorder->word,
        .kept = kept,
        .donated = donated,
        .leaves = recorder->leaf,
        .tag = exec,
    };
    uint32_t answers[EXEC_ASKED_MAX];
    if (collect_answers(recorder, first, end, entry, exec, kept) != DJ_OK)
        exec->asked_count = 0;    // reads will fetch instead
    for (uint32_t i = 0; i < exec->asked_count; i++)
        answers[i] = exec->asked[i].flat;
    to.answers = answers;
    to.answers_count = exec->asked_count;
    bind_inputs(recorder, &to, donated);
    bind_nodes(recorder, first, end, entry->plan);

    struct place_entry *there = place_entry(recorder, place);
    if (there != NULL) {
        to.released = there->released;
        to.released_count = there->released_count;
        there->released_count = 0;
    }
    exec->holders++;    // a place that is gone for good fails it at once
    recorder->port.submit(recorder->port.self, &to);
    plan_drop(recorder->last_plan);
    recorder->last_plan = plan_hold(entry->plan);
    settle(recorder, first, end, exec, entry->plan);
    submitted_drop(recorder, exec);
    return DJ_OK;
}
