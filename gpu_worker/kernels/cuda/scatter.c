// scatter, host half.

#include "gpu_worker/kernels/cuda/cuda.h"

void cuda_table_scatter(struct cuda_entry *entry)
{
    (void)entry;
}
