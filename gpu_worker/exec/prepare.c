// Prepare: from a request to a list that can be submitted, or to nothing changed. Steps: infer, find the inputs, lower (lower.c),
// reserve, commit. Also what ends it: complete.

#include "gpu_worker/exec/state.h"

#include "core/base/assert.h"
#include "core/base/bits.h"
#include "core/srg/bindings.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

// A pointer to an array of any type.
typedef void *__attribute__((may_alias)) array_pointer;

static bool fit(array_pointer *array, size_t count, size_t size)
{
    void *larger = realloc(*array, count * size);
    if (larger != NULL)
        *array = larger;
    return larger != NULL;
}

static bool bench_fit(struct bench *bench, uint32_t outputs, uint32_t roots)
{
    if (outputs >= bench->outputs_capacity) {
        uint32_t count = outputs + outputs / 2 + 64;
        if (!fit((array_pointer *)&bench->out, count, sizeof bench->out[0]) ||
            !fit((array_pointer *)&bench->view, count, sizeof bench->view[0]))
            return false;
        bench->outputs_capacity = count;
    }
    if (roots >= bench->roots_capacity) {
        uint32_t count = roots + roots / 2 + 64;
        if (!fit((array_pointer *)&bench->physical, count, sizeof bench->physical[0]) ||
            !fit((array_pointer *)&bench->place, count, sizeof bench->place[0]) ||
            !fit((array_pointer *)&bench->root, count, sizeof bench->root[0]) ||
            !fit((array_pointer *)&bench->in, count, sizeof bench->in[0]) ||
            !fit((array_pointer *)&bench->value, count, sizeof bench->value[0]))
            return false;
        bench->roots_capacity = count;
    }
    return true;
}

bool exec_missing_leaf(const struct exec *exec, const struct exec_plan *plan, const int64_t *word, uint32_t *input,
                       struct hash128 *ret)
{
    for (uint32_t i = *input; i < plan->plan->inputs; i++) {
        if (!plan->plan->input[i].is_leaf)
            continue;
        struct hash128 content = binding_leaf(plan->plan, word, i);
        if (exec_leaf_state(exec, content) == LEAF_READY)
            continue;
        *input = i;
        *ret = content;
        return true;
    }
    return false;
}

static bool sizes_match(const struct tensor_meta *a, const struct tensor_meta *b)
{
    return a->dtype == b->dtype && tensor_same_sizes(a, b);
}

static bool strides_match(const struct tensor_meta *a, const struct tensor_meta *b)
{
    for (uint32_t d = 0; d < a->rank; d++) {
        if (a->size[d] > 1 && a->stride[d] != b->stride[d])
            return false;
    }
    return true;
}

static enum dj_error pin_leaf(struct lowering *lowering, uint32_t i, const struct tensor_meta *meta)
{
    struct exec *exec = lowering->exec;
    struct run *run = lowering->run;
    struct hash128 content = binding_leaf(lowering->plan->plan, run->word, i);
    struct leaf *leaf = exec_leaf_find(exec, content);
    char name[HASH128_TEXT];
    if (leaf == NULL || leaf->is_filling) {
        hash128_text(content, name);
        return fault_set(lowering->fault, DJ_E_LEAF_UNKNOWN, "input %u: the leaf %s is not on this device", i, name);
    }
    uint64_t bytes = (uint64_t)tensor_span(meta) * dtype_bytes(meta->dtype);
    if (bytes > leaf->bytes) {
        hash128_text(content, name);
        return fault_set(lowering->fault, DJ_E_BINDINGS_INVALID,
                         "input %u: the leaf %s has %" PRIu64 " bytes, %" PRIu64 " are bound", i, name, leaf->bytes, bytes);
    }
    exec_leaf_touch(exec, leaf);
    if (leaf->buffer == NULL) {
        leaf->buffer = exec_buffer_make(exec, leaf->bytes);
        if (leaf->buffer == NULL || !exec_run_stage(run, leaf)) {
            exec_buffer_drop(exec, leaf->buffer);
            leaf->buffer = NULL;
            return fault_set(lowering->fault, DJ_E_NO_MEMORY, "%s", dj_error_text(DJ_E_NO_MEMORY));
        }
    }
    uint32_t storage;
    if (exec_run_pin(run, leaf->buffer, &storage) != DJ_OK)
        return fault_set(lowering->fault, DJ_E_NO_MEMORY, "%s", dj_error_text(DJ_E_NO_MEMORY));
    leaf->buffer->refs++;
    if (leaf->writer != NULL && exec_run_depend(run, leaf->writer) != DJ_OK)
        return fault_set(lowering->fault, DJ_E_BUSY, "more than %d executions in flight feed this one", EXEC_DEPENDENCIES_MAX);
    uint64_t key = leaf->bytes > EXEC_INLINE_BYTES ? content.hi ^ content.lo : 0;
    exec->bench.place[i] = (struct place){
        .storage = storage, .is_logical = true, .root = i, .meta = &exec->bench.in[i], .constant_key = key};
    exec->bench.root[i] = (struct root){.storage = storage, .bytes = leaf->bytes};
    return DJ_OK;
}

static enum dj_error pin_handle(struct lowering *lowering, uint32_t i, const struct tensor_meta *meta)
{
    struct exec *exec = lowering->exec;
    struct run *run = lowering->run;
    struct exec_id id = lowering->request->id;
    uint64_t distance;
    uint32_t output;
    binding_handle(lowering->plan->plan, run->word, i, &distance, &output);
    if (distance == 0 || distance >= id.counter)
        return fault_set(lowering->fault, DJ_E_BINDINGS_INVALID, "input %u names an execution %" PRIu64 " before number %" PRIu64,
                         i, distance, id.counter);
    id.counter -= distance;
    struct handle handle = {.execution = id, .output = output};
    struct value *value = exec_value_find(exec, handle);
    char text[HANDLE_TEXT], is[TENSOR_TEXT_MAX], bound[TENSOR_TEXT_MAX];
    if (value == NULL)
        return fault_set(lowering->fault, DJ_E_HANDLE_UNKNOWN, "input %u: no value %s on this worker", i,
                         handle_text(handle, text));
    if (value->failure != NULL) {
        if (lowering->fault != NULL)
            *lowering->fault = value->failure->fault;
        lowering->node = value->failure->node;
        return value->failure->fault.code;
    }
    if (!sizes_match(&value->meta, meta))
        return fault_set(lowering->fault, DJ_E_BINDINGS_INVALID, "input %u: the value %s is %s, bound is %s", i,
                         handle_text(handle, text), tensor_text(&value->meta, is), tensor_text(meta, bound));
    uint32_t storage;
    if (exec_run_pin(run, value->buffer, &storage) != DJ_OK)
        return fault_set(lowering->fault, DJ_E_NO_MEMORY, "%s", dj_error_text(DJ_E_NO_MEMORY));
    value->buffer->refs++;
    if (value->producer != NULL && exec_run_depend(run, value->producer) != DJ_OK)
        return fault_set(lowering->fault, DJ_E_BUSY, "more than %d executions in flight feed this one", EXEC_DEPENDENCIES_MAX);
    bool is_logical = strides_match(&value->meta, meta);
    exec->bench.value[i] = value;
    exec->bench.place[i] = (struct place){.storage = storage,
                                          .is_logical = is_logical,
                                          .root = i,
                                          .offset = value->offset,
                                          .meta = is_logical ? &exec->bench.in[i] : &value->meta};
    exec->bench.root[i] = (struct root){.storage = storage, .bytes = value->buffer->bytes};
    return DJ_OK;
}

// Finds and pins every input; writes of staged leaves become the first tasks.
static enum dj_error pin_inputs(struct lowering *lowering)
{
    struct bench *bench = &lowering->exec->bench;
    const struct exec_request *request = lowering->request;
    const struct srg_plan *srg = lowering->plan->plan;
    struct run *run = lowering->run;
    for (uint32_t i = 0; i < srg->inputs; i++) {
        bench->value[i] = NULL;
        enum dj_error error = binding_meta(srg, run->word, i, &bench->in[i], lowering->fault);
        if (error == DJ_OK)
            error = srg->input[i].is_leaf ? pin_leaf(lowering, i, &bench->in[i]) : pin_handle(lowering, i, &bench->in[i]);
        if (error != DJ_OK)
            return error;
    }
    // Donated and seen by nobody else: by the value's own reference and this run's pin only (a second pin here counts too).
    for (uint32_t i = 0; i < srg->inputs; i++) {
        if (bench->value[i] != NULL && lower_bit(request->donated, request->donated_bytes, i))
            bench->root[i].is_owned = bench->value[i]->buffer->refs == 2;
    }
    for (uint32_t i = 0; i < run->staged_count; i++) {
        struct leaf *leaf = run->staged[i];
        uint32_t storage = 1;
        while (run->buffer[storage - 1] != leaf->buffer)
            storage++;
        struct device_task *task = exec_run_task(run, DEVICE_WRITE);
        if (task == NULL)
            return fault_set(lowering->fault, DJ_E_NO_MEMORY, "%s", dj_error_text(DJ_E_NO_MEMORY));
        task->bytes = leaf->bytes;
        task->blob = blob_hold(leaf->staged);
        task->blob_offset = leaf->staged_offset;
        run->part[run->tasks - 1].storage = storage;
    }
    return DJ_OK;
}

static void mark_held(struct lowering *lowering)
{
    struct bench *bench = &lowering->exec->bench;
    const struct exec_request *request = lowering->request;
    const struct exec_plan *plan = lowering->plan;
    memset(&bench->root[plan->plan->inputs], 0, plan->plan->outputs * sizeof bench->root[0]);
    for (uint32_t byte = 0; byte < request->kept_bytes; byte++) {
        for (uint32_t bits = request->kept[byte]; bits != 0; bits &= bits - 1) {
            struct root *root = &bench->root[plan->root[byte * 8 + (uint32_t)__builtin_ctz(bits)]];
            root->is_kept = root->holds = true;
        }
    }
    for (uint32_t i = 0; i < request->answers; i++)
        bench->root[plan->root[request->answer[i]]].holds = true;
}

static int compare_names(const void *a, const void *b)
{
    uint32_t left = *(const uint32_t *)a, right = *(const uint32_t *)b;
    return left < right ? -1 : left > right;
}

static enum dj_error check_names(const struct exec_request *request, struct fault *fault)
{
    uint32_t kept = 0;
    for (uint32_t byte = 0; byte < request->kept_bytes; byte++)
        kept += (uint32_t)__builtin_popcount(request->kept[byte]);
    if (kept != request->names)
        return fault_set(fault, DJ_E_BINDINGS_INVALID, "%u outputs are to be kept, %u have a name", kept, request->names);
    uint32_t *sorted = malloc((request->names + 1) * sizeof *sorted);
    if (sorted == NULL)
        return fault_set(fault, DJ_E_NO_MEMORY, "%s", dj_error_text(DJ_E_NO_MEMORY));
    memcpy(sorted, request->name, request->names * sizeof *sorted);
    qsort(sorted, request->names, sizeof *sorted, compare_names);
    enum dj_error error = DJ_OK;
    for (uint32_t i = 1; i < request->names && error == DJ_OK; i++) {
        if (sorted[i] == sorted[i - 1])
            error = fault_set(fault, DJ_E_BINDINGS_INVALID, "two outputs are to be kept as number %u", sorted[i]);
    }
    free(sorted);
    return error;
}

static enum dj_error check_request(const struct exec_request *request, struct fault *fault)
{
    const struct srg_plan *srg = request->plan->plan;
    for (uint32_t bit = srg->outputs; bit < request->kept_bytes * 8; bit++) {
        if (bit_get(request->kept, bit))
            return fault_set(fault, DJ_E_BINDINGS_INVALID, "output %u is to be kept, the plan has %u", bit, srg->outputs);
    }
    for (uint32_t bit = srg->inputs; bit < request->donated_bytes * 8; bit++) {
        if (bit_get(request->donated, bit))
            return fault_set(fault, DJ_E_BINDINGS_INVALID, "input %u is donated, the plan has %u", bit, srg->inputs);
    }
    if (request->answers > EXEC_ANSWERS_MAX)
        return fault_set(fault, DJ_E_LIMIT, "%u answers are asked for, %d is the most", request->answers, EXEC_ANSWERS_MAX);
    for (uint32_t i = 0; i < request->answers; i++) {
        if (request->answer[i] >= srg->outputs)
            return fault_set(fault, DJ_E_BINDINGS_INVALID, "answer %u is asked for, the plan has %u outputs", request->answer[i],
                             srg->outputs);
    }
    return request->name == NULL ? DJ_OK : check_names(request, fault);
}

// Memory for the workspace and for every buffer that has none yet. What was reserved before a failure goes back with the run.
static enum dj_error reserve(struct lowering *lowering)
{
    struct exec *exec = lowering->exec;
    struct run *run = lowering->run;
    uint64_t need = exec->bench.spans.bytes;
    for (uint32_t i = 0; i < run->buffers; i++)
        need += run->buffer[i]->block == NULL ? run->buffer[i]->bytes : 0;
    for (uint32_t i = 0; i < run->buffers; i++) {
        if (run->buffer[i]->block == NULL && !exec_buffer_reserve(exec, run->buffer[i]))
            return exec_fault_memory(exec, need, "this execution", lowering->fault);
    }
    if (exec->bench.spans.bytes > 0) {
        run->workspace = exec_region_need(exec, exec->bench.spans.bytes);
        if (run->workspace == NULL)
            return exec_fault_memory(exec, need, "this execution", lowering->fault);
    }
    return DJ_OK;
}

// Undoes a prepare that failed: staged leaves are staged again, marks go back, pins are dropped.
static void abandon(struct exec *exec, struct run *run)
{
    exec_advances_undo(exec);
    for (uint32_t i = 0; i < run->staged_count; i++) {
        struct leaf *leaf = run->staged[i];
        exec_buffer_drop(exec, leaf->buffer);
        leaf->buffer = NULL;
    }
    run->staged_count = 0;
    exec_run_give(exec, run);
}

static enum dj_error attempt(struct lowering *lowering)
{
    struct exec *exec = lowering->exec;
    const struct srg_plan *srg = lowering->plan->plan;
    spans_reset(&exec->bench.spans);
    exec->bench.advances = 0;
    lowering->run = exec_run_take(exec);
    if (lowering->run == NULL || !exec_run_words(lowering->run, lowering->request->word, srg->words))
        return fault_set(lowering->fault, DJ_E_NO_MEMORY, "%s", dj_error_text(DJ_E_NO_MEMORY));
    enum dj_error error = pin_inputs(lowering);
    if (error == DJ_OK) {
        mark_held(lowering);
        error = lower_plan(lowering);
    }
    if (error == DJ_OK) {
        lowering->node = -1;
        error = reserve(lowering);
    }
    return error;
}

static enum dj_error keep_outputs(struct lowering *lowering)
{
    struct exec *exec = lowering->exec;
    const struct exec_request *request = lowering->request;
    struct run *run = lowering->run;
    uint32_t inputs = lowering->plan->plan->inputs, nth = 0;
    for (uint32_t byte = 0; byte < request->kept_bytes; byte++) {
        for (uint32_t bits = request->kept[byte]; bits != 0; bits &= bits - 1) {
            uint32_t flat = byte * 8 + (uint32_t)__builtin_ctz(bits);
            struct handle handle = {.execution = request->id, .output = request->name == NULL ? flat : request->name[nth++]};
            if (exec_has(exec, handle))
                continue;
            const struct place *place = &exec->bench.place[inputs + flat];
            assert(place->storage != STORAGE_WORKSPACE && place->storage != STORAGE_NONE);
            struct value value = {.handle = handle,
                                  .buffer = run->buffer[place->storage - 1],
                                  .offset = place->offset,
                                  .meta = *place->meta,
                                  .producer = run};
            enum dj_error error = exec_run_keep(run, value.handle) ? exec_value_put(exec, &value) : DJ_E_NO_MEMORY;
            if (error != DJ_OK)
                return fault_set(lowering->fault, error, "output %u cannot be kept: %s", flat, dj_error_text(error));
            value.buffer->refs++;
        }
    }
    return DJ_OK;
}

static void take_back(struct exec *exec, struct run *run)
{
    for (uint32_t i = 0; i < run->kept; i++) {
        struct value *value = exec_value_find(exec, run->handle[i]);
        if (value != NULL && value->producer == run)
            exec_value_drop(exec, value);
    }
}

static void commit(struct lowering *lowering)
{
    struct exec *exec = lowering->exec;
    struct run *run = lowering->run;
    const struct exec_request *request = lowering->request;
    exec->bench.advances = 0;
    for (uint32_t i = 0; i < run->staged_count; i++) {
        blob_drop(run->staged[i]->staged);
        run->staged[i]->staged = NULL;
        run->staged[i]->writer = run;
    }
    for (uint32_t i = 0; i < lowering->plan->plan->inputs; i++) {
        struct value *value = exec->bench.value[i];
        // Two inputs may be one handle: look again.
        if (value == NULL || !lower_bit(request->donated, request->donated_bytes, i))
            continue;
        for (uint32_t j = i + 1; j < lowering->plan->plan->inputs; j++) {
            if (exec->bench.value[j] == value)
                exec->bench.value[j] = NULL;
        }
        exec_value_drop(exec, value);
    }
    run->face.id = request->id;
    run->face.list.stream = DEVICE_COMPUTE;
    exec_run_resolve(run);
    list_push(&exec->in_flight, &run->in_flight);
    exec->stats.executions++;
    exec->stats.tasks += run->tasks;
}

// What an attempt counted did not happen; the leaves that it dropped are gone all the same.
static void stats_restore(struct exec *exec, const struct exec_stats *before)
{
    uint64_t evictions = exec->stats.evictions, leaf_bytes = exec->stats.leaf_bytes;
    exec->stats = *before;
    exec->stats.evictions = evictions;
    exec->stats.leaf_bytes = leaf_bytes;
}

enum dj_error exec_prepare(struct exec *exec, const struct exec_request *request, struct exec_run **ret, int64_t *ret_node,
                           struct fault *fault)
{
    const struct srg_plan *srg = request->plan->plan;
    struct lowering lowering = {
        .exec = exec, .request = request, .plan = request->plan, .may_slack = true, .node = -1, .fault = fault};
    struct exec_stats before = exec->stats;
    uint32_t node = UINT32_MAX;
    enum dj_error error = check_request(request, fault);
    if (error == DJ_OK && !bench_fit(&exec->bench, srg->outputs, srg->inputs + srg->outputs))
        error = fault_set(fault, DJ_E_NO_MEMORY, "%s", dj_error_text(DJ_E_NO_MEMORY));
    if (error == DJ_OK) {
        error = plan_infer(srg, request->word, exec->bench.out, exec->bench.view, &node, fault);
        lowering.node = error != DJ_OK && node != UINT32_MAX ? (int64_t)node : -1;
    }
    if (error == DJ_OK)
        error = attempt(&lowering);
    if (error == DJ_E_DEVICE_MEMORY && lowering.run != NULL) {
        abandon(exec, lowering.run);    // once more, without memory for growth
        stats_restore(exec, &before);
        lowering.may_slack = false;
        error = attempt(&lowering);
    }
    if (error == DJ_OK) {
        error = keep_outputs(&lowering);
        if (error != DJ_OK)
            take_back(exec, lowering.run);
    }
    if (error == DJ_OK) {
        commit(&lowering);
        *ret = &lowering.run->face;
        return DJ_OK;
    }
    if (lowering.run != NULL)
        abandon(exec, lowering.run);
    stats_restore(exec, &before);
    exec->stats.failures++;
    if (ret_node != NULL)
        *ret_node = lowering.node;
    return error;
}

void exec_fail(struct exec *exec, const struct exec_request *request, int64_t node, const struct fault *fault)
{
    struct failure *failure = exec_failure_make(node, fault);
    uint32_t nth = 0;
    for (uint32_t byte = 0; byte < request->kept_bytes; byte++) {
        for (uint32_t bits = request->kept[byte]; bits != 0; bits &= bits - 1) {
            uint32_t flat = byte * 8 + (uint32_t)__builtin_ctz(bits);
            uint32_t output = request->name == NULL ? flat : nth < request->names ? request->name[nth++] : flat;
            struct value value = {.handle = {.execution = request->id, .output = output}, .failure = failure};
            if (exec_value_put(exec, &value) == DJ_OK)
                exec_failure_hold(failure);
        }
    }
    exec_failure_drop(failure);
}

// The values that a failed run made are lost, and so are those of the runs that build on it.
static void fail_outputs(struct exec *exec, struct run *run)
{
    for (uint32_t i = 0; i < run->kept; i++) {
        struct value *value = exec_value_find(exec, run->handle[i]);
        if (value == NULL || value->producer != run)
            continue;
        exec_buffer_drop(exec, value->buffer);
        value->buffer = NULL;
        value->producer = NULL;
        value->failure = exec_failure_hold(run->failure);
    }
    list_each (node, &exec->in_flight) {
        struct run *later = list_entry(node, struct run, in_flight);
        for (uint32_t i = 0; i < later->dependencies; i++) {
            if (later->builds_on[i] == run && later->failure == NULL)
                later->failure = exec_failure_hold(run->failure);
        }
    }
}

static void settle_outputs(struct exec *exec, struct run *run)
{
    for (uint32_t i = 0; i < run->kept; i++) {
        struct value *value = exec_value_find(exec, run->handle[i]);
        if (value != NULL && value->producer == run)
            value->producer = NULL;
    }
}

// What a list needs was reserved before it was submitted. Memory that it lacks all the same is the device's own trouble, like any that may
// pass: DJ_E_DEVICE. DJ_E_DEVICE_MEMORY is left to say that something does not fit, with sizes.
static struct failure *failure_of_list(const struct device_list *list)
{
    struct fault fault = list->fault;
    if (fault.code == DJ_OK)
        fault_set(&fault, list->error, "%s", dj_error_text(list->error));
    if (fault.code == DJ_E_DEVICE_MEMORY)
        fault.code = DJ_E_DEVICE;
    int64_t node = -1;
    if (list->failed_task < list->tasks && list->task[list->failed_task].kind == DEVICE_KERNEL)
        node = (int64_t)list->task[list->failed_task].node;
    return exec_failure_make(node, &fault);
}

bool exec_may_complete(const struct exec_run *face)
{
    return ((const struct run *)face)->dependencies == 0;    // whoever is complete is taken out of them
}

void exec_complete(struct exec *exec, struct exec_run *face)
{
    struct run *run = (struct run *)face;
    list_remove(&run->in_flight);
    if (run->failure == NULL && face->list.error != DJ_OK)
        run->failure = failure_of_list(&face->list);
    if (run->leaf != NULL)
        exec_leaf_written(exec, run->leaf, run->failure == NULL);
    exec_leaves_settle(exec, run, run->failure == NULL);
    if (run->failure == NULL) {
        settle_outputs(exec, run);
    } else {
        exec->stats.failures++;
        face->error = run->failure->fault.code;
        face->node = run->failure->node;
        face->fault = run->failure->fault;
        fail_outputs(exec, run);
    }
    // Whoever is prepared from now on must not name this run.
    list_each (node, &exec->in_flight) {
        struct run *later = list_entry(node, struct run, in_flight);
        for (uint32_t i = 0; i < later->dependencies; i++) {
            if (later->builds_on[i] == run)
                later->builds_on[i--] = later->builds_on[--later->dependencies];
        }
    }
    for (uint32_t i = 0; i < run->buffers; i++)
        exec_buffer_drop(exec, run->buffer[i]);
    run->buffers = 0;
    if (run->workspace != NULL)
        region_release(exec->region, run->workspace);
    run->workspace = NULL;
}
