// Transfer: values that leave the device (fetch) and values that come from elsewhere (import); and the executor's making and statistics.

#include "gpu_worker/exec/state.h"

#include <stdlib.h>

enum { EXEC_BUFFERS_MAX = EXEC_VALUES_MAX + EXEC_LEAVES_MAX + (1 << 18) };
#define EXEC_TRIM_BYTES ((uint64_t)1 << 20)    // smaller free spans keep their memory

enum dj_error exec_make(const struct device_port *port, struct exec **ret)
{
    struct exec *exec = calloc(1, sizeof *exec);
    if (exec == NULL)
        return DJ_E_NO_MEMORY;
    exec->port = port;
    list_init(&exec->leaf_lru);
    list_init(&exec->plan_lru);
    list_init(&exec->in_flight);
    enum dj_error error = region_make(port->info->capacity_bytes, EXEC_BLOCKS_MAX, &exec->region);
    if (error == DJ_OK)
        error = pool_make(sizeof(struct buffer), EXEC_BUFFERS_MAX, &exec->buffers);
    if (error == DJ_OK)
        error = pool_make(sizeof(struct value), EXEC_VALUES_MAX, &exec->values);
    if (error == DJ_OK)
        error = pool_make(sizeof(struct leaf), EXEC_LEAVES_MAX, &exec->leaves);
    if (error == DJ_OK)
        error = map_make(EXEC_VALUES_MAX, &exec->value);
    if (error == DJ_OK)
        error = map_make(EXEC_LEAVES_MAX, &exec->leaf);
    if (error == DJ_OK)
        error = map_make(EXEC_PLANS_MAX, &exec->plan);
    if (error != DJ_OK) {
        exec_free(exec);
        return error;
    }
    *ret = exec;
    return DJ_OK;
}

static void free_tables(struct exec *exec)
{
    uint32_t cursor = 0;
    for (struct value *value; exec->value != NULL && (value = map_next(exec->value, &cursor, NULL)) != NULL;)
        exec_failure_drop(value->failure);
    cursor = 0;
    for (struct leaf *leaf; exec->leaf != NULL && (leaf = map_next(exec->leaf, &cursor, NULL)) != NULL;) {
        blob_drop(leaf->staged);
        blob_drop(leaf->host);
        exec_leaf_free_hash(leaf);
    }
    list_each (node, &exec->plan_lru) {
        struct exec_plan *plan = list_entry(node, struct exec_plan, lru);
        list_remove(&plan->lru);
        exec_plan_drop(plan);
    }
}

void exec_free(struct exec *exec)
{
    if (exec == NULL)
        return;
    list_each (node, &exec->in_flight) {
        list_remove(node);
        exec_run_give(exec, list_entry(node, struct run, in_flight));
    }
    free_tables(exec);
    exec_runs_free_idle(exec);
    map_free(exec->value);
    map_free(exec->leaf);
    map_free(exec->plan);
    pool_free(exec->buffers);
    pool_free(exec->values);
    pool_free(exec->leaves);
    region_free(exec->region);
    struct bench *bench = &exec->bench;
    spans_free(&bench->spans);
    free(bench->out);
    free(bench->physical);
    free(bench->view);
    free(bench->place);
    free(bench->root);
    free(bench->in);
    free(bench->value);
    free(bench->advance);
    free(exec);
}

static enum dj_error read_dense(struct run *run, const struct place *from)
{
    struct device_task *task = exec_run_task(run, DEVICE_READ);
    if (task == NULL)
        return DJ_E_NO_MEMORY;
    task->offset = from->offset;
    task->bytes = run->answer[0].bytes;
    run->part[run->tasks - 1].storage = from->storage;
    return DJ_OK;
}

enum dj_error exec_read_gathered(struct exec *exec, struct run *run, const struct place *from, struct fault *fault)
{
    struct exec_request request = {.id = run->face.id};
    struct lowering lowering = {.exec = exec, .run = run, .request = &request, .node = -1, .fault = fault};
    struct place to = {.storage = STORAGE_WORKSPACE, .meta = &run->answer[0].meta};
    spans_reset(&exec->bench.spans);
    run->face.list.stream = DEVICE_COMPUTE;
    if (!spans_take(&exec->bench.spans, run->answer[0].bytes, &to.offset))
        return DJ_E_NO_MEMORY;
    enum dj_error error = lower_copy(&lowering, from, &to);
    if (error != DJ_OK)
        return error;
    run->workspace = exec_region_need(exec, exec->bench.spans.bytes);
    if (run->workspace == NULL)
        return exec_fault_memory(exec, exec->bench.spans.bytes, "a value that is read and is not dense", fault);
    return read_dense(run, &to);
}

// Fills `run` with the tasks of a fetch of `value`.
static enum dj_error read_value(struct exec *exec, struct run *run, const struct value *value, struct fault *fault)
{
    uint32_t storage;
    if (exec_run_pin(run, value->buffer, &storage) != DJ_OK)
        return DJ_E_NO_MEMORY;
    value->buffer->refs++;
    if (!exec_run_add_answer(run, value->handle.output, &value->meta))
        return DJ_E_NO_MEMORY;
    enum dj_error error = exec_run_place_answers(run);
    if (error != DJ_OK || run->answer[0].bytes == 0)
        return error;
    struct place from = {.storage = storage, .offset = value->offset, .meta = &value->meta};
    if (!tensor_is_contiguous(&value->meta))
        return exec_read_gathered(exec, run, &from, fault);
    // Reads of dense values need no kernel: they overtake computing.
    run->face.list.stream = DEVICE_TRANSFER;
    run->face.list.after = value->producer == NULL ? 0 : value->producer->face.list.ticket;
    return read_dense(run, &from);
}

enum dj_error exec_fetch(struct exec *exec, struct handle handle, struct exec_run **ret, struct fault *fault)
{
    struct value *value = exec_value_find(exec, handle);
    char text[HANDLE_TEXT];
    if (value == NULL)
        return fault_set(fault, DJ_E_HANDLE_UNKNOWN, "no value %s on this worker", handle_text(handle, text));
    if (value->failure != NULL) {
        if (fault != NULL)
            *fault = value->failure->fault;
        return value->failure->fault.code;
    }
    struct run *run = exec_run_take(exec);
    if (run == NULL)
        return fault_set(fault, DJ_E_NO_MEMORY, "%s", dj_error_text(DJ_E_NO_MEMORY));
    if (fault != NULL)
        fault->code = DJ_OK;
    enum dj_error error = read_value(exec, run, value, fault);
    if (error == DJ_OK && value->producer != NULL)
        error = exec_run_depend(run, value->producer);
    if (error != DJ_OK) {
        exec_run_give(exec, run);
        return fault != NULL && fault->code == error ? error : fault_set(fault, error, "%s", dj_error_text(error));
    }
    run->face.id = handle.execution;
    exec_run_resolve(run);
    list_push(&exec->in_flight, &run->in_flight);
    *ret = &run->face;
    return DJ_OK;
}

enum dj_error exec_import(struct exec *exec, struct handle handle, const struct tensor_meta *meta, struct blob *blob,
                          struct exec_run **ret, struct fault *fault)
{
    if (!tensor_is_contiguous(meta) || (uint64_t)tensor_bytes(meta) != blob->bytes)
        return fault_set(fault, DJ_E_MALFORMED, "an imported value has %zu bytes, its sizes and dtype say otherwise",
                         blob->bytes);
    struct run *run = exec_run_take(exec);
    struct buffer *buffer = run == NULL ? NULL : exec_buffer_make(exec, blob->bytes);
    uint32_t storage;
    if (buffer == NULL || exec_run_pin(run, buffer, &storage) != DJ_OK) {
        exec_buffer_drop(exec, buffer);
        if (run != NULL)
            exec_run_give(exec, run);
        return fault_set(fault, DJ_E_NO_MEMORY, "%s", dj_error_text(DJ_E_NO_MEMORY));
    }
    struct value value = {.handle = handle, .buffer = buffer, .meta = *meta, .producer = run};
    enum dj_error error = DJ_OK;
    struct device_task *task = exec_run_task(run, DEVICE_WRITE);
    if (task != NULL) {
        task->bytes = blob->bytes;
        task->blob = blob_hold(blob);
        run->part[0].storage = storage;
    }
    if (task == NULL || !exec_run_keep(run, handle))
        error = fault_set(fault, DJ_E_NO_MEMORY, "%s", dj_error_text(DJ_E_NO_MEMORY));
    else if (!exec_buffer_reserve(exec, buffer))
        error = exec_fault_memory(exec, blob->bytes, "an imported value", fault);
    else if ((error = exec_value_put(exec, &value)) != DJ_OK)
        fault_set(fault, error, "%s", dj_error_text(error));
    if (error != DJ_OK) {
        exec_run_give(exec, run);
        return error;
    }
    buffer->refs++;
    run->face.id = handle.execution;
    run->face.list.stream = DEVICE_COMPUTE;
    exec_run_resolve(run);
    list_push(&exec->in_flight, &run->in_flight);
    *ret = &run->face;
    return DJ_OK;
}

void exec_trim(struct exec *exec)
{
    if (exec->port->trim != NULL)
        region_trim(exec->region, EXEC_TRIM_BYTES, exec->port->trim, exec->port->self);
}

struct exec_stats exec_stats(const struct exec *exec)
{
    struct exec_stats stats = exec->stats;
    stats.used_bytes = region_used_bytes(exec->region);
    stats.capacity_bytes = region_capacity_bytes(exec->region);
    stats.values = map_count(exec->value);
    stats.leaves = map_count(exec->leaf);
    stats.plans = map_count(exec->plan);
    for (const struct list *node = exec->in_flight.next; node != &exec->in_flight; node = node->next)
        stats.in_flight++;
    return stats;
}
