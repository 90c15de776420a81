// Layout: strides of outputs. The manual is layout.h; each function states the ATen function that it mirrors.

#include "core/ops/layout.h"

#include "core/base/assert.h"
#include "core/base/bits.h"

#include <inttypes.h>

// Order in which channels_last strides grow.
static const uint8_t last_2d[4] = {1, 3, 2, 0};
static const uint8_t last_3d[5] = {1, 4, 3, 2, 0};

bool layout_contiguous(struct tensor_meta *meta)
{
    int64_t stride = 1;
    for (uint32_t i = meta->rank; i-- > 0;) {
        meta->stride[i] = stride;
        if (meta->size[i] > 1 && !i64_mul(stride, meta->size[i], &stride))
            return false;
    }
    return stride <= TENSOR_COUNT_MAX;
}

bool layout_format(struct tensor_meta *meta, enum memory_format format)
{
    if (!layout_contiguous(meta))
        return false;
    const uint8_t *order = format == FORMAT_CHANNELS_LAST ? last_2d : format == FORMAT_CHANNELS_LAST_3D ? last_3d : NULL;
    if (order == NULL)
        return true;
    assert(meta->rank == (format == FORMAT_CHANNELS_LAST ? 4u : 5u));
    int64_t stride = 1;    // empty dimensions make strides of 0 here, unlike row-major ones: PyTorch's does the same
    for (uint32_t i = 0; i < meta->rank; i++) {
        meta->stride[order[i]] = stride;
        stride *= meta->size[order[i]];
    }
    return true;
}

// c10's is_channels_last_strides_2d and _3d.
static bool suggests_order(const struct tensor_meta *meta, const uint8_t *order)
{
    int64_t least = 0;
    if (meta->stride[1] == 0)
        return false;
    for (uint32_t i = 0; i < meta->rank; i++) {
        uint32_t d = order[i];
        if (meta->size[d] == 0 || meta->stride[d] < least)
            return false;
        if (d == 0 && least == meta->stride[1])    // N111 is ambiguous: not channels_last
            return false;
        least = meta->stride[d];
        if (meta->size[d] > 1 && !i64_mul(least, meta->size[d], &least))
            least = INT64_MAX;
    }
    return true;
}

enum memory_format layout_suggest(const struct tensor_meta *meta)
{
    if (meta->rank == 4 && suggests_order(meta, last_2d))
        return FORMAT_CHANNELS_LAST;
    if (meta->rank == 5 && suggests_order(meta, last_3d))
        return FORMAT_CHANNELS_LAST_3D;
    return FORMAT_CONTIGUOUS;
}

static bool has_order(const struct tensor_meta *meta, const uint8_t *order)
{
    int64_t expected = 1;
    for (uint32_t i = 0; i < meta->rank; i++) {
        uint32_t d = order[i];
        if (meta->size[d] == 1)
            continue;
        if (meta->stride[d] != expected)
            return false;
        expected *= meta->size[d];
    }
    return true;
}

bool layout_is_channels_last(const struct tensor_meta *meta)
{
    return meta->rank == 4 && has_order(meta, last_2d);
}

bool layout_is_channels_last_3d(const struct tensor_meta *meta)
{
    return meta->rank == 5 && has_order(meta, last_3d);
}

// What sorting needs to know of one operand: strides aligned to the output's dimensions, 0 where it is broadcast.
struct lanes {
    int64_t stride[DJ_RANK_MAX];
};

// TensorIterator's should_swap: above 0 when dimension `a`, now the inner, must come after `b`; below 0 when before.
static int compare_dims(const struct lanes *lanes, uint32_t n, const int64_t *size, uint32_t a, uint32_t b)
{
    for (uint32_t i = 0; i < n; i++) {
        int64_t stride_a = lanes[i].stride[a], stride_b = lanes[i].stride[b];
        if (stride_a == 0 || stride_b == 0)
            continue;
        if (stride_a != stride_b)
            return stride_a < stride_b ? -1 : 1;
        if (size[a] > size[b])
            return 1;
    }
    return 0;
}

// The insertion sort of TensorIterator::reorder_dimensions, which is not a total order: ambiguous pairs are stepped over. order[0] is
// the innermost dimension. Returns whether the order is row-major.
static bool sort_dims(const struct lanes *lanes, uint32_t n, const int64_t *size, uint32_t rank, uint8_t *order)
{
    for (uint32_t i = 0; i < rank; i++)
        order[i] = (uint8_t)(rank - 1 - i);
    bool is_row_major = true;
    for (uint32_t i = 1; i < rank; i++) {
        uint32_t moving = i;
        for (uint32_t j = i; j-- > 0;) {
            int verdict = compare_dims(lanes, n, size, order[j], order[moving]);
            if (verdict < 0)
                break;
            if (verdict > 0) {
                uint8_t swap = order[j];
                order[j] = order[moving];
                order[moving] = swap;
                moving = j;
                is_row_major = false;
            }
        }
    }
    if (!is_row_major) {
        is_row_major = true;
        for (uint32_t i = 0; i < rank; i++)
            is_row_major &= order[i] == rank - 1 - i;
    }
    return is_row_major;
}

bool layout_follow(struct tensor_meta *out, const struct tensor_meta *in)
{
    struct lanes lanes = {0};
    uint8_t order[DJ_RANK_MAX];
    for (uint32_t i = 0; i < in->rank; i++)
        lanes.stride[i] = in->stride[i];
    sort_dims(&lanes, 1, in->size, in->rank, order);
    int64_t stride = 1;
    for (uint32_t i = 0; i < in->rank; i++) {
        out->stride[order[i]] = stride;
        if (out->size[order[i]] > 1 && !i64_mul(stride, out->size[order[i]], &stride))
            return false;
    }
    return stride <= TENSOR_COUNT_MAX;
}

void layout_preserve(struct tensor_meta *out, const struct tensor_meta *in)
{
    out->rank = in->rank;
    for (uint32_t i = 0; i < in->rank; i++) {
        out->size[i] = in->size[i];
        out->stride[i] = in->stride[i];
    }
    if (!tensor_is_dense(in)) {
        bool fits = layout_follow(out, in);
        assert(fits);    // a checked meta's sizes do
    }
}

// ATen's computeStride: walks the old dimensions from the inside in chunks that are contiguous among themselves, and lets each
// chunk be cut into new dimensions. False when a new dimension would straddle two chunks.
bool layout_view(struct tensor_meta *out, const struct tensor_meta *in)
{
    if (in->rank == 0) {
        for (uint32_t i = 0; i < out->rank; i++)
            out->stride[i] = 1;
        return true;
    }
    int64_t base = in->stride[in->rank - 1], old_count = 1, new_count = 1;
    int d = (int)out->rank - 1;
    for (uint32_t i = in->rank; i-- > 0;) {
        old_count *= in->size[i];
        if (i > 0 && (in->size[i - 1] == 1 || in->stride[i - 1] == old_count * base))
            continue;
        while (d >= 0 && (new_count < old_count || out->size[d] == 1)) {
            out->stride[d] = new_count * base;
            new_count *= out->size[d];
            d--;
        }
        if (new_count != old_count)
            return false;
        if (i > 0) {
            base = in->stride[i - 1];
            old_count = new_count = 1;
        }
    }
    return d == -1;
}

// Row-major strides with no liberty at dimensions of size 1, and no empty dimension.
static bool is_canonical(const struct tensor_meta *meta)
{
    int64_t expected = 1;
    for (uint32_t i = meta->rank; i-- > 0;) {
        if (meta->stride[i] != expected || meta->size[i] == 0)
            return false;
        expected *= meta->size[i];
    }
    return true;
}

// The common shape, right-aligned. `*same` tells whether all operands have it without broadcasting.
static enum dj_error broadcast_sizes(const struct tensor_meta *const in[], uint32_t n, struct tensor_meta *out, bool *same,
                                     struct fault *fault)
{
    uint32_t rank = in[0]->rank;
    *same = true;
    for (uint32_t i = 0; i < rank; i++)
        out->size[i] = in[0]->size[i];
    for (uint32_t k = 1; k < n; k++) {
        const struct tensor_meta *t = in[k];
        if (t->rank != rank)
            *same = false;
        if (t->rank > rank) {
            for (uint32_t i = rank; i-- > 0;)
                out->size[t->rank - rank + i] = out->size[i];
            for (uint32_t i = 0; i < t->rank - rank; i++)
                out->size[i] = t->size[i];
            rank = t->rank;
        }
        for (uint32_t i = 0; i < t->rank; i++) {
            int64_t mine = t->size[i], *size = &out->size[rank - t->rank + i];
            if (mine == *size)
                continue;
            *same = false;
            if (*size == 1)
                *size = mine;
            else if (mine != 1)
                return fault_set(fault, DJ_E_SHAPE,
                                 "The size of tensor a (%" PRId64 ") must match the size of tensor b (%" PRId64
                                 ") at non-singleton dimension %" PRIu32,
                                 *size, mine, rank - t->rank + i);
        }
    }
    out->rank = rank;
    return DJ_OK;
}

// TensorIterator's fast set-ups for operands of one shape; false when none applies.
static bool same_shape_layout(const struct tensor_meta *const in[], uint32_t n, struct tensor_meta *out)
{
    bool all_contiguous = true, all_last = true, all_equal = true;
    for (uint32_t k = 0; k < n; k++) {
        all_contiguous &= tensor_is_contiguous(in[k]);
        all_last &= layout_is_channels_last(in[k]);
        for (uint32_t i = 0; k > 0 && i < out->rank; i++)
            all_equal &= in[k]->stride[i] == in[0]->stride[i];
    }
    if (all_contiguous)
        return layout_contiguous(out);    // the sizes are a checked input's: they fit
    if (all_last)
        return layout_format(out, FORMAT_CHANNELS_LAST);
    if (!all_equal || !tensor_is_dense(in[0]))
        return false;
    for (uint32_t i = 0; i < out->rank; i++)
        out->stride[i] = in[0]->stride[i];
    return true;
}

static enum dj_error too_large(struct fault *fault)
{
    return fault_set(fault, DJ_E_OVERFLOW, "the broadcast shape has more than 2^59 elements");
}

enum dj_error iter_output(const struct tensor_meta *const in[], uint32_t n, struct tensor_meta *out, struct fault *fault)
{
    assert(n >= 1 && n <= ITER_OPERANDS_MAX);
    bool same;
    enum dj_error error = broadcast_sizes(in, n, out, &same, fault);
    if (error != DJ_OK)
        return error;

    // Canonical operands never make the sort swap two dimensions, broadcast or not; most calls end here.
    bool all_canonical = true;
    for (uint32_t k = 0; k < n && all_canonical; k++)
        all_canonical = is_canonical(in[k]);
    if (all_canonical)
        return layout_contiguous(out) ? DJ_OK : too_large(fault);
    if (same && same_shape_layout(in, n, out))
        return DJ_OK;

    struct lanes lanes[ITER_OPERANDS_MAX];
    for (uint32_t k = 0; k < n; k++) {
        uint32_t missing = out->rank - in[k]->rank;
        for (uint32_t i = 0; i < missing; i++)
            lanes[k].stride[i] = 0;
        for (uint32_t i = 0; i < in[k]->rank; i++) {
            bool is_spread = in[k]->size[i] == 1 && out->size[missing + i] != 1;
            lanes[k].stride[missing + i] = is_spread ? 0 : in[k]->stride[i];
        }
    }
    uint8_t order[DJ_RANK_MAX];
    bool is_row_major = sort_dims(lanes, n, out->size, out->rank, order);
    if (!layout_contiguous(out))
        return too_large(fault);
    if (is_row_major)
        return DJ_OK;
    int64_t stride = 1;    // empty dimensions make strides of 0, as in compatible_stride
    for (uint32_t i = 0; i < out->rank; i++) {
        out->stride[order[i]] = stride;
        stride *= out->size[order[i]];
    }
    return DJ_OK;
}
