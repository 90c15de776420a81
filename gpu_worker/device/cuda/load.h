// Load: finds and opens what a GPU needs at run time, in the one order that works, by absolute path where it is not in the loader's own: libcuda.so.1 (the driver's),
// libcudart.so.13, libnvrtc-builtins and libnvrtc (cuDNN wants them), libcublasLt.so.13, libcublas.so.13, libcudnn.so.9. Searched: DJINN_CUDA_PATH (folders, colons
// between; "-" among them ends the search there), the loader's own places, /usr/local/cuda*/lib64, the active Python environment's and /opt/*/.venv's
// site-packages/nvidia/*/lib, /usr/local/lib/python3*'s, /usr/local/nvidia/lib64, /usr/lib/wsl/lib.
//
// The runtime and a driver are needed; cuBLASLt and cuDNN are not (kernels of our own serve then). Nothing is linked: where nothing of NVIDIA's is installed this
// still runs and says so. Not thread-safe; what is open stays open.

#ifndef GPU_WORKER_DEVICE_CUDA_LOAD_H
#define GPU_WORKER_DEVICE_CUDA_LOAD_H

#include <stdbool.h>
#include <stdint.h>

#include "core/base/error.h"
#include "gpu_worker/kernels/cuda/api.h"
#include "gpu_worker/kernels/cuda/cublaslt.h"
#include "gpu_worker/kernels/cuda/cudnn.h"

enum { CUDA_PART_PATH_MAX = 512, CUDA_PARTS_MAX = 8 };

struct cuda_part {              // for `djinn doctor`
    const char *name;           // "driver", "runtime", "nvrtc-builtins", "nvrtc", "cublasLt", "cublas", "cudnn"
    const char *soname;         // "libcudart.so.13"
    bool is_needed, is_found;
    char path[CUDA_PART_PATH_MAX];
    uint32_t version;           // as the library counts: 13000, 130100, 91900; 0: not told
    struct fault fault;         // not found, or found and unusable: why, and how to get it
};

struct cuda_load {
    struct cuda_api api;
    struct cublaslt_api blas;   // usable when has_blas
    struct cudnn_api dnn;       // usable when has_dnn
    bool has_blas, has_dnn;
    int devices;
    uint32_t parts;
    struct cuda_part part[CUDA_PARTS_MAX];
};

// Fills everything that was found also when it fails. DJ_E_NO_DEVICE with words: no runtime, no driver, one too old, no GPU.
DJ_MUST_USE enum dj_error cuda_load(struct cuda_load *ret, struct fault *fault);

#endif
