// Tensor metadata: the checks that make later arithmetic safe. A checked meta has at most TENSOR_COUNT_MAX elements even when its
// empty dimensions are counted as one, and its last element lies within TENSOR_COUNT_MAX elements of its first, so that products
// of its sizes, its byte count (16 bytes an element at most) and its row-major strides never overflow.

#include "core/ops/tensor.h"

#include "core/base/bits.h"
#include "core/ops/layout.h"

#include <inttypes.h>
#include <stdio.h>

enum dj_error tensor_check(const struct tensor_meta *meta, struct fault *fault)
{
    if (meta->rank > DJ_RANK_MAX)
        return fault_set(fault, DJ_E_RANK, "a tensor of %" PRIu32 " dimensions: at most %d are taken", meta->rank, DJ_RANK_MAX);
    if (!dtype_is_known((uint64_t)meta->dtype))
        return fault_set(fault, DJ_E_DTYPE, "%u is not the number of a dtype", (unsigned)meta->dtype);
    for (uint32_t i = 0; i < meta->rank; i++) {
        if (meta->size[i] < 0)
            return fault_set(fault, DJ_E_SHAPE, "size %" PRId64 " of dimension %" PRIu32 " is negative", meta->size[i], i);
        if (meta->stride[i] < 0)
            return fault_set(fault, DJ_E_SHAPE, "stride %" PRId64 " of dimension %" PRIu32 " is negative", meta->stride[i], i);
    }
    if (!meta_fits(meta))
        return fault_set(fault, DJ_E_OVERFLOW, "a tensor's sizes or strides reach past 2^59 elements");
    return DJ_OK;
}

bool meta_fits(const struct tensor_meta *meta)
{
    int64_t count = 1, last = 0;
    for (uint32_t i = 0; i < meta->rank; i++) {
        int64_t size = meta->size[i], reach;
        if (size > 1 &&
            (!i64_mul(count, size, &count) || !i64_mul(size - 1, meta->stride[i], &reach) || !i64_add(last, reach, &last)))
            return false;
        if (meta->stride[i] > TENSOR_COUNT_MAX)
            return false;
    }
    return count <= TENSOR_COUNT_MAX && last < TENSOR_COUNT_MAX;
}

int64_t tensor_count(const struct tensor_meta *meta)
{
    int64_t count = 1;
    for (uint32_t i = 0; i < meta->rank; i++)
        count *= meta->size[i];
    return count;
}

int64_t tensor_bytes(const struct tensor_meta *meta)
{
    return tensor_count(meta) * (int64_t)dtype_bytes(meta->dtype);
}

int64_t tensor_span(const struct tensor_meta *meta)
{
    int64_t last = 0;
    for (uint32_t i = 0; i < meta->rank; i++) {
        if (meta->size[i] == 0)
            return 0;
        last += (meta->size[i] - 1) * meta->stride[i];
    }
    return last + 1;
}

bool tensor_is_contiguous(const struct tensor_meta *meta)
{
    int64_t expected = 1;
    bool is_row_major = true;
    for (uint32_t i = meta->rank; i-- > 0;) {
        int64_t size = meta->size[i];
        if (size == 0)
            return true;
        if (size != 1) {
            is_row_major &= meta->stride[i] == expected;
            expected *= size;
        }
    }
    return is_row_major;
}

// Dimensions of size 1 may have any stride. The others, sorted by stride, must each step over exactly what lies within.
bool tensor_is_dense(const struct tensor_meta *meta)
{
    if (tensor_is_contiguous(meta))
        return true;
    uint32_t left = 0;
    for (uint32_t i = 0; i < meta->rank; i++)
        left |= meta->size[i] > 1 ? 1u << i : 0;
    for (int64_t expected = 1; left != 0;) {
        uint32_t next = DJ_RANK_MAX;
        for (uint32_t i = 0; i < meta->rank && next == DJ_RANK_MAX; i++)
            next = (left >> i & 1) && meta->stride[i] == expected ? i : DJ_RANK_MAX;
        if (next == DJ_RANK_MAX)
            return false;
        left &= ~(1u << next);
        expected *= meta->size[next];
    }
    return true;
}

void tensor_make_contiguous(struct tensor_meta *meta)
{
    uint64_t stride = 1;    // unsigned: sizes that nobody has checked wrap instead of trapping
    for (uint32_t i = meta->rank; i-- > 0;) {
        meta->stride[i] = (int64_t)stride;
        stride *= (uint64_t)(meta->size[i] > 1 ? meta->size[i] : 1);
    }
}

bool tensor_same_sizes(const struct tensor_meta *a, const struct tensor_meta *b)
{
    if (a->rank != b->rank)
        return false;
    for (uint32_t i = 0; i < a->rank; i++)
        if (a->size[i] != b->size[i])
            return false;
    return true;
}

const char *tensor_text(const struct tensor_meta *meta, char text[TENSOR_TEXT_MAX])
{
    // 8 dimensions of at most 20 characters and a separator fit beside the longest name.
    uint32_t rank = meta->rank <= DJ_RANK_MAX ? meta->rank : DJ_RANK_MAX;
    int used = snprintf(text, TENSOR_TEXT_MAX, "%s[", dtype_name(meta->dtype));
    for (uint32_t i = 0; i < rank; i++)
        used += snprintf(text + used, (size_t)(TENSOR_TEXT_MAX - used), i ? ", %" PRId64 : "%" PRId64, meta->size[i]);
    snprintf(text + used, (size_t)(TENSOR_TEXT_MAX - used), "]");
    return text;
}
