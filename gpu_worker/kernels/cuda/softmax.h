// Softmax: arguments of softmax.cu.

#ifndef GPU_WORKER_KERNELS_CUDA_SOFTMAX_H
#define GPU_WORKER_KERNELS_CUDA_SOFTMAX_H

#include <stdint.h>

#include "gpu_worker/kernels/cuda/loop.h"

struct softmax_args {
    const void *x, *y;              // forward: the input; backward: gradient and result
    void *out;
    int64_t length;                 // of a row
    int64_t stride[3];              // along the row, of x, y and out
    struct loop rows;               // tensors x, y, out without the row's dimension
    int32_t is_log;
    int32_t pad;
};

#endif
