// A device without arithmetic: each output element is a hash of what it depends on, read through strides; what only moves data moves it.
// So two layouts of the same values give the same bits, and any byte read from the wrong place shows. Lists wait until the test says.

#ifndef TESTS_GPU_WORKER_EXEC_FAKE_DEVICE_H
#define TESTS_GPU_WORKER_EXEC_FAKE_DEVICE_H

#include <stdlib.h>
#include <string.h>

#include "core/base/hash.h"
#include "core/io/blob.h"
#include "core/io/device.h"

enum { FAKE_QUEUE_MAX = 256, FAKE_OPERANDS_MAX = 64 };

struct fake_tensor {
    uint8_t *data;
    struct tensor_meta meta;
};

struct fake_device {
    struct device_port port;
    struct device_info info;
    uint8_t *region;
    struct device_list *queue[FAKE_QUEUE_MAX];
    uint32_t head, tail;
    uint64_t ticket;
    uint64_t fail_task;                 // the n-th kernel from now on fails (1: the next); 0: none
    uint64_t trimmed_bytes;
    uint32_t refused_op;                // fake_can refuses this op
    uint64_t forgotten;                 // the incarnation that forget_peer was told last
    uint64_t elapsed_ns;                // that each list of the compute stream says it took
};

// The place of the i-th element (row-major order of the sizes) of a tensor whose sizes broadcast to `shape`.
static inline uint8_t *fake_at(const struct fake_tensor *tensor, const struct tensor_meta *shape, uint64_t i)
{
    int64_t at = 0;
    for (uint32_t back = 0; back < shape->rank; back++) {
        uint32_t d = shape->rank - 1 - back;
        int64_t index = (int64_t)(i % (uint64_t)shape->size[d]);
        i /= (uint64_t)shape->size[d];
        if (back >= tensor->meta.rank)
            continue;
        uint32_t own = tensor->meta.rank - 1 - back;
        at += tensor->meta.size[own] == 1 ? 0 : index * tensor->meta.stride[own];
    }
    return tensor->data + (size_t)at * dtype_bytes(tensor->meta.dtype);
}

static inline void fake_put(uint8_t *to, enum dtype dtype, uint64_t hash)
{
    uint64_t bits[2] = {hash, ~hash};
    if (dtype == DTYPE_BOOL)
        bits[0] &= 1;
    memcpy(to, bits, dtype_bytes(dtype));
}

static inline uint64_t fake_element(uint64_t hash, const struct fake_tensor *tensor, const struct tensor_meta *shape, uint64_t i)
{
    return hash64_seed(fake_at(tensor, shape, i), dtype_bytes(tensor->meta.dtype), hash);
}

static inline uint64_t fake_attrs(const struct op_info *op, const struct attr *attr)
{
    uint64_t hash = op->number;
    for (uint32_t a = 0; a < op->attrs; a++) {
        hash = hash_mix(hash, (uint64_t)attr[a].kind << 8 | attr[a].count);
        if (attr[a].kind == ATTR_INTS)
            hash = hash64_seed(attr[a].ints, attr[a].count * sizeof(int64_t), hash);
        else if (attr[a].kind != ATTR_ABSENT)
            hash = hash_mix(hash, (uint64_t)attr[a].i);
    }
    return hash;
}

static inline void fake_move(const struct fake_tensor *from, const struct tensor_meta *shape, const struct fake_tensor *to)
{
    uint64_t count = (uint64_t)tensor_count(&to->meta);
    for (uint64_t i = 0; i < count; i++) {
        if (from->meta.dtype == to->meta.dtype)
            memmove(fake_at(to, &to->meta, i), fake_at(from, shape, i), dtype_bytes(to->meta.dtype));
        else
            fake_put(fake_at(to, &to->meta, i), to->meta.dtype, fake_element(7, from, shape, i));
    }
}

static inline void fake_cat(const struct attr *attr, const struct fake_tensor *in, uint32_t n_in, struct fake_tensor *out)
{
    uint32_t dim = (uint32_t)(attr[0].i < 0 ? attr[0].i + out->meta.rank : attr[0].i);
    struct fake_tensor slot = *out;
    for (uint32_t k = 0; k < n_in; k++) {
        if (tensor_count(&in[k].meta) == 0)
            continue;
        slot.meta.size[dim] = in[k].meta.size[dim];
        fake_move(&in[k], &in[k].meta, &slot);
        slot.data += (size_t)(in[k].meta.size[dim] * out->meta.stride[dim]) * dtype_bytes(out->meta.dtype);
    }
}

static inline void fake_kernel(const struct op_info *op, const struct attr *attr, const struct fake_tensor *in, uint32_t n_in,
                               struct fake_tensor *out, uint32_t n_out)
{
    if (op->number == OP_CAT) {
        fake_cat(attr, in, n_in, out);
        return;
    }
    if (op->number == OP_CLONE || op->number == OP_TO_COPY) {
        fake_move(&in[0], &out[0].meta, &out[0]);
        return;
    }
    uint64_t base = fake_attrs(op, attr);
    if (op->number <= OP_CLAMP_MIN && n_out == 1) {
        for (uint64_t i = 0; i < (uint64_t)tensor_count(&out[0].meta); i++) {
            uint64_t hash = base;
            for (uint32_t k = 0; k < n_in; k++)
                hash = in[k].meta.dtype == DTYPE_NONE ? hash_mix(hash, k) : fake_element(hash, &in[k], &out[0].meta, i);
            fake_put(fake_at(&out[0], &out[0].meta, i), out[0].meta.dtype, hash);
        }
        return;
    }
    for (uint32_t k = 0; k < n_in; k++) {
        base = hash_mix(base, in[k].meta.dtype);
        for (uint64_t i = 0; in[k].meta.dtype != DTYPE_NONE && i < (uint64_t)tensor_count(&in[k].meta); i++)
            base = fake_element(base, &in[k], &in[k].meta, i);
    }
    for (uint32_t o = 0; o < n_out; o++) {
        for (uint64_t i = 0; i < (uint64_t)tensor_count(&out[o].meta); i++)
            fake_put(fake_at(&out[o], &out[o].meta, i), out[o].meta.dtype, hash_mix(hash_mix(base, o), i));
    }
}

static inline bool fake_can(void *self, const struct device_task *task)
{
    struct fake_device *device = self;
    return task->op->number != device->refused_op && task->n_in + task->n_out <= FAKE_OPERANDS_MAX;
}

// Some ops get scratch, which is overwritten before they run: nothing may lie there.
static inline size_t fake_scratch_bytes(void *self, const struct device_task *task)
{
    (void)self;
    return task->op->number % 3 == 0 ? 100 + task->n_in * 64 : 0;
}

static inline void fake_submit(void *self, struct device_list *list)
{
    struct fake_device *device = self;
    list->ticket = ++device->ticket;
    device->queue[device->tail++ % FAKE_QUEUE_MAX] = list;
}

static inline void fake_trim(void *self, uint64_t offset, uint64_t bytes)
{
    struct fake_device *device = self;
    memset(device->region + offset, 0xdd, bytes);
    device->trimmed_bytes += bytes;
}

static inline void fake_forget_peer(void *self, uint64_t incarnation)
{
    ((struct fake_device *)self)->forgotten = incarnation;
}

// The key of a region in this process; what COPY_PEER opens.
static inline struct device_key fake_key(const uint8_t *region)
{
    struct device_key key = {.bytes = sizeof region};
    memcpy(key.data, &region, sizeof region);
    return key;
}

static inline enum dj_error fake_task(struct fake_device *device, const struct device_task *task, struct fault *fault)
{
    switch ((enum device_task_kind)task->kind) {
    case DEVICE_WRITE:
        memcpy(device->region + task->offset, task->blob->data + task->blob_offset, task->bytes);
        return DJ_OK;
    case DEVICE_READ:
        memcpy(task->blob->data + task->blob_offset, device->region + task->offset, task->bytes);
        return DJ_OK;
    case DEVICE_ZERO:
        memset(device->region + task->offset, 0, task->bytes);
        return DJ_OK;
    case DEVICE_COPY_PEER: {
        const uint8_t *from = NULL;
        if (task->peer->key.bytes != sizeof from)
            return fault_set(fault, DJ_E_DEVICE, "this peer's memory cannot be opened");
        memcpy(&from, task->peer->key.data, sizeof from);
        memcpy(device->region + task->offset, from + task->blob_offset, task->bytes);
        return DJ_OK;
    }
    case DEVICE_KERNEL:
        break;
    }
    if (device->fail_task != 0 && --device->fail_task == 0)
        return fault_set(fault, DJ_E_INDEX, "the test said so");
    struct fake_tensor operand[FAKE_OPERANDS_MAX];
    for (uint32_t i = 0; i < task->n_in + task->n_out; i++) {
        const struct device_tensor *from = i < task->n_in ? &task->in[i] : &task->out[i - task->n_in];
        operand[i] = (struct fake_tensor){.meta = from->meta};
        operand[i].data = from->is_scalar ? (uint8_t *)(uintptr_t)&from->scalar : device->region + from->offset;
    }
    memset(device->region + task->offset, 0xcc, task->bytes);
    fake_kernel(task->op, task->attr, operand, task->n_in, operand + task->n_in, task->n_out);
    return DJ_OK;
}

// Carries out the oldest list; NULL when there is none.
static inline struct device_list *fake_step(struct fake_device *device)
{
    if (device->head == device->tail)
        return NULL;
    struct device_list *list = device->queue[device->head++ % FAKE_QUEUE_MAX];
    list->error = DJ_OK;
    list->elapsed_ns = list->stream == DEVICE_COMPUTE ? device->elapsed_ns : 0;
    for (uint32_t i = 0; i < list->tasks && list->error == DJ_OK; i++) {
        list->error = fake_task(device, &list->task[i], &list->fault);
        list->failed_task = i;
    }
    return list;
}

static inline void fake_init(struct fake_device *device, uint64_t capacity_bytes)
{
    memset(device, 0, sizeof *device);
    strcpy(device->info.name, "fake");
    device->info.capacity_bytes = capacity_bytes;
    device->region = malloc(capacity_bytes);
    memset(device->region, 0xee, capacity_bytes);
    device->port = (struct device_port){.info = &device->info, .self = device, .can = fake_can, .scratch_bytes = fake_scratch_bytes,
                                        .submit = fake_submit, .trim = fake_trim, .forget_peer = fake_forget_peer};
}

static inline void fake_free(struct fake_device *device)
{
    free(device->region);
}

#endif
