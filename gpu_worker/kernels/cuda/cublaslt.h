// cuBLASLt: the functions and numbers of it that matmul.c uses, declared by us (see libraries.h).

#ifndef GPU_WORKER_KERNELS_CUDA_CUBLASLT_H
#define GPU_WORKER_KERNELS_CUDA_CUBLASLT_H

#include <stddef.h>
#include <stdint.h>

#include "gpu_worker/kernels/cuda/api.h"

struct cublaslt_api {
    size_t (*cublasLtGetVersion)(void);
    int (*cublasLtCreate)(void **ret);
    int (*cublasLtDestroy)(void *handle);
};

#endif
