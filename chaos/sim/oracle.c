// Oracle: the manual is oracle.h.

#include "chaos/sim/oracle.h"

#include "chaos/sim/world.h"
#include "core/base/assert.h"

#include <stdlib.h>
#include <string.h>

enum { INPUTS_MAX = 8 };

struct shadow *shadow_hold(struct shadow *shadow)
{
    shadow->holders++;
    return shadow;
}

void shadow_drop(struct shadow *shadow)
{
    if (shadow == NULL || --shadow->holders > 0)
        return;
    free(shadow->bytes);
    free(shadow);
}

static struct tensor_meta meta_of(const struct dj_tensor *window)
{
    struct tensor_meta meta = {.dtype = (enum dtype)window->dtype, .rank = window->rank};
    memcpy(meta.size, window->size, window->rank * sizeof meta.size[0]);
    memcpy(meta.stride, window->stride, window->rank * sizeof meta.stride[0]);
    return meta;
}

// Calls copy(dense element, storage element) for every element of the window in row-major order.
static void walk(uint8_t *storage, const struct dj_tensor *window, uint8_t *dense, bool is_read)
{
    struct tensor_meta meta = meta_of(window);
    size_t width = dtype_bytes(meta.dtype);
    int64_t count = tensor_count(&meta), index[DJ_RANK_MAX] = {0};
    if (tensor_is_contiguous(&meta)) {
        uint8_t *at = storage + (size_t)window->offset * width;
        memcpy(is_read ? dense : at, is_read ? at : dense, (size_t)count * width);
        return;
    }
    for (int64_t i = 0; i < count; i++, dense += width) {
        int64_t at = window->offset;
        for (uint32_t d = 0; d < meta.rank; d++)
            at += index[d] * meta.stride[d];
        memcpy(is_read ? dense : storage + (size_t)at * width, is_read ? storage + (size_t)at * width : dense, width);
        for (uint32_t d = meta.rank; d-- > 0 && ++index[d] == meta.size[d];)
            index[d] = 0;
    }
}

struct shadow *shadow_of(const struct dj_tensor *window, const void *dense)
{
    struct tensor_meta meta = meta_of(window);
    struct shadow *shadow = calloc(1, sizeof *shadow);
    assert(shadow != NULL);
    shadow->holders = 1;
    shadow->dtype = meta.dtype;
    shadow->elements = window->offset + tensor_span(&meta);
    shadow->bytes = calloc((size_t)shadow->elements + 1, dtype_bytes(meta.dtype));
    assert(shadow->bytes != NULL);
    shadow_write(shadow, window, dense);
    return shadow;
}

uint8_t *shadow_read(const struct shadow *shadow, const struct dj_tensor *window, size_t *ret_bytes)
{
    struct tensor_meta meta = meta_of(window);
    *ret_bytes = (size_t)tensor_bytes(&meta);
    uint8_t *dense = malloc(*ret_bytes + 1);
    assert(dense != NULL && window->offset + tensor_span(&meta) <= shadow->elements);
    walk(shadow->bytes, window, dense, true);
    return dense;
}

void shadow_write(struct shadow *shadow, const struct dj_tensor *window, const void *dense)
{
    struct tensor_meta meta = meta_of(window);
    assert(window->offset + tensor_span(&meta) <= shadow->elements);
    walk(shadow->bytes, window, (uint8_t *)(uintptr_t)dense, false);
}

void oracle_run(const struct op_info *op, const struct oracle_input *in, uint32_t n_in, const struct dj_attr *attr,
                const struct dj_tensor *out, struct shadow *ret[OP_OUTPUTS_MAX])
{
    struct device_tensor input[INPUTS_MAX] = {0}, output[OP_OUTPUTS_MAX] = {0};
    uint8_t *dense[INPUTS_MAX] = {NULL};
    size_t bytes[INPUTS_MAX] = {0}, total = 0;
    assert(n_in <= INPUTS_MAX);
    for (uint32_t i = 0; i < n_in; i++) {
        if (in[i].shadow == NULL) {
            input[i] = (struct device_tensor){
                .is_scalar = true, .scalar = in[i].scalar, .meta = {.dtype = (enum dtype)in[i].scalar_dtype}};
            continue;
        }
        dense[i] = shadow_read(in[i].shadow, in[i].window, &bytes[i]);
        input[i] = (struct device_tensor){.offset = total, .meta = meta_of(in[i].window)};
        tensor_make_contiguous(&input[i].meta);
        total += (bytes[i] + 15) & ~(size_t)15;
    }
    for (uint32_t o = 0; o < op->outputs; o++) {
        output[o] = (struct device_tensor){.offset = total, .meta = meta_of(&out[o])};
        tensor_make_contiguous(&output[o].meta);
        total += ((size_t)tensor_bytes(&output[o].meta) + 15) & ~(size_t)15;
    }
    uint8_t *region = calloc(1, total + 1);
    assert(region != NULL);
    for (uint32_t i = 0; i < n_in; i++) {
        if (dense[i] != NULL)
            memcpy(region + input[i].offset, dense[i], bytes[i]);
        free(dense[i]);
    }
    struct device_task task = {.kind = DEVICE_KERNEL,
                               .op = op,
                               .in = input,
                               .out = output,
                               .n_in = n_in,
                               .n_out = op->outputs,
                               .attr = (const struct attr *)(const void *)attr};
    value_run(region, &task);
    for (uint32_t o = 0; o < op->outputs; o++)
        ret[o] = shadow_of(&out[o], region + output[o].offset);
    free(region);
}
