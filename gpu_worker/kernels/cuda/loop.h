// Loop: a strided loop over several tensors as arguments of a kernel; read by host and device.

#ifndef GPU_WORKER_KERNELS_CUDA_LOOP_H
#define GPU_WORKER_KERNELS_CUDA_LOOP_H

#include <stdint.h>

enum { LOOP_RANK_MAX = 8, LOOP_TENSORS_MAX = 5 };

struct loop {
    int64_t count;                                          // of elements
    uint32_t rank, is_dense;                                // is_dense: rank 1 (or 0), and every stride is 1
    int64_t size[LOOP_RANK_MAX];
    int64_t stride[LOOP_TENSORS_MAX][LOOP_RANK_MAX];        // in elements
};

#endif
