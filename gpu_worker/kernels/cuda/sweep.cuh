// Sweep, device half.

#ifndef GPU_WORKER_KERNELS_CUDA_SWEEP_CUH
#define GPU_WORKER_KERNELS_CUDA_SWEEP_CUH

#include "gpu_worker/kernels/cuda/device.cuh"
#include "gpu_worker/kernels/cuda/sweep.h"

// The element offset of element `index` in tensor `which`.
DJ_FN int64_t sweep_at(const struct sweep *sweep, uint32_t which, int64_t index)
{
    const struct loop *loop = &sweep->loop;
    if (loop->is_dense || !sweep->is_small)
        return dj_at(loop, which, index);
    int64_t offset = 0;
    uint32_t rest = (uint32_t)index;
    for (int d = (int)loop->rank - 1; d > 0; d--) {
        uint32_t above = ((uint32_t)((uint64_t)rest * sweep->magic[d] >> 32) + rest) >> sweep->shift[d];
        offset += (int64_t)(rest - above * (uint32_t)loop->size[d]) * loop->stride[which][d];
        rest = above;
    }
    return loop->rank == 0 ? 0 : offset + (int64_t)rest * loop->stride[which][0];
}

// N values that are loaded and stored as one, 16 bytes at a time where they are as many.
template <typename T, int N> struct alignas(sizeof(T) * N < 16 ? sizeof(T) * N : 16) sweep_pack { T value[N]; };

#endif
