// Module: what libdjinn_cuda.so exports, one function that returns a table. The worker opens it for --gpus (cli) and nothing else of this folder is visible outside.
// The module has the device code of all families in it, its own copy of the libraries of this tree that it needs, and no dependency besides the C library.

#ifndef GPU_WORKER_DEVICE_CUDA_MODULE_H
#define GPU_WORKER_DEVICE_CUDA_MODULE_H

#include "core/io/device.h"
#include "core/io/io.h"
#include "gpu_worker/device/cuda/cuda_device.h"
#include "gpu_worker/device/cuda/load.h"

enum { CUDA_MODULE_VERSION = 2 };
#define CUDA_MODULE_SYMBOL "djinn_cuda_module"

struct cuda_module_config {
    uint32_t index;
    int ordinal;
    uint64_t memory_bytes;
    bool allows_tf32;
    struct cuda_chaos chaos;            // the program's: the module's own knobs are never set
    const struct io_sink *sink;
};

struct cuda_module {
    uint32_t version;                   // CUDA_MODULE_VERSION, else it is not used
    // Log lines of the module go where the program's go; NULL: to standard error. Called before anything else.
    void (*log_to)(void (*write)(int level, const char *component, const char *text));
    // What there is on this machine, opened as needed; the same one at each call. Fails as cuda_load, with *ret filled.
    enum dj_error (*look)(const struct cuda_load **ret, struct fault *fault);
    // A device on a GPU: cuda_device_make.
    enum dj_error (*make)(const struct cuda_module_config *config, struct device_port **ret, struct fault *fault);
};

typedef const struct cuda_module *cuda_module_get(void);

#endif
