// Values: the table from handles to what they name.

#include "gpu_worker/exec/state.h"

#include <stdlib.h>

struct value *exec_value_find(const struct exec *exec, struct handle handle)
{
    return map_get(exec->value, handle_key(handle));
}

enum dj_error exec_value_put(struct exec *exec, const struct value *value)
{
    struct hash128 key = handle_key(value->handle);
    struct value *old = map_get(exec->value, key);
    if (old != NULL && old->failure == NULL)
        return DJ_E_DUPLICATE_DIFFERS;
    if (old != NULL) {
        exec_failure_drop(old->failure);
        *old = *value;
        return DJ_OK;
    }
    struct value *entry = pool_take(exec->values);
    if (entry == NULL)
        return map_count(exec->value) >= EXEC_VALUES_MAX ? DJ_E_LIMIT : DJ_E_NO_MEMORY;
    *entry = *value;
    enum dj_error error = map_put(exec->value, key, entry);
    if (error != DJ_OK)
        pool_give(exec->values, entry);
    return error;
}

void exec_value_drop(struct exec *exec, struct value *value)
{
    map_take(exec->value, handle_key(value->handle));
    exec_buffer_drop(exec, value->buffer);
    exec_failure_drop(value->failure);
    pool_give(exec->values, value);
}

enum exec_value_state exec_value_state(const struct exec *exec, struct handle handle)
{
    const struct value *value = exec_value_find(exec, handle);
    if (value == NULL)
        return VALUE_ABSENT;
    return value->failure != NULL ? VALUE_FAILED : value->producer != NULL ? VALUE_COMING : VALUE_HERE;
}

uint64_t exec_value_bytes(const struct exec *exec, struct handle handle)
{
    const struct value *value = exec_value_find(exec, handle);
    return value == NULL || value->failure != NULL ? 0 : (uint64_t)tensor_bytes(&value->meta);
}

void exec_each_value(const struct exec *exec, void (*visit)(void *context, struct handle handle, uint64_t bytes), void *context)
{
    uint32_t cursor = 0;
    for (const struct value *value; (value = map_next(exec->value, &cursor, NULL)) != NULL;) {
        if (value->failure == NULL && value->producer == NULL)
            visit(context, value->handle, (uint64_t)tensor_bytes(&value->meta));
    }
}

enum dj_error exec_alias(struct exec *exec, struct handle from, struct handle to, struct fault *fault)
{
    const struct value *value = exec_value_find(exec, from);
    char text[HANDLE_TEXT];
    if (value == NULL)
        return fault_set(fault, DJ_E_HANDLE_UNKNOWN, "no value %s on this worker", handle_text(from, text));
    if (value->failure != NULL) {
        if (fault != NULL)
            *fault = value->failure->fault;
        return value->failure->fault.code;
    }
    if (value->producer != NULL)
        return fault_set(fault, DJ_E_BUSY, "%s", dj_error_text(DJ_E_BUSY));
    struct value alias = *value;
    alias.handle = to;
    enum dj_error error = exec_value_put(exec, &alias);
    if (error != DJ_OK)
        return fault_set(fault, error, "%s", dj_error_text(error));
    alias.buffer->refs++;
    return DJ_OK;
}

bool exec_release(struct exec *exec, struct handle handle)
{
    struct value *value = exec_value_find(exec, handle);
    if (value == NULL)
        return false;
    exec_value_drop(exec, value);
    return true;
}

uint32_t exec_session_drop(struct exec *exec, uint64_t session)
{
    // Deletion moves the map's entries, so a pass that drops begins again where it was: an entry moved back is met in the next pass.
    uint32_t dropped = 0, last;
    do {
        last = dropped;
        uint32_t cursor = 0;
        struct value *value;
        while ((value = map_next(exec->value, &cursor, NULL)) != NULL) {
            if (value->handle.execution.session != session)
                continue;
            exec_value_drop(exec, value);
            cursor--;
            dropped++;
        }
    } while (dropped != last);
    return dropped;
}
