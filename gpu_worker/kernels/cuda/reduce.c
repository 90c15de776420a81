// reduce, host half.

#include "gpu_worker/kernels/cuda/cuda.h"

void cuda_table_reduce(struct cuda_entry *entry)
{
    (void)entry;
}
