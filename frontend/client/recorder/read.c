// Reading: the value behind a window, and its bytes once they are here.

#include "frontend/client/recorder/graph.h"

#include <string.h>

#include "core/base/assert.h"
#include "core/io/blob.h"
#include "frontend/client/recorder/predict.h"

// An answer above this is not kept for a second read.
enum { ANSWER_KEEP_BYTES = 64 << 10 };

enum dj_error recorder_want(struct recorder *recorder, const struct dj_tensor *tensor, struct recorded_at at, struct value **ret,
                            struct fault *fault)
{
    struct value *value;
    enum dj_error error = window_resolve(recorder, tensor, at, &value, fault);
    if (error != DJ_OK)
        return error;
    // A leaf whose bytes only the store has left: let a worker say them.
    if (value->kind == VALUE_LEAF && value->leaf->blob == NULL && value->answer == NULL) {
        struct attr format = attr_int(FORMAT_PRESERVE);
        struct value *clone;
        error = node_emit(recorder, OP_CLONE, value, NULL, &format, DTYPE_NONE, tensor->cell->device, at, &clone, fault);
        value_drop(recorder, value);
        if (error != DJ_OK)
            return error;
        value = clone;
    }
    value->roots++;    // the reference from resolving becomes the reader's
    value->is_wanted = true;
    *ret = value;
    return DJ_OK;
}

void recorder_value_retain(struct value *value)
{
    value_root(value);
}

void recorder_unwant(struct recorder *recorder, struct value *value)
{
    value->is_wanted = false;
    if (value->kind == VALUE_HANDLE && value->answer != NULL && tensor_bytes(&value->meta) > ANSWER_KEEP_BYTES) {
        blob_drop(value->answer);
        value->answer = NULL;
    }
    value_unroot(recorder, value);
}

void recorder_value_release(struct recorder *recorder, struct value *value)
{
    value_unroot(recorder, value);
}

enum value_state recorder_value_state(const struct recorder *recorder, const struct value *value)
{
    if (value->kind == VALUE_PENDING)
        return VALUE_RECORDED;
    if (value->kind == VALUE_LEAF)
        return VALUE_LOCAL;
    if (value->answer != NULL)
        return VALUE_ANSWERED;
    return value_fault(recorder, value) != NULL ? VALUE_FAILED : VALUE_AT_WORKER;
}

// Copies elements in row-major order out of a dense layout in another order, the last dimension as the inner loop.
static void gather(const struct tensor_meta *meta, const uint8_t *from, uint8_t *to)
{
    size_t width = dtype_bytes(meta->dtype);
    if (tensor_is_contiguous(meta)) {
        memcpy(to, from, (size_t)tensor_bytes(meta));
        return;
    }
    assert(meta->rank > 0);    // rank 0 is contiguous
    uint32_t last = meta->rank - 1;
    int64_t index[DJ_RANK_MAX] = {0};
    for (;;) {
        int64_t at = 0;
        for (uint32_t d = 0; d < last; d++)
            at += index[d] * meta->stride[d];
        for (int64_t i = 0; i < meta->size[last]; i++, to += width)
            memcpy(to, from + (size_t)(at + i * meta->stride[last]) * width, width);
        uint32_t d = last;
        while (d > 0 && ++index[d - 1] == meta->size[d - 1])
            index[--d] = 0;
        if (d == 0)
            return;
    }
}

enum dj_error recorder_copy(struct recorder *recorder, struct value *value, void *data, size_t bytes, struct fault *fault)
{
    char text[TENSOR_TEXT_MAX];
    if (bytes != (size_t)tensor_bytes(&value->meta))
        return fault_set(fault, DJ_E_INVALID, "%s has %lld bytes; room for %zu was given", tensor_text(&value->meta, text),
                         (long long)tensor_bytes(&value->meta), bytes);
    if (bytes == 0)
        return DJ_OK;
    if (value->answer == NULL) {
        assert(value->kind == VALUE_LEAF);
        gather(&value->meta, value->leaf->blob->data, data);
        return DJ_OK;
    }
    memcpy(data, value->answer->data + value->answer_offset, bytes);
    predict_learn(recorder, value);
    return DJ_OK;
}

enum dj_error recorder_value_fault(const struct recorder *recorder, const struct value *value, struct dj_fault *ret)
{
    const struct dj_fault *fault = value_fault(recorder, value);
    assert(fault != NULL);
    if (ret != NULL)
        *ret = *fault;
    return (enum dj_error)fault->error;
}

bool recorder_value_is_coming(const struct value *value)
{
    return value->is_coming;
}

void recorder_value_set_coming(struct value *value, bool is_coming)
{
    value->is_coming = is_coming;
}

void recorder_value_handle(const struct value *value, uint32_t *ret_place, uint64_t *ret_counter, uint32_t *ret_output)
{
    assert(value->kind == VALUE_HANDLE);
    *ret_place = value->exec->place;
    *ret_counter = value->exec->counter;
    *ret_output = value->flat;
}

void recorder_value_answer(struct recorder *recorder, struct value *value, struct blob *blob, uint64_t offset, uint64_t length)
{
    (void)recorder;
    value->is_coming = false;
    // A worker that says another size than was inferred is not believed; the reader fetches and meets the same end.
    if (length != (uint64_t)tensor_bytes(&value->meta) || value->answer != NULL)
        return;
    value->answer = blob_hold(blob);
    value->answer_offset = offset;
}
