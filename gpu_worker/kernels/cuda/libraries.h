// Libraries: cuBLASLt and cuDNN as tables of functions with their handles, as the device opened them (device/cuda/load.h). Either may be
// absent: then kernels of our own serve, as another numerics class. Functions' and enumerations' names are the libraries' own;
// declarations are ours, compared with NVIDIA's headers where there are any.

#ifndef GPU_WORKER_KERNELS_CUDA_LIBRARIES_H
#define GPU_WORKER_KERNELS_CUDA_LIBRARIES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/base/error.h"
#include "gpu_worker/kernels/cuda/api.h"

struct cublaslt_api;            // cublaslt.h
struct cudnn_api;               // cudnn.h
struct matmul_cache;            // matmul_blas.c: the algorithm chosen for each shape
struct dnn_cache;               // dnn_graph.c: cuDNN's plan for each shape

struct cuda_libraries {
    const struct cuda_api *api;
    uint32_t processors;        // of the GPU: multiprocessors
    uint32_t capability;        // 90 for 9.0
    bool allows_tf32;
    const struct cublaslt_api *blas;
    void *blas_handle;          // cublasLtHandle_t
    struct matmul_cache *matmuls;
    const struct cudnn_api *dnn;
    void *dnn_handle;           // cudnnHandle_t
    struct dnn_cache *plans;
    void *workspace;            // device memory for both, one call at a time (one compute stream)
    size_t workspace_bytes;
    // Called before a plan of cuDNN is destroyed: ends what may still use it, the stream's work and captured graphs with library calls.
    // NULL: nothing can.
    void (*evicting)(void *self);
    void *evicting_self;
    bool is_capturing;          // a stream is captured: plans are neither made nor destroyed
};

// The cache of matrix products' algorithms, for one device; used on its thread only. DJ_E_NO_MEMORY. Freed before `blas_handle` is
// destroyed. An algorithm owns no code of kernels, so one may go while a captured graph holds what it launched.
enum { MATMUL_CACHE_ENTRIES = 512 };
DJ_MUST_USE enum dj_error matmul_cache_make(struct matmul_cache **ret);
void matmul_cache_free(struct matmul_cache *cache, const struct cublaslt_api *blas);       // NULL is allowed
// Names everything besides the shapes that decides the bits of matrix products: a part of the numerics class.
uint64_t matmul_numerics(const struct cuda_libraries *libraries);

// cuDNN's plans, one a shape; the one used longest ago of DNN_PLANS_MAX makes room. DJ_E_NO_MEMORY.
enum { DNN_PLANS_MAX = 512 };
DJ_MUST_USE enum dj_error dnn_cache_make(struct dnn_cache **ret);
void dnn_cache_free(struct dnn_cache *cache, const struct cudnn_api *dnn);       // NULL is allowed
uint32_t dnn_cache_plans(const struct dnn_cache *cache);                         // of them looked for, for tests and statistics
uint64_t dnn_numerics(const struct cuda_libraries *libraries);                   // as matmul_numerics; 0 without cuDNN

#endif
