// Loop: dimensions of size 1 go, neighbours that are contiguous in every tensor become one.

#include <string.h>

#include "gpu_worker/kernels/cuda/cuda.h"

// The tensor's stride along dimension `dim` of `sizes`; dimensions are matched from the last one on.
static int64_t stride_of(const struct tensor_meta *sizes, const struct tensor_meta *tensor, uint32_t dim)
{
    uint32_t missing = sizes->rank - tensor->rank;
    if (dim < missing || tensor->size[dim - missing] == 1)
        return 0;
    return tensor->stride[dim - missing];
}

static bool continues(const struct loop *loop, uint32_t tensors, const int64_t *stride, int64_t size)
{
    for (uint32_t t = 0; t < tensors; t++)
        if (loop->stride[t][loop->rank - 1] != stride[t] * size)
            return false;
    return loop->rank > 0;
}

bool cuda_loop_make(const struct tensor_meta *sizes, const struct tensor_meta *const *tensor, uint32_t tensors, struct loop *ret)
{
    struct loop loop = {.count = tensor_count(sizes)};

    if (tensors > LOOP_TENSORS_MAX)
        return false;
    for (uint32_t d = 0; d < sizes->rank; d++) {
        int64_t stride[LOOP_TENSORS_MAX], size = sizes->size[d];
        if (size == 1)
            continue;
        for (uint32_t t = 0; t < tensors; t++)
            stride[t] = stride_of(sizes, tensor[t], d);
        // The dimension before goes on where this one ends: one longer dimension.
        if (loop.rank > 0 && continues(&loop, tensors, stride, size)) {
            loop.size[loop.rank - 1] *= size;
        } else {
            loop.size[loop.rank++] = size;
        }
        for (uint32_t t = 0; t < tensors; t++)
            loop.stride[t][loop.rank - 1] = stride[t];
    }
    loop.is_dense = loop.rank < 2;
    for (uint32_t t = 0; t < tensors && loop.rank == 1; t++)
        loop.is_dense = loop.is_dense && loop.stride[t][0] == 1;
    *ret = loop;
    return true;
}
