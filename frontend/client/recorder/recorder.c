// Recorder: its life, what it is told about executions, and what it shows. The manual is recorder.h.

#include "frontend/client/recorder/flush.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/assert.h"
#include "core/base/bits.h"
#include "frontend/client/recorder/predict.h"

enum { NODES_ARENA_BYTES = 2 << 20 };

enum dj_error recorder_make(const struct recorder_port *port, struct recorder **ret)
{
    ops_init();
    struct recorder *recorder = calloc(1, sizeof *recorder);
    if (recorder == NULL)
        return DJ_E_NO_MEMORY;
    recorder->port = *port;
    list_init(&recorder->handles);
    enum dj_error error = arena_make(NODES_ARENA_BYTES, 0, &recorder->arena);
    if (error == DJ_OK)
        error = pool_make(sizeof(struct value), RECORDER_VALUES_MAX, &recorder->values);
    if (error == DJ_OK)
        error = pool_make(sizeof(struct dj_cell), RECORDER_CELLS_MAX, &recorder->cells);
    if (error == DJ_OK)
        error = pool_make(sizeof(struct view), RECORDER_VALUES_MAX, &recorder->views);
    if (error == DJ_OK)
        error = pool_make(sizeof(struct exec), RECORDER_VALUES_MAX, &recorder->execs);
    if (error == DJ_OK)
        error = leaf_table_make(&recorder->leaves);
    if (error == DJ_OK)
        error = plan_builder_make(&recorder->builder);
    if (error == DJ_OK)
        error = map_make(RECORDER_PLANS_MAX, &recorder->plan_by_fingerprint);
    if (error == DJ_OK)
        error = map_make(RECORDER_MODULES_MAX, &recorder->module_by_name);
    if (error == DJ_OK && (recorder->entry = calloc(RECORDER_PLANS_MAX, sizeof *recorder->entry)) == NULL)
        error = DJ_E_NO_MEMORY;
    if (error == DJ_OK && (recorder->module = calloc(RECORDER_MODULES_MAX, sizeof *recorder->module)) == NULL)
        error = DJ_E_NO_MEMORY;
    if (error != DJ_OK) {
        recorder_free(recorder);
        return error;
    }
    recorder->module[0] = (struct module_entry){.path = strdup(""), .type = strdup("")};
    recorder->modules = 1;
    *ret = recorder;
    return DJ_OK;
}

void recorder_free(struct recorder *recorder)
{
    if (recorder == NULL)
        return;
    assert(recorder->cells == NULL || pool_out(recorder->cells) == 0);
    if (recorder->execs != NULL)
        recorder_close(recorder, DJ_E_CLOSED, "the recorder is gone");
    for (uint32_t i = 0; i < recorder->entries; i++)
        plan_drop(recorder->entry[i].plan);
    for (uint32_t i = 0; i < recorder->modules; i++) {
        free(recorder->module[i].path);
        free(recorder->module[i].type);
    }
    for (uint32_t i = 0; i < recorder->places; i++) {
        free(recorder->place[i].fault);
        free(recorder->place[i].released);
    }
    plan_drop(recorder->last_plan);
    plan_drop(recorder->capture_plan);
    plan_builder_free(recorder->builder);
    map_free(recorder->plan_by_fingerprint);
    map_free(recorder->module_by_name);
    leaf_table_free(recorder->leaves);
    pool_free(recorder->values);
    pool_free(recorder->cells);
    pool_free(recorder->views);
    pool_free(recorder->execs);
    arena_free(recorder->arena);
    free(recorder->node);
    free(recorder->entry);
    free(recorder->module);
    free(recorder->place);
    free(recorder->live_exec);
    free(recorder->input);
    free(recorder->word);
    free(recorder->bits);
    free(recorder->leaf);
    free(recorder);
}

uint32_t recorder_module(struct recorder *recorder, const char *path, const char *type, bool is_training)
{
    struct hash128 key = hash128(path, strlen(path));
    key.lo = hash_mix(key.lo, hash64(type, strlen(type)));
    key.hi = hash_mix(key.hi, is_training);
    const struct module_entry *known = map_get(recorder->module_by_name, key);
    if (known != NULL)
        return (uint32_t)(known - recorder->module);
    if (recorder->modules == RECORDER_MODULES_MAX)
        return 0;
    struct module_entry *module = &recorder->module[recorder->modules];
    *module = (struct module_entry){.path = strdup(path), .type = strdup(type), .is_training = is_training};
    if (module->path == NULL || module->type == NULL || map_put(recorder->module_by_name, key, module) != DJ_OK) {
        free(module->path);
        free(module->type);
        return 0;
    }
    return recorder->modules++;
}

// Executions that are out ----------------------------------------------------------------------------------------------------

bool execs_add(struct recorder *recorder, struct exec *exec)
{
    if (recorder->live_execs == recorder->live_execs_capacity) {
        uint32_t capacity = recorder->live_execs_capacity == 0 ? 64 : 2 * recorder->live_execs_capacity;
        struct exec **grown = realloc(recorder->live_exec, capacity * sizeof(struct exec *));
        if (grown == NULL)
            return false;
        recorder->live_exec = grown;
        recorder->live_execs_capacity = capacity;
    }
    exec->is_live = true;
    exec->live_index = recorder->live_execs;
    recorder->live_exec[recorder->live_execs++] = exec;
    return true;
}

// It is over, one way or the other: what was held for it goes, and the protocol's hold on it.
static void exec_end(struct recorder *recorder, struct exec *exec)
{
    assert(exec->is_live);
    exec->is_live = false;
    struct exec *last = recorder->live_exec[--recorder->live_execs];
    recorder->live_exec[exec->live_index] = last;
    last->live_index = exec->live_index;

    uint32_t asked = exec->asked_count;
    exec->asked_count = 0;
    for (uint32_t i = 0; i < asked; i++) {
        exec->asked[i].value->is_coming = false;
        value_drop(recorder, exec->asked[i].value);
    }
    free(exec->asked);
    exec->asked = NULL;
    free(exec->site);
    exec->site = NULL;
    struct value *source = exec->source;
    exec->source = NULL;
    if (source != NULL)
        source->imports--;
    value_drop(recorder, source);
    submitted_drop(recorder, exec);
}

void recorder_answered(struct recorder *recorder, void *tag, uint32_t output, struct blob *blob, uint64_t offset, uint64_t length)
{
    struct exec *exec = tag;
    for (uint32_t i = 0; i < exec->asked_count; i++)
        if (exec->asked[i].flat == output)
            recorder_value_answer(recorder, exec->asked[i].value, blob, offset, length);
}

void recorder_executed(struct recorder *recorder, void *tag)
{
    exec_end(recorder, tag);
}

static struct dj_fault *fault_make(enum dj_error error, const char *text)
{
    struct dj_fault *fault = calloc(1, sizeof *fault);
    assert(fault != NULL);
    fault->error = (int32_t)error;
    snprintf(fault->text, sizeof fault->text, "%s", text != NULL && text[0] != '\0' ? text : dj_error_text(error));
    return fault;
}

void recorder_failed(struct recorder *recorder, void *tag, enum dj_error error, int64_t node, const char *text)
{
    struct exec *exec = tag;
    if (exec->fault == NULL) {
        exec->fault = fault_make(error, text);
        if (exec->plan != NULL && node >= 0 && node < exec->plan->nodes) {
            const struct srg_node *failed = &exec->plan->node[node];
            const struct srg_module *module = &exec->plan->module[failed->module];
            const struct op_info *op = op_info(failed->op);
            size_t used = strlen(exec->fault->text);
            snprintf(exec->fault->text + used, sizeof exec->fault->text - used, " (op %s%s%s)", op == NULL ? "?" : op->name,
                     module->path[0] == '\0' ? "" : " in ", module->path);
            exec->fault->site = exec->site == NULL ? 0 : exec->site[node];
        }
    }
    exec_end(recorder, exec);
}

void recorder_place_lost(struct recorder *recorder, uint32_t number, enum dj_error error, const char *text)
{
    struct place_entry *place = place_entry(recorder, number);
    if (place == NULL || place->fault != NULL)
        return;
    place->fault = fault_make(error, text);
    place->released_count = 0;
}

void recorder_close(struct recorder *recorder, enum dj_error error, const char *text)
{
    recorder_abandon_pending(recorder, error, text);
    while (recorder->live_execs > 0)
        recorder_failed(recorder, recorder->live_exec[recorder->live_execs - 1], error, -1, text);
    for (uint32_t i = 0; i < recorder->places; i++)
        recorder_place_lost(recorder, i, error, text);
    for (uint32_t slot = 0; slot < 64; slot++)
        leaf_forget_peer(recorder->leaves, slot);
    recorder->generation++;
    fault_set(&recorder->closed, error, "%s", text);
    recorder->counter = 0;
}

void recorder_live_handles(struct recorder *recorder, uint32_t place,
                           void (*visit)(void *context, uint64_t counter, uint32_t output), void *context)
{
    list_each (node, &recorder->handles) {
        struct value *value = list_entry(node, struct value, live);
        const struct exec *twin = value->twin;
        bool is_here = value->exec->place == place && value_fault(recorder, value) == NULL && !value->is_donated;
        // What this process has the bytes of needs nobody to bring it back, unless another place is to import it.
        if (is_here && !value->is_coming && value->imports == 0 && value_revive(recorder, value))
            continue;
        if (is_here)
            visit(context, value->exec->counter, value->flat);
        if (twin != NULL && twin->place == place && twin->fault == NULL)
            visit(context, twin->counter, 0);
    }
}

uint32_t recorder_places(const struct recorder *recorder)
{
    return recorder->places;
}

void recorder_flush_releases(struct recorder *recorder)
{
    for (uint32_t i = 0; i < recorder->places; i++) {
        struct place_entry *place = &recorder->place[i];
        if (place->released_count == 0)
            continue;
        recorder->port.release(recorder->port.self, i, place->released, place->released_count);
        place->released_count = 0;
    }
}

// Looking in ---------------------------------------------------------------------------------------------------------------

static enum dj_error pending_plan(struct recorder *recorder, struct srg_plan **ret, struct fault *fault)
{
    flush_mark(recorder);
    uint32_t needed = 0;
    for (uint32_t i = 0; i < recorder->nodes; i++) {
        recorder->node[i]->segment = 1;
        needed += recorder->node[i]->is_needed;
    }
    if (needed == 0)
        return fault_set(fault, DJ_E_NOT_FOUND, "nothing is recorded that has not been submitted");
    return segment_plan(recorder, 0, recorder->nodes, ret, fault);
}

void recorder_capture(struct recorder *recorder, bool is_on)
{
    if (recorder->is_capturing && !is_on) {
        struct srg_plan *plan = NULL;
        if (pending_plan(recorder, &plan, NULL) != DJ_OK)
            plan = recorder->last_plan == NULL ? NULL : plan_hold(recorder->last_plan);
        plan_drop(recorder->capture_plan);
        recorder->capture_plan = plan;
    }
    recorder->is_capturing = is_on;
}

enum dj_error recorder_graph_json(struct recorder *recorder, const char *which, struct writer *writer, struct fault *fault)
{
    struct srg_plan *plan = NULL;
    bool is_capture = strcmp(which, "capture") == 0;
    if (strcmp(which, "pending") == 0 || (is_capture && recorder->is_capturing)) {
        enum dj_error error = pending_plan(recorder, &plan, fault);
        if (error != DJ_OK)
            return error;
    } else if (is_capture || strcmp(which, "last") == 0) {
        plan = is_capture ? recorder->capture_plan : recorder->last_plan;
        if (plan == NULL)
            return fault_set(fault, DJ_E_NOT_FOUND, "no graph was %s yet", is_capture ? "captured" : "submitted");
        plan_hold(plan);
    } else {
        return fault_set(fault, DJ_E_INVALID, "there is no graph \"%s\"; ask for \"last\", \"pending\" or \"capture\"", which);
    }
    enum dj_error error = plan_to_json(plan, writer);
    plan_drop(plan);
    return error;
}

struct recorder_stats recorder_stats(const struct recorder *recorder)
{
    struct recorder_stats stats = recorder->stats;
    stats.leaf_bytes_pending = recorder->leaf_bytes_pending;
    stats.cells_live = pool_out(recorder->cells);
    return stats;
}

struct leaf_table *recorder_leaves(struct recorder *recorder)
{
    return recorder->leaves;
}
