// cuDNN: the functions and numbers of it that conv.c and attention.c use, declared by us (see libraries.h).

#ifndef GPU_WORKER_KERNELS_CUDA_CUDNN_H
#define GPU_WORKER_KERNELS_CUDA_CUDNN_H

#include <stddef.h>
#include <stdint.h>

#include "gpu_worker/kernels/cuda/api.h"

struct cudnn_api {
    size_t (*cudnnGetVersion)(void);
    const char *(*cudnnGetErrorString)(int status);
    int (*cudnnCreate)(void **ret);
    int (*cudnnDestroy)(void *handle);
    int (*cudnnSetStream)(void *handle, cuda_stream stream);
};

#endif
