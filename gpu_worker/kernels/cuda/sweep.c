// Sweep, host half: see sweep.h.

#include "gpu_worker/kernels/cuda/sweep.h"

#include "gpu_worker/kernels/cuda/cuda.h"

// A division of n < 2^31 by multiplication (Granlund and Montgomery, "Division by invariant integers using multiplication", 1994).
static void make_magic(struct sweep *sweep)
{
    const struct loop *loop = &sweep->loop;
    sweep->is_small = loop->count < (int64_t)1 << 31;
    for (uint32_t d = 0; d < loop->rank && sweep->is_small; d++) {
        uint64_t divisor = loop->size[d] > 0 ? (uint64_t)loop->size[d] : 1;
        uint32_t shift = 0;
        while ((uint64_t)1 << shift < divisor)
            shift++;
        sweep->shift[d] = shift;
        sweep->magic[d] = (uint32_t)((((uint64_t)1 << 32) * (((uint64_t)1 << shift) - divisor)) / divisor + 1);
    }
}

static struct tensor_meta broadcast(const struct tensor_meta *sizes, const struct tensor_meta *tensor)
{
    struct tensor_meta meta = *sizes;
    uint32_t missing = sizes->rank - tensor->rank;
    for (uint32_t d = 0; d < sizes->rank; d++)
        meta.stride[d] = d < missing || tensor->size[d - missing] == 1 ? 0 : tensor->stride[d - missing];
    return meta;
}

static struct tensor_meta reordered(const struct tensor_meta *meta, const uint32_t order[DJ_RANK_MAX])
{
    struct tensor_meta ret = *meta;
    for (uint32_t d = 0; d < meta->rank; d++) {
        ret.size[d] = meta->size[order[d]];
        ret.stride[d] = meta->stride[order[d]];
    }
    return ret;
}

bool sweep_make(const struct tensor_meta *sizes, const struct tensor_meta *const *tensor, uint32_t tensors, struct sweep *ret)
{
    struct tensor_meta meta[LOOP_TENSORS_MAX], shape;
    const struct tensor_meta *at[LOOP_TENSORS_MAX];
    uint32_t order[DJ_RANK_MAX];

    if (tensors == 0 || tensors > LOOP_TENSORS_MAX)
        return false;
    for (uint32_t t = 0; t < tensors; t++)
        meta[t] = broadcast(sizes, tensor[t]);
    for (uint32_t d = 0; d < sizes->rank; d++) {
        uint32_t place = d;
        // Larger strides first; equal ones stay as they stand.
        for (; place > 0 && meta[0].stride[order[place - 1]] < meta[0].stride[d]; place--)
            order[place] = order[place - 1];
        order[place] = d;
    }
    for (uint32_t t = 0; t < tensors; t++) {
        meta[t] = reordered(&meta[t], order);
        at[t] = &meta[t];
    }
    shape = meta[0];
    *ret = (struct sweep){.pad = 0};
    if (!cuda_loop_make(&shape, at, tensors, &ret->loop))
        return false;
    make_magic(ret);
    return true;
}

uint32_t sweep_group(const struct sweep *sweep, uint32_t tensors, uint32_t most)
{
    const struct loop *loop = &sweep->loop;
    uint32_t group = most;
    if (loop->rank == 0)
        return 1;
    for (uint32_t t = 0; t < tensors; t++) {
        if (loop->stride[t][loop->rank - 1] != 1)
            return 1;
        for (uint32_t d = 0; d + 1 < loop->rank; d++)
            while (loop->stride[t][d] % group != 0)
                group /= 2;
    }
    while (loop->size[loop->rank - 1] % group != 0)
        group /= 2;
    return group;
}

void sweep_widen(struct sweep *sweep, uint32_t tensors, uint32_t group)
{
    struct loop *loop = &sweep->loop;
    if (group == 1 || loop->rank == 0)
        return;
    loop->size[loop->rank - 1] /= group;
    loop->count /= group;
    for (uint32_t t = 0; t < tensors; t++)
        for (uint32_t d = 0; d + 1 < loop->rank; d++)
            loop->stride[t][d] /= group;
    make_magic(sweep);
}
