// Pins: values that are read a piece at a time while the program goes on: checkpoints. A pin is a reference of the value's buffer, so
// whoever would have overwritten it finds that somebody else can see it, and rows that are appended lie behind what is read.

#include "gpu_worker/exec/state.h"

#include "core/base/assert.h"

// Whether the value is the first rows of its growing buffer, as the buffer lays them out.
static bool is_grown(const struct value *value)
{
    const struct buffer *buffer = value->buffer;
    const struct tensor_meta *meta = &value->meta, *grow = &buffer->grow;
    if (buffer->grow_dim < 0 || value->offset != 0 || meta->rank != grow->rank || meta->dtype != grow->dtype)
        return false;
    for (uint32_t d = 0; d < meta->rank; d++) {
        if ((int32_t)d != buffer->grow_dim && meta->size[d] != grow->size[d])
            return false;
        if (meta->size[d] > 1 && meta->stride[d] != grow->stride[d])
            return false;
    }
    return true;
}

enum dj_error exec_pin(struct exec *exec, struct handle handle, struct exec_pin *ret)
{
    const struct value *value = exec_value_find(exec, handle);
    if (value == NULL)
        return DJ_E_HANDLE_UNKNOWN;
    if (value->failure != NULL)
        return value->failure->fault.code;
    bool has_grown = is_grown(value);
    *ret = (struct exec_pin){.handle = handle,
                             .meta = value->meta,
                             .grow_dim = has_grown ? value->buffer->grow_dim : -1,
                             .memory = has_grown ? value->buffer->serial : 0,
                             .place = {.buffer = value->buffer, .offset = value->offset, .meta = value->meta}};
    tensor_make_contiguous(&ret->meta);
    value->buffer->refs++;
    return DJ_OK;
}

void exec_unpin(struct exec *exec, struct exec_pin *pin)
{
    exec_buffer_drop(exec, pin->place.buffer);
    pin->place.buffer = NULL;
}

// The bytes of the innermost contiguous stretch, and which dimensions lie outside it: [0, *ret_outer).
static uint64_t stretch_bytes(const struct tensor_meta *meta, uint32_t *ret_outer)
{
    int64_t count = 1;
    uint32_t d = meta->rank;
    for (; d > 0; d--) {
        if (meta->size[d - 1] > 1 && meta->stride[d - 1] != count)
            break;
        count *= meta->size[d - 1];
    }
    *ret_outer = d;
    return (uint64_t)count * dtype_bytes(meta->dtype);
}

static enum dj_error read_stretches(struct run *run, uint32_t storage, uint64_t offset, const struct tensor_meta *meta,
                                    uint64_t stretch, uint32_t outer)
{
    int64_t index[DJ_RANK_MAX] = {0};
    uint64_t count = run->answer[0].bytes / stretch;
    for (uint64_t i = 0; i < count; i++) {
        int64_t at = 0;
        for (uint32_t d = 0; d < outer; d++)
            at += index[d] * meta->stride[d];
        struct device_task *task = exec_run_task(run, DEVICE_READ);
        if (task == NULL)
            return DJ_E_NO_MEMORY;
        task->offset = offset + (uint64_t)at * dtype_bytes(meta->dtype);
        task->bytes = stretch;
        task->blob_offset = i * stretch;
        run->part[run->tasks - 1].storage = storage;
        for (uint32_t d = outer; d > 0 && ++index[d - 1] == meta->size[d - 1]; d--)
            index[d - 1] = 0;
    }
    return DJ_OK;
}

static enum dj_error read_rows(struct exec *exec, struct run *run, const struct exec_pin *pin, const struct tensor_meta *rows,
                               uint64_t offset)
{
    uint32_t storage, outer;
    if (exec_run_pin(run, pin->place.buffer, &storage) != DJ_OK)
        return DJ_E_NO_MEMORY;
    pin->place.buffer->refs++;
    if (!exec_run_add_answer(run, pin->handle.output, rows))
        return DJ_E_NO_MEMORY;
    enum dj_error error = exec_run_place_answers(run);
    run->face.list.stream = DEVICE_TRANSFER;
    if (error != DJ_OK || run->answer[0].bytes == 0)
        return error;
    uint64_t stretch = stretch_bytes(rows, &outer);
    if (run->answer[0].bytes / stretch <= EXEC_READ_SEGMENTS_MAX)
        return read_stretches(run, storage, offset, rows, stretch, outer);
    struct place from = {.storage = storage, .offset = offset, .meta = rows};
    return exec_read_gathered(exec, run, &from, NULL);
}

enum dj_error exec_read(struct exec *exec, const struct exec_pin *pin, uint32_t dim, int64_t start, int64_t rows,
                        struct exec_run **ret)
{
    assert(pin->place.buffer != NULL);
    struct tensor_meta meta = pin->place.meta;
    int64_t size = meta.rank == 0 ? 1 : dim < meta.rank ? meta.size[dim] : -1;
    if (start < 0 || rows < 0 || size < 0 || start > size || rows > size - start || (meta.rank == 0 && rows != 1))
        return DJ_E_INVALID;
    uint64_t offset = pin->place.offset;
    if (meta.rank > 0) {
        meta.size[dim] = rows;
        offset += (uint64_t)(start * meta.stride[dim]) * dtype_bytes(meta.dtype);
    }
    struct run *run = exec_run_take(exec);
    if (run == NULL)
        return DJ_E_NO_MEMORY;
    enum dj_error error = read_rows(exec, run, pin, &meta, offset);
    if (error != DJ_OK) {
        exec_run_give(exec, run);
        return error;
    }
    run->face.id = pin->handle.execution;
    exec_run_resolve(run);
    list_push(&exec->in_flight, &run->in_flight);
    *ret = &run->face;
    return DJ_OK;
}
