// The functions of NVIDIA's libraries that no test calls: they are there to be found. Weak, so that a fake's own go before them.

#include "gpu_worker/kernels/cuda/api.h"
#include "gpu_worker/kernels/cuda/cublaslt.h"
#include "gpu_worker/kernels/cuda/cudnn.h"

#pragma GCC diagnostic ignored "-Wunused-parameter"

#ifdef FAKE_CUDART
#define X(name, parameters) \
    __attribute__((weak)) int name parameters \
    { \
        return 0; \
    }
CUDA_FUNCTIONS(X)
#endif
#ifdef FAKE_CUBLASLT
#define X(type, name, parameters) \
    __attribute__((weak)) type name parameters \
    { \
        return (type)0; \
    }
CUBLASLT_FUNCTIONS(X)
#endif
#ifdef FAKE_CUDNN
#define X(type, name, parameters) \
    __attribute__((weak)) type name parameters \
    { \
        return (type)0; \
    }
CUDNN_FUNCTIONS(X)
#endif
