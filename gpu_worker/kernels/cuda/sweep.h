// Sweep: a loop over the elements of a tensor that is written and of those that are read with it, as kernels that treat each element
// alone want it: dimensions in the order of the written tensor's strides, so that neighbouring threads write neighbouring places, and
// with divisions by multiplication. Read by host and device.

#ifndef GPU_WORKER_KERNELS_CUDA_SWEEP_H
#define GPU_WORKER_KERNELS_CUDA_SWEEP_H

#include <stdbool.h>
#include <stdint.h>

#include "gpu_worker/kernels/cuda/loop.h"

struct sweep {
    struct loop loop;                   // tensor 0 is the one that is written
    uint32_t magic[LOOP_RANK_MAX];      // n / size[d] == (high half of n * magic[d] + n) >> shift[d] for n < 2^31
    uint32_t shift[LOOP_RANK_MAX];
    uint32_t is_small;                  // fewer than 2^31 elements: magic serves
    uint32_t pad;
};

struct tensor_meta;

// A sweep over `sizes`; tensors are broadcast to them, and have no more dimensions. Strides may be negative (of tensors but the first).
// False: more than LOOP_TENSORS_MAX tensors.
bool sweep_make(const struct tensor_meta *sizes, const struct tensor_meta *const *tensor, uint32_t tensors, struct sweep *ret);

// The most elements, up to `most` (a power of two), that may be moved as one: contiguous in all tensors, every stride and the innermost
// size a multiple.
uint32_t sweep_group(const struct sweep *sweep, uint32_t tensors, uint32_t most);
// Counts groups of so many elements from now on.
void sweep_widen(struct sweep *sweep, uint32_t tensors, uint32_t group);

#endif
