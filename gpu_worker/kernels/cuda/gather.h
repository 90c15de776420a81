// Gather: arguments of gather.cu, and the places that index tensors name, which scatter.cu uses too.

#ifndef GPU_WORKER_KERNELS_CUDA_GATHER_H
#define GPU_WORKER_KERNELS_CUDA_GATHER_H

#include <stdint.h>

enum { INDEX_TENSORS_MAX = 8, INDEX_RANK_MAX = 8 };

// What a walk steps through. Plain is the tensor that is read or written in order, indexed the one where indices decide, number counts the
// indexed one's places (rows of columns that belong together are one place), position counts the indices in order.
enum walk_step { WALK_PLAIN, WALK_INDEXED, WALK_NUMBER, WALK_POSITION, WALK_INDEX, WALK_STEPS = WALK_INDEX + INDEX_TENSORS_MAX };

// A loop over rows of `row_bytes` contiguous bytes in both tensors. Steps in bytes, those of numbers and positions in ones.
struct index_walk {
    int64_t rows, row_bytes;
    uint32_t rank, indices;
    uint32_t unit;                                  // bytes, a power of two up to 16 that divides row_bytes and every step
    uint32_t wide;                                  // bit k: index tensor k is int64, else int32
    uint32_t may_wrap, pad;                         // negative indices count from the end
    int64_t size[INDEX_RANK_MAX];
    int64_t step[WALK_STEPS][INDEX_RANK_MAX];
    const void *index[INDEX_TENSORS_MAX];
    int64_t extent[INDEX_TENSORS_MAX];              // of the dimension that it decides
    int64_t index_step[INDEX_TENSORS_MAX];          // of that dimension in the indexed tensor, in bytes
    int64_t number_step[INDEX_TENSORS_MAX];
};

struct gather_args {
    void *plain;
    const void *indexed;                            // NULL: `value` everywhere
    uint8_t value[16];                              // the element, repeated
    struct index_walk walk;
};

struct index_check_args {
    struct index_walk walk;
};

#endif
