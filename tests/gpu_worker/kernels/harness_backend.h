// What the harness runs: one backend's kernels on this process's memory. One implementation a library.

#ifndef TESTS_GPU_WORKER_KERNELS_HARNESS_BACKEND_H
#define TESTS_GPU_WORKER_KERNELS_HARNESS_BACKEND_H

#include "gpu_worker/kernels/kernel.h"

const char *backend_numerics(void);
bool backend_has(uint32_t op);
bool backend_can(const struct kernel_call *call);
size_t backend_scratch(const struct kernel_call *call);
enum dj_error backend_run(const struct kernel_call *call);

#endif
