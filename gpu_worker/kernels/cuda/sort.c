// sort, host half.

#include "gpu_worker/kernels/cuda/cuda.h"

void cuda_table_sort(struct cuda_entry *entry)
{
    (void)entry;
}
