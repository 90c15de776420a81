// norm, host half.

#include "gpu_worker/kernels/cuda/cuda.h"

void cuda_table_norm(struct cuda_entry *entry)
{
    (void)entry;
}
