// Value: what the simulated device computes. Ops that move data move it, so that views, donation and append-in-place mean what they mean; every
// other op gives each output element as a function of the op, its attributes, every input element and the element's place. So two executions
// give the same bytes exactly when they saw the same inputs, wherever these lay.
//
// Values are small and finite: an index that comes out of one op is a poor index, but never a crash.

#include "chaos/sim/world.h"

#include "core/base/assert.h"
#include "core/base/hash.h"

#include <stdlib.h>
#include <string.h>

typedef void (*each_element)(void *context, int64_t ordinal, int64_t offset);

// Calls `each` for every element in logical (row-major) order with its offset in elements.
static void walk(const struct tensor_meta *meta, each_element each, void *context)
{
    int64_t index[DJ_RANK_MAX] = {0}, offset = 0, count = tensor_count(meta);
    for (int64_t ordinal = 0; ordinal < count; ordinal++) {
        each(context, ordinal, offset);
        for (uint32_t d = meta->rank; d-- > 0;) {
            offset += meta->stride[d];
            if (++index[d] < meta->size[d])
                break;
            offset -= index[d] * meta->stride[d];
            index[d] = 0;
        }
    }
}

struct copying {
    uint8_t *dense, *strided;
    size_t element;
    bool is_gather;
};

static void copy_element(void *context, int64_t ordinal, int64_t offset)
{
    const struct copying *copying = context;
    uint8_t *dense = copying->dense + (size_t)ordinal * copying->element,
            *strided = copying->strided + (size_t)offset * copying->element;
    memcpy(copying->is_gather ? dense : strided, copying->is_gather ? strided : dense, copying->element);
}

// The tensor's elements in logical order, in memory of its own.
static uint8_t *gather(const uint8_t *at, const struct tensor_meta *meta)
{
    uint8_t *dense = malloc((size_t)tensor_bytes(meta) + 1);
    assert(dense != NULL);
    if (tensor_is_contiguous(meta)) {
        memcpy(dense, at, (size_t)tensor_bytes(meta));
        return dense;
    }
    struct copying copying = {
        .dense = dense, .strided = (uint8_t *)(uintptr_t)at, .element = dtype_bytes(meta->dtype), .is_gather = true};
    walk(meta, copy_element, &copying);
    return dense;
}

static void scatter(uint8_t *at, const struct tensor_meta *meta, const uint8_t *dense)
{
    if (tensor_is_contiguous(meta)) {
        memcpy(at, dense, (size_t)tensor_bytes(meta));
        return;
    }
    struct copying copying = {.dense = (uint8_t *)(uintptr_t)dense, .element = dtype_bytes(meta->dtype)};
    copying.strided = at;
    walk(meta, copy_element, &copying);
}

static uint8_t *address(uint8_t *region, const struct device_tensor *tensor)
{
    return region + tensor->offset;
}

// Moving -----------------------------------------------------------------------------------------------------------------

static bool is_same_kind(const struct device_tensor *a, const struct device_tensor *b)
{
    return !a->is_scalar && !b->is_scalar && a->meta.dtype == b->meta.dtype && tensor_count(&a->meta) == tensor_count(&b->meta);
}

static bool copy_whole(uint8_t *region, const struct device_tensor *from, const struct device_tensor *to)
{
    if (!is_same_kind(from, to))
        return false;
    uint8_t *dense = gather(address(region, from), &from->meta);
    scatter(address(region, to), &to->meta, dense);
    free(dense);
    return true;
}

static bool concatenate(uint8_t *region, const struct device_task *task)
{
    const struct device_tensor *out = &task->out[0];
    int64_t dim = task->attr[0].i, at = 0;
    if (dim < 0)
        dim += out->meta.rank;
    for (uint32_t i = 0; i < task->n_in; i++) {
        const struct device_tensor *in = &task->in[i];
        if (tensor_count(&in->meta) == 0)
            continue;
        if (in->is_scalar || in->meta.dtype != out->meta.dtype || in->meta.rank != out->meta.rank)
            return false;
    }
    // Appended in place the cache may lie under the output: everything is taken before anything is put.
    uint8_t **dense = calloc(task->n_in + 1, sizeof *dense);
    assert(dense != NULL);
    for (uint32_t i = 0; i < task->n_in; i++)
        dense[i] = tensor_count(&task->in[i].meta) == 0 ? NULL : gather(address(region, &task->in[i]), &task->in[i].meta);
    for (uint32_t i = 0; i < task->n_in; i++) {
        if (dense[i] == NULL)
            continue;
        struct tensor_meta part = out->meta;
        part.size[dim] = task->in[i].meta.size[dim];
        scatter(address(region, out) + (size_t)(at * out->meta.stride[dim]) * dtype_bytes(out->meta.dtype), &part, dense[i]);
        at += part.size[dim];
        free(dense[i]);
    }
    free(dense);
    return true;
}

// The part of `whole` that a view op with these attributes shows; false when the op does not fit it.
static bool view_of(uint32_t view_op, const struct device_task *task, const struct device_tensor *whole, struct tensor_meta *ret,
                    size_t *ret_offset_bytes)
{
    struct op_call call = {.op = op_info(view_op), .in = &whole->meta, .n_in = 1, .attr = task->attr, .dtype = whole->meta.dtype};
    struct op_result result;
    if (call.op == NULL || op_infer(&call, &result, NULL) != DJ_OK)
        return false;
    *ret = result.out[0];
    *ret_offset_bytes = (size_t)result.view_offset[0] * dtype_bytes(whole->meta.dtype);
    return true;
}

static bool show(uint8_t *region, const struct device_task *task)
{
    const struct device_tensor *in = &task->in[0], *out = &task->out[0];
    struct tensor_meta part;
    size_t offset;
    if (in->is_scalar || in->meta.dtype != out->meta.dtype || !view_of(task->op->number, task, in, &part, &offset))
        return copy_whole(region, in, out);
    struct device_tensor shown = *in;
    shown.meta = part;
    shown.offset += offset;
    return copy_whole(region, &shown, out);
}

static bool overwrite(uint8_t *region, const struct device_task *task, uint32_t view_op)
{
    const struct device_tensor *self = &task->in[0], *src = &task->in[1], *out = &task->out[0];
    struct device_tensor part = *out;
    size_t offset;
    if (!is_same_kind(self, out) || !view_of(view_op, task, out, &part.meta, &offset) || !is_same_kind(src, &part))
        return false;
    part.offset += offset;
    uint8_t *dense = gather(address(region, src), &src->meta);    // it may lie in what is overwritten
    copy_whole(region, self, out);
    scatter(address(region, &part), &part.meta, dense);
    free(dense);
    return true;
}

static bool move(uint8_t *region, const struct device_task *task)
{
    if (task->n_in == 0 || task->n_out != 1)
        return false;
    switch (task->op->number) {
    case OP_CLONE:
    case OP_TO_COPY: return copy_whole(region, &task->in[0], &task->out[0]);
    case OP_COPY_INTO:
        return task->n_in == 2 && tensor_same_sizes(&task->in[1].meta, &task->out[0].meta) &&
               copy_whole(region, &task->in[1], &task->out[0]);
    case OP_CAT: return concatenate(region, task);
    case OP_SLICE_SCATTER: return overwrite(region, task, OP_SLICE);
    case OP_SELECT_SCATTER: return overwrite(region, task, OP_SELECT);
    case OP_AS_STRIDED_SCATTER: return overwrite(region, task, OP_AS_STRIDED);
    default: return (task->op->flags & OP_IS_VIEW) != 0 && show(region, task);
    }
}

// Computing --------------------------------------------------------------------------------------------------------------

static uint64_t hash_input(uint64_t hash, uint8_t *region, const struct device_tensor *in)
{
    hash = hash_mix(hash, (uint64_t)in->meta.dtype << 8 | in->is_scalar);
    if (in->meta.dtype == DTYPE_NONE)
        return hash;
    if (in->is_scalar)
        return hash_mix(hash, (uint64_t)in->scalar);
    for (uint32_t d = 0; d < in->meta.rank; d++)
        hash = hash_mix(hash, (uint64_t)in->meta.size[d]);
    uint8_t *dense = gather(address(region, in), &in->meta);
    hash = hash_mix(hash, hash64(dense, (size_t)tensor_bytes(&in->meta)));
    free(dense);
    return hash;
}

static uint64_t hash_attrs(uint64_t hash, const struct device_task *task)
{
    for (uint32_t i = 0; i < task->op->attrs; i++) {
        const struct attr *attr = &task->attr[i];
        hash = hash_mix(hash, (uint64_t)attr->kind << 8 | attr->count);
        if (attr->kind == ATTR_INTS) {
            for (uint32_t k = 0; k < attr->count; k++)
                hash = hash_mix(hash, (uint64_t)attr->ints[k]);
        } else if (attr->kind != ATTR_ABSENT) {
            uint64_t bits;
            memcpy(&bits, &attr->i, sizeof bits);
            hash = hash_mix(hash, bits);
        }
    }
    return hash;
}

static void put_element(uint8_t *at, enum dtype dtype, uint64_t chance)
{
    float small = (float)((int64_t)(chance % 4001) - 2000) / 16.0f;
    double wide = small;
    int64_t whole = (int64_t)(chance % 64);
    memset(at, 0, dtype_bytes(dtype));
    switch (dtype) {
    case DTYPE_BOOL: *at = chance & 1; break;
    case DTYPE_F32:
    case DTYPE_C64: memcpy(at, &small, sizeof small); break;
    case DTYPE_F64:
    case DTYPE_C128: memcpy(at, &wide, sizeof wide); break;
    case DTYPE_F16: *(uint16_t *)(void *)at = (uint16_t)(chance & 0xBBFF); break;
    case DTYPE_BF16: memcpy(at, (const uint8_t *)&small + 2, 2); break;
    default: memcpy(at, &whole, dtype_bytes(dtype)); break;    // little-endian: the low bytes
    }
}

struct filling {
    uint8_t *at;
    enum dtype dtype;
    uint64_t hash;
};

static void fill_element(void *context, int64_t ordinal, int64_t offset)
{
    const struct filling *filling = context;
    put_element(filling->at + (size_t)offset * dtype_bytes(filling->dtype), filling->dtype,
                hash_mix(filling->hash, (uint64_t)ordinal));
}

void value_run(uint8_t *region, const struct device_task *task)
{
    if (move(region, task))
        return;
    uint64_t hash = hash_attrs(hash_mix(0, task->op->number), task);
    for (uint32_t i = 0; i < task->n_in; i++)
        hash = hash_input(hash, region, &task->in[i]);
    for (uint32_t o = 0; o < task->n_out; o++) {
        const struct device_tensor *out = &task->out[o];
        struct filling filling = {.at = address(region, out), .dtype = out->meta.dtype, .hash = hash_mix(hash, o)};
        walk(&out->meta, fill_element, &filling);
    }
}
