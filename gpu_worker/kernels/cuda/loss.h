// Loss: arguments of loss.cuh, and the family norm's rows for it.

#ifndef GPU_WORKER_KERNELS_CUDA_LOSS_H
#define GPU_WORKER_KERNELS_CUDA_LOSS_H

#include <stdint.h>

enum { LOSS_THREADS = 1024, LOSS_ROW_THREADS = 256 };

// Values [rows, classes].
struct nll_args {
    const void *x, *gradient, *total, *weight;
    const void *classes_of;         // int64 or uint8, of each row
    void *out, *ret_total;
    int64_t rows, classes, ignored;
    int64_t x_row, x_column, of_step, weight_step, gradient_step, out_row, out_column;
    int32_t is_byte;                // classes_of are uint8
    int32_t is_each;                // no reduction
    int32_t is_mean;
    int32_t pad;
};

struct cuda_entry;
void cuda_table_loss(struct cuda_entry *entry);

#endif
