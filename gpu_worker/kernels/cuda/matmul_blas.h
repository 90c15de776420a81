// Matmul blas: matrix products by cuBLASLt, for the shapes and layouts that it takes. Device thread only.

#ifndef GPU_WORKER_KERNELS_CUDA_MATMUL_BLAS_H
#define GPU_WORKER_KERNELS_CUDA_MATMUL_BLAS_H

#include <stdbool.h>

#include "core/ops/dtype.h"
#include "gpu_worker/kernels/cuda/matmul.h"
#include "gpu_worker/kernels/cuda/program.h"

// Adds a call for the product to the program, if its libraries have cuBLASLt and that takes it (float dtypes; every matrix dense in
// rows or in columns; what is added a matrix, or with beta 1 a vector along n). The algorithm is asked for once per shape. False:
// nothing was added.
bool matmul_blas_emit(struct cuda_program *program, enum dtype dtype, const struct matmul_args *args);

#endif
