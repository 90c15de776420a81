// The CPU's kernels.

#include "tests/gpu_worker/kernels/harness_backend.h"

const char *backend_numerics(void)
{
    return kernels_cpu()->numerics;
}

bool backend_has(uint32_t op)
{
    return kernels_cpu()->kernel[op].run != NULL;
}

bool backend_can(const struct kernel_call *call)
{
    const struct kernel *kernel = &kernels_cpu()->kernel[call->op->number];
    return kernel->can == NULL || kernel->can(call);
}

size_t backend_scratch(const struct kernel_call *call)
{
    const struct kernel *kernel = &kernels_cpu()->kernel[call->op->number];
    return kernel->scratch == NULL ? 0 : kernel->scratch(call);
}

enum dj_error backend_run(const struct kernel_call *call)
{
    return kernels_cpu()->kernel[call->op->number].run(call);
}
