// Gpus: what --gpus names, and the CUDA module (gpu_worker/device/cuda/module.h) that makes devices of them. The binary itself links nothing of CUDA: the module is
// opened from beside it, ../lib/libdjinn_cuda.so, or from where DJINN_CUDA_MODULE says, and only for --gpus.

#ifndef CLI_GPUS_H
#define CLI_GPUS_H

#include "cli/command.h"
#include "gpu_worker/device/cuda/module.h"

enum { GPUS_MAX = 64 };
#define GPUS_TAKES "all, none or numbers of GPUs (0,1)"

struct gpus {
    bool is_all;
    uint32_t count;             // 0 and not all: the CPU
    int ordinal[GPUS_MAX];      // as CUDA counts: from 0
};

// "all", "none", "0", "0,2"; each GPU at most once.
DJ_MUST_USE bool gpus_parse(const char *text, struct gpus *ret);
// Turns `all` into the GPUs that there are, and sees that several named ones are there. A child process looks: CUDA does not survive fork, and workers may be forked afterwards. DJ_E_NO_DEVICE.
DJ_MUST_USE enum dj_error gpus_resolve(struct gpus *gpus, struct fault *fault);
// Whether there is this GPU, and all that is needed to use it. This process must not be forked afterwards. DJ_E_NO_DEVICE.
DJ_MUST_USE enum dj_error gpu_check(int ordinal, struct fault *fault);
// Makes the device of one GPU; its memory as --memory says, 0: most of what is free. DJ_E_NO_DEVICE and whatever the module says.
DJ_MUST_USE enum dj_error gpu_make(int ordinal, uint64_t memory_bytes, const struct io_sink *sink, struct device_port **ret, struct fault *fault);

// Where the module is looked for.
void gpus_module_path(char path[CLI_PATH_MAX]);
// Opens it; DJ_E_NO_DEVICE with the words a person needs.
DJ_MUST_USE enum dj_error gpus_module(const struct cuda_module **ret, struct fault *fault);

// Runs serve(context, i) for each i below `count` in a process of its own and passes SIGTERM and SIGINT on. Ends when all have ended, with the first code
// that is not EXIT_DONE. The processes end with this one, however it ends.
int gpus_serve_each(uint32_t count, int (*serve)(void *context, uint32_t which), void *context);

#endif
