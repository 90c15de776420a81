// Buffers: counted pieces of the region; and failures, counted reasons. The manual is state.h.

#include "gpu_worker/exec/state.h"

#include "core/base/assert.h"

#include <inttypes.h>
#include <stdlib.h>

struct buffer *exec_buffer_make(struct exec *exec, uint64_t bytes)
{
    struct buffer *buffer = pool_take(exec->buffers);
    if (buffer == NULL)
        return NULL;
    buffer->bytes = bytes;
    buffer->refs = 1;
    buffer->grow_dim = -1;
    buffer->serial = ++exec->next_serial;
    return buffer;
}

struct region_block *exec_region_need(struct exec *exec, uint64_t bytes)
{
    struct region_block *block = region_take(exec->region, bytes);
    while (block == NULL && bytes <= region_capacity_bytes(exec->region) && exec_leaf_evict(exec))
        block = region_take(exec->region, bytes);
    return block;
}

bool exec_buffer_reserve(struct exec *exec, struct buffer *buffer)
{
    assert(buffer->block == NULL);
    buffer->block = exec_region_need(exec, buffer->bytes);
    return buffer->block != NULL;
}

void exec_buffer_drop(struct exec *exec, struct buffer *buffer)
{
    if (buffer == NULL)
        return;
    assert(buffer->refs > 0);
    if (--buffer->refs > 0)
        return;
    if (buffer->block != NULL)
        region_release(exec->region, buffer->block);
    pool_give(exec->buffers, buffer);
}

enum dj_error exec_fault_memory(const struct exec *exec, uint64_t bytes, const char *what, struct fault *fault)
{
    uint64_t capacity = region_capacity_bytes(exec->region), used = region_used_bytes(exec->region);
    return fault_set(fault, DJ_E_DEVICE_MEMORY,
                     "%s needs %" PRIu64 " bytes on %s, which has %" PRIu64 " of %" PRIu64 " bytes free (largest piece %" PRIu64
                     "; leaves that others have too were dropped); free tensors, or start the worker with more --memory",
                     what, bytes, exec->port->info->name, capacity - used, capacity, region_largest_free_bytes(exec->region));
}

// What stands in when there is no memory for the reason itself. Never freed.
static struct failure failure_without_memory = {.refs = 1, .node = -1, .fault = {.code = DJ_E_NO_MEMORY}};

struct failure *exec_failure_make(int64_t node, const struct fault *fault)
{
    struct failure *failure = malloc(sizeof *failure);
    if (failure == NULL)
        return &failure_without_memory;
    *failure = (struct failure){.refs = 1, .node = node, .fault = *fault};
    return failure;
}

struct failure *exec_failure_hold(struct failure *failure)
{
    if (failure != &failure_without_memory)
        failure->refs++;
    return failure;
}

void exec_failure_drop(struct failure *failure)
{
    if (failure == NULL || failure == &failure_without_memory || --failure->refs > 0)
        return;
    free(failure);
}
