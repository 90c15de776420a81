// Operands: a task's tensors as kernels take them, with addresses instead of offsets. What every device that runs kernels on its region shares.

#ifndef GPU_WORKER_DEVICE_OPERANDS_H
#define GPU_WORKER_DEVICE_OPERANDS_H

#include <stdlib.h>

#include "core/io/device.h"
#include "gpu_worker/kernels/kernel.h"

struct operands {    // one set for each thread that calls kernels' functions; zero at first, `tensor` freed by its owner
    struct tensor *tensor;
    uint32_t capacity;
};

// `region` NULL leaves the data out. False out of memory.
static inline bool operands_fill(struct operands *operands, const struct device_task *task, uint8_t *region)
{
    uint32_t count = task->n_in + task->n_out;
    if (count > operands->capacity) {
        struct tensor *larger = realloc(operands->tensor, count * sizeof *larger);
        if (larger == NULL)
            return false;
        operands->tensor = larger;
        operands->capacity = count;
    }
    for (uint32_t i = 0; i < count; i++) {
        const struct device_tensor *from = i < task->n_in ? &task->in[i] : &task->out[i - task->n_in];
        struct tensor *to = &operands->tensor[i];
        to->meta = from->meta;
        to->is_scalar = from->is_scalar;
        to->is_constant = from->is_constant;
        to->constant_key = from->constant_key;
        // Little-endian, so the low byte of the 64 bits is the bool.
        to->data = from->is_scalar                                    ? (void *)(uintptr_t)&from->scalar
                   : region == NULL || from->meta.dtype == DTYPE_NONE ? NULL
                                                                      : region + from->offset;
    }
    return true;
}

// After operands_fill with the same task and region; without a team and a fault.
static inline struct kernel_call call_of(const struct device_task *task, const struct operands *operands, uint8_t *region)
{
    return (struct kernel_call){
        .op = task->op,
        .in = operands->tensor,
        .n_in = task->n_in,
        .out = operands->tensor + task->n_in,
        .n_out = task->n_out,
        .attr = task->attr,
        .compute = (enum dtype)task->compute,
        .scratch = region == NULL ? NULL : region + task->offset,
        .scratch_bytes = task->bytes,
    };
}

#endif
