// Scatter: arguments of scatter.cu.

#ifndef GPU_WORKER_KERNELS_CUDA_SCATTER_H
#define GPU_WORKER_KERNELS_CUDA_SCATTER_H

#include <stdint.h>

#include "gpu_worker/kernels/cuda/gather.h"
#include "gpu_worker/kernels/cuda/sort.h"

struct scatter_put_args {
    const void *plain;                  // NULL: `value` everywhere
    void *indexed;
    uint8_t value[16];                  // the element, repeated
    int32_t *winner;                    // by place: the last position that names it, and one; NULL: no two positions name one place
    struct index_walk walk;
};

struct scatter_clear_args {
    int32_t *winner;
    int64_t count;
};

struct scatter_keys_args {
    struct sort_entry *entry;           // one for each position: the place's number, the position
    int64_t ignored;                    // a number that is left out; -1: none
    struct index_walk walk;             // the dimensions with indices
};

struct scatter_sum_args {
    const void *plain;                  // NULL: `value` everywhere
    void *indexed;
    uint8_t value[16];
    const struct sort_entry *entry;     // sorted
    int64_t entries;
    double scale;
    uint32_t is_scaled, by_frequency;   // by_frequency: divided by how many positions name the place
    struct index_walk walk, free;       // the dimensions with indices, and the others
};

#endif
