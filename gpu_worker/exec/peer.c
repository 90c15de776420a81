// Peer: values that go from one device's memory to another's. The side that has one pins it and says where it lies; the side that wants it
// copies first, into memory that is no value yet, and makes it one when the other side has confirmed that the pin still stood.

#include "core/base/assert.h"
#include "gpu_worker/exec/state.h"

static enum dj_error write_copy(struct exec *exec, struct run *run, struct buffer *buffer, uint64_t offset)
{
    uint32_t storage;
    if (exec_run_pin(run, buffer, &storage) != DJ_OK)
        return DJ_E_NO_MEMORY;
    buffer->refs++;
    struct device_task *task = exec_run_task(run, DEVICE_COPY_PEER);
    if (task == NULL)
        return DJ_E_NO_MEMORY;
    task->bytes = buffer->bytes;
    task->blob_offset = offset;
    run->part[0].storage = storage;
    run->face.list.stream = DEVICE_TRANSFER;
    return exec_buffer_reserve(exec, buffer) ? DJ_OK : DJ_E_DEVICE_MEMORY;
}

enum dj_error exec_copy_peer(struct exec *exec, const struct device_peer *peer, uint64_t offset, const struct tensor_meta *meta,
                             struct exec_pin *ret_pin, struct exec_run **ret_run)
{
    assert(tensor_is_contiguous(meta) && tensor_bytes(meta) > 0);
    struct run *run = exec_run_take(exec);
    struct buffer *buffer = run == NULL ? NULL : exec_buffer_make(exec, (uint64_t)tensor_bytes(meta));
    enum dj_error error = buffer == NULL ? DJ_E_NO_MEMORY : write_copy(exec, run, buffer, offset);
    if (error != DJ_OK) {
        if (run != NULL)
            exec_run_give(exec, run);
        exec_buffer_drop(exec, buffer);
        return error;
    }
    run->peer = *peer;
    *ret_pin = (struct exec_pin){.meta = *meta, .grow_dim = -1, .place = {.buffer = buffer, .meta = *meta}};
    exec_run_resolve(run);
    list_push(&exec->in_flight, &run->in_flight);
    *ret_run = &run->face;
    return DJ_OK;
}

enum dj_error exec_adopt(struct exec *exec, struct handle handle, const struct exec_pin *pin, struct fault *fault)
{
    struct value value = {.handle = handle, .buffer = pin->place.buffer, .offset = pin->place.offset, .meta = pin->place.meta};
    pin->place.buffer->refs++;
    enum dj_error error = exec_value_put(exec, &value);
    if (error == DJ_OK)
        return DJ_OK;
    exec_buffer_drop(exec, pin->place.buffer);
    return fault_set(fault, error, "%s", dj_error_text(error));
}

bool exec_pin_offset(const struct exec_pin *pin, uint64_t *ret_offset)
{
    if (!tensor_is_contiguous(&pin->place.meta))
        return false;
    *ret_offset = pin->place.buffer->block->offset + pin->place.offset;
    return true;
}
