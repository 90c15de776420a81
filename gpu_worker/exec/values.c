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
    if (map_get(exec->value, key) != NULL)
        return DJ_E_DUPLICATE_DIFFERS;
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

bool exec_has(const struct exec *exec, struct handle handle)
{
    return exec_value_find(exec, handle) != NULL;
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
